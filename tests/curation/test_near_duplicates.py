"""Near duplicates: planted ones are found, others are not, by comparing every pair exactly."""

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curation_samples import SYSTEM, traffic_rows

from flywheel_core.curation.near_duplicates import (
    BANDS,
    BUCKET_MAX,
    JACCARD_MIN,
    copies,
    jaccard,
    near_duplicates,
)
from flywheel_core.curation.shingles import CHUNK_ROWS, Shingles, shingles
from flywheel_core.ingest.topical_chat import HistoryLimits, read_topical_chat

REAL_FILE = Path(__file__).resolve().parents[3] / "shared/reference/topical_chat/test_freq.json.gz"


def row(text: str, conversation: str = "c", turn: int = 0) -> dict[str, Any]:
    messages = [SYSTEM, {"role": "user", "content": text}]
    return {"messages": messages, "conversation_id": conversation, "turn_index": turn}


def similarity(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Jaccard over runs of three words, written out apart."""

    def runs(one: dict[str, Any]) -> set[tuple[str, ...]]:
        text = " ".join(turn["content"] for turn in one["messages"][1:])
        words = "".join(c if c.isalnum() or c == "_" else " " for c in text.lower()).split()
        return set(zip(words, words[1:], words[2:], strict=False)) if len(words) >= 10 else set()

    a, b = runs(first), runs(second)
    return len(a & b) / len(a | b) if a | b else 0.0


def linked(count: int, pairs: list[tuple[int, int]]) -> set[tuple[int, ...]]:
    """What a chain of pairs holds together, by spreading labels until nothing changes."""
    labels = list(range(count))
    for _ in range(count):
        for i, j in pairs:
            labels[i] = labels[j] = min(labels[i], labels[j])
    found = {label: tuple(i for i in range(count) if labels[i] == label) for label in labels}
    return {members for members in found.values() if len(members) > 1}


def originals_and_variants(seed: int, num_originals: int) -> list[dict[str, Any]]:
    """Texts of 30 words, each followed by three with 1, 2 and 4 of them drawn again."""
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(60)]
    rows = []
    for _ in range(num_originals):
        text = rng.choices(words, k=30)
        rows.append(row(" ".join(text)))
        for changes in (1, 2, 4):
            copy = text.copy()
            for place in rng.sample(range(30), changes):
                copy[place] = rng.choice(words)
            rows.append(row(" ".join(copy)))
    return rows


def variants_of_one(count: int) -> list[dict[str, Any]]:
    """One text of 60 words, each time with another of them replaced by a word of its own."""
    rng = random.Random(3)
    rows = []
    for number in range(count):
        words = [f"w{place}" for place in range(60)]
        words[rng.randrange(60)] = f"x{number}"
        rows.append(row(" ".join(words), f"c{number}"))
    return rows


def test_groups_are_the_pairs_above_the_threshold_and_no_others_chained() -> None:
    rows = originals_and_variants(1, 60)
    pairs = [
        (i, j)
        for i, j in itertools.combinations(range(len(rows)), 2)
        if similarity(rows[i], rows[j]) >= JACCARD_MIN
    ]
    assert 60 < len(pairs) < 300
    found = near_duplicates(rows, range(len(rows)))
    assert set(found.members.values()) == linked(len(rows), pairs)
    assert all(name == members[0] for name, members in found.members.items())


@pytest.mark.parametrize("crowd", ["equal", "nearly equal"])
def test_a_crowd_costs_one_comparison_a_row(crowd: str) -> None:
    for count in (500, 4000):
        same = [row("one two three four five six seven eight nine ten")] * count
        rows = same if crowd == "equal" else variants_of_one(count)
        found = near_duplicates(rows, range(count))
        assert list(found.members.values()) == [tuple(range(count))]
        assert found.num_compared < 1.5 * count


def test_a_crowd_of_strangers_in_one_bucket_is_not_compared_all_with_all() -> None:
    """Half of each text is the same, so many share a bucket, and none is a near duplicate."""
    shared = [f"s{place}" for place in range(60)]
    counts = {}
    for count in (500, 2000):
        rows = [
            row(" ".join(shared + [f"o{number}x{place}" for place in range(25)]))
            for number in range(count)
        ]
        found = near_duplicates(rows, range(count))
        assert found.members == {}
        counts[count] = found.num_compared
    assert 0 < counts[2000] < 1.5 * 4 * counts[500]
    assert counts[2000] < BANDS * BUCKET_MAX * 2000


def test_copies_leave_no_near_duplicates_and_each_has_one_that_stayed() -> None:
    rows = originals_and_variants(2, 40)
    rank = {index: (index * 37) % len(rows) for index in range(len(rows))}
    gone = copies(rows, near_duplicates(rows, range(len(rows))), rank)
    stayed = [index for index in range(len(rows)) if index not in gone]
    assert len(gone) > 40
    assert all(
        similarity(rows[i], rows[j]) < JACCARD_MIN for i, j in itertools.combinations(stayed, 2)
    )
    for index in gone:
        assert any(
            similarity(rows[index], rows[other]) >= JACCARD_MIN and rank[other] < rank[index]
            for other in stayed
        )


def test_turns_of_one_conversation_share_its_history_and_are_no_copies() -> None:
    text = " ".join(f"w{place}" for place in range(40))
    rows = [row(text, "c", 3), row(text + " and more", "c", 5), row(text + " or less", "d", 3)]
    groups = near_duplicates(rows, range(3))
    assert groups.members == {0: (0, 1, 2)}
    assert copies(rows, groups, {0: 0, 1: 1, 2: 2}) == {2}
    assert copies(rows, groups, {0: 2, 1: 1, 2: 0}) == {0, 1}
    again = row(text + " again", "c", 3)
    assert copies([rows[0], again], near_duplicates([rows[0], again], range(2)), {0: 0, 1: 1}) == {
        1
    }


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"the data set is not here: {REAL_FILE}")
def test_200_planted_near_duplicates_in_real_text() -> None:
    limits = HistoryLimits(max_history_turns=3)
    read = itertools.islice(read_topical_chat(REAL_FILE, limits=limits), 0, 9000, 3)
    rows: list[dict[str, Any]] = [
        one for one in read if isinstance(one, dict) and len(shingles([one["messages"]])[0])
    ]
    rng = random.Random(2)
    long = [i for i, one in enumerate(rows) if len(shingles([one["messages"]])[0]) > 25]
    originals = rng.sample(long, 200)
    for index in originals:
        turns = [dict(turn) for turn in rows[index]["messages"]]
        turns[-1]["content"] += rng.choice([" Right?", "!!", " You know", "  "])
        rows.append(rows[index] | {"messages": turns, "conversation_id": f"copy of {index}"})
    groups = near_duplicates(rows, range(len(rows)))
    found = groups.by_row()
    planted = range(len(rows) - 200, len(rows))
    caught = sum(
        i in found and found[i] == found.get(original)
        for original, i in zip(originals, planted, strict=True)
    )
    gone = copies(rows, groups, {index: index for index in range(len(rows))})
    print(f"\n{caught} of 200 planted near duplicates found among {len(rows)} conversations")
    assert caught >= 199
    assert len(gone & set(planted)) >= 199
    assert len(gone - set(planted)) < 20


def test_short_conversations_of_equal_words_are_grouped_and_are_nobodys_copies() -> None:
    texts = ["hi", "Hi!!", "", "...", "hi hi", "what is 7 plus two", "What is 7 plus two?",
             "what is 8 plus two", "plus two what is 7"]  # fmt: skip
    groups = near_duplicates([row(text) for text in texts], range(len(texts)))
    assert groups.members == {0: (0, 1), 5: (5, 6)}
    assert copies([row(text) for text in texts], groups, dict.fromkeys(range(9), 0)) == frozenset()


def test_the_system_turn_does_not_count() -> None:
    long = {"role": "system", "content": " ".join(f"s{number}" for number in range(200))}
    rows = traffic_rows(2)
    for number, one in enumerate(rows):
        text = " ".join(f"{'ab'[number]}{place}" for place in range(12))
        one["messages"] = [long, {"role": "user", "content": text}]
    assert near_duplicates(rows, range(2)).members == {}


def test_equal_conversations_with_different_characters_are_near_duplicates() -> None:
    text = " ".join(f"w{place}" for place in range(12))
    rows = [row(text), row("something else"), row(text)]
    rows[2]["messages"] = [{"role": "system", "content": "Another."}, rows[2]["messages"][1]]
    assert near_duplicates(rows, range(3)).members == {0: (0, 2)}
    assert near_duplicates(rows, [0, 1]).members == {}
    assert near_duplicates(rows, []).members == {}


def test_jaccard_by_hand() -> None:
    def numbers(*values: int) -> Shingles:
        return np.array(values, dtype=np.uint32)

    assert jaccard(numbers(1, 2, 3), numbers(2, 3, 4)) == 0.5
    assert jaccard(numbers(), numbers()) == 0.0


def test_shingles_are_the_distinct_runs_in_order() -> None:
    words = "a b c a b c a b c d"
    texts = [words, "too few words", " ".join(reversed(words.split())), words.upper() + "!"]
    sets = shingles([{"role": "user", "content": text}] for text in texts)
    assert [len(sets[number]) for number in range(4)] == [4, 1, 4, 4]
    assert jaccard(sets[0], sets[2]) == 0.0
    assert np.array_equal(sets[0], sets[3])
    assert all(np.array_equal(np.unique(sets[number]), sets[number]) for number in range(4))


def test_a_set_does_not_depend_on_its_neighbours() -> None:
    some = [one["messages"] for one in originals_and_variants(4, 20)]
    conversations = [some[number % 79] for number in range(CHUNK_ROWS + 80)]
    together = shingles(conversations)
    for number, turns in enumerate(conversations):
        assert np.array_equal(together[number], shingles([turns])[0])
    assert len(shingles([])) == 0
