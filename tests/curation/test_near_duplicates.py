"""Near duplicates: planted ones are found, others are not, by comparing every pair exactly."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from curation_samples import SYSTEM, traffic_rows

from flywheel_core.curation.near_duplicates import (
    JACCARD_MIN,
    jaccard,
    near_duplicates,
    shingles,
)
from flywheel_core.ingest.topical_chat import HistoryLimits, read_topical_chat

REAL_FILE = Path(__file__).resolve().parents[3] / "shared/reference/topical_chat/test_freq.json.gz"


def row(text: str) -> dict[str, Any]:
    return {"messages": [SYSTEM, {"role": "user", "content": text}]}


def similarity(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Jaccard over runs of three words, written out apart."""

    def runs(one: dict[str, Any]) -> set[tuple[str, ...]]:
        text = " ".join(turn["content"] for turn in one["messages"][1:])
        words = "".join(c if c.isalnum() or c == "_" else " " for c in text.lower()).split()
        return set(zip(words, words[1:], words[2:], strict=False)) if len(words) >= 10 else set()

    a, b = runs(first), runs(second)
    return len(a & b) / len(a | b) if a | b else 0.0


def test_every_pair_above_the_threshold_and_no_other() -> None:
    rng = random.Random(1)
    words = [f"w{number}" for number in range(60)]
    rows = []
    for _ in range(60):
        text = rng.choices(words, k=30)
        rows.append(row(" ".join(text)))
        for changes in (1, 2, 4):
            copy = text.copy()
            for place in rng.sample(range(30), changes):
                copy[place] = rng.choice(words)
            rows.append(row(" ".join(copy)))
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(len(rows)), 2)
        if similarity(rows[i], rows[j]) >= JACCARD_MIN
    }
    found = {
        (index, other)
        for index, others in near_duplicates(rows, range(len(rows))).items()
        for other in others
        if index < other
    }
    assert 60 < len(expected) < 300
    assert found == expected


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"the data set is not here: {REAL_FILE}")
def test_200_planted_near_duplicates_in_real_text() -> None:
    limits = HistoryLimits(max_history_turns=3)
    read = itertools.islice(read_topical_chat(REAL_FILE, limits=limits), 0, 9000, 3)
    rows: list[dict[str, Any]] = [one for one in read if isinstance(one, dict) and shingles(one)]
    rng = random.Random(2)
    originals = rng.sample([i for i, one in enumerate(rows) if len(shingles(one)) > 25], 200)
    for index in originals:
        turns = [dict(turn) for turn in rows[index]["messages"]]
        turns[-1]["content"] += rng.choice([" Right?", "!!", " You know", "  "])
        rows.append(rows[index] | {"messages": turns})
    found = near_duplicates(rows, range(len(rows)))
    planted = range(len(rows) - 200, len(rows))
    caught = sum(
        original in found.get(i, ()) for original, i in zip(originals, planted, strict=True)
    )
    print(f"\n{caught} of 200 planted near duplicates found among {len(rows)} conversations")
    assert caught >= 199


def test_a_short_conversation_is_nobodys_copy_and_the_system_turn_does_not_count() -> None:
    assert near_duplicates([row("hi"), row("hi"), row("")], range(3)) == {}
    long = {"role": "system", "content": " ".join(f"s{number}" for number in range(200))}
    rows = traffic_rows(2)
    for number, one in enumerate(rows):
        text = " ".join(f"{'ab'[number]}{place}" for place in range(12))
        one["messages"] = [long, {"role": "user", "content": text}]
    assert near_duplicates(rows, range(2)) == {}


def test_equal_conversations_with_different_characters_are_near_duplicates() -> None:
    text = " ".join(f"w{place}" for place in range(12))
    rows = [row(text), row("something else"), row(text)]
    rows[2]["messages"] = [{"role": "system", "content": "Another."}, rows[2]["messages"][1]]
    assert near_duplicates(rows, range(3)) == {0: {2}, 2: {0}}
    assert near_duplicates(rows, [0, 1]) == {}


def test_jaccard_by_hand() -> None:
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 0.0
