"""Topical-Chat as traffic: what the file has becomes a row, what it has not stays null."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from ingest_samples import REAL_FILE, conversation, turn, write_topical

from flywheel_core.errors import InputDataError
from flywheel_core.ingest.contract import BadRow
from flywheel_core.ingest.ingest import ingest
from flywheel_core.ingest.topical_chat import (
    SYSTEM_TURN,
    UNDATED_DAY,
    HistoryLimits,
    read_topical_chat,
)
from flywheel_core.store import MemoryStore

needs_real_file = pytest.mark.skipif(
    not REAL_FILE.exists(), reason=f"the data set is not here: {REAL_FILE}"
)
SYSTEM = ("system", SYSTEM_TURN)


def read(path: Path, **limits: int) -> list[dict[str, Any]]:
    found = list(read_topical_chat(path, limits=HistoryLimits(**limits)))
    assert not [row for row in found if isinstance(row, BadRow)]
    return [row for row in found if isinstance(row, dict)]


def spoken(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in row["messages"]]


def test_each_turn_after_the_first_is_a_response_to_its_partner(tmp_path: Path) -> None:
    rows = read(write_topical(tmp_path / "t.json.gz", {"t_1": conversation(6)}))
    assert [row["row_id"] for row in rows] == [f"t_1-{index}" for index in range(1, 6)]
    assert [row["response"] for row in rows] == [f"turn {index}" for index in range(1, 6)]
    assert [row["turn_index"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["depth"] for row in rows] == [0, 0, 1, 1, 2]
    assert spoken(rows[0]) == [SYSTEM, ("user", "turn 0")]
    assert spoken(rows[1]) == [SYSTEM, ("assistant", "turn 0"), ("user", "turn 1")]
    assert spoken(rows[2]) == [
        SYSTEM,
        ("user", "turn 0"),
        ("assistant", "turn 1"),
        ("user", "turn 2"),
    ]
    assert len(rows[4]["messages"]) == 6, "a history is whole unless asked otherwise"


def test_a_conversation_of_one_turn_is_counted_and_set_aside(tmp_path: Path) -> None:
    path = write_topical(tmp_path / "t.json.gz", {"t_1": conversation(1), "t_2": conversation(3)})
    report = ingest(path, "topical-chat", MemoryStore(), "topical")
    assert (report.read, report.accepted) == (3, 2)
    assert report.quarantined == {"content: one turn, which nobody answered": 1}


@pytest.mark.parametrize("limit", [1, 2, 3, 99])
def test_a_history_is_cut_to_the_last_turns_when_asked(tmp_path: Path, limit: int) -> None:
    path = write_topical(tmp_path / "t.json.gz", {"t_1": conversation(6)})
    whole, cut = read(path), read(path, max_history_turns=limit)
    for one, other in zip(whole, cut, strict=True):
        assert other["messages"][0] == one["messages"][0]
        assert other["messages"][1:] == one["messages"][1:][-limit:]
        assert (other["depth"], other["turn_index"]) == (one["depth"], one["turn_index"])


def test_a_history_is_cut_to_a_number_of_words_when_asked(tmp_path: Path) -> None:
    content = [turn(f"{'word ' * 9}{n}", n % 2 + 1) for n in range(6)]
    path = write_topical(tmp_path / "t.json.gz", {"t_1": {"content": content}})
    rows = read(path, max_words=6 + 10 + 25)
    assert [len(row["messages"]) for row in rows] == [2, 3, 3, 3, 3]
    found = list(read_topical_chat(path, limits=HistoryLimits(max_words=25)))
    assert {row.reason for row in found if isinstance(row, BadRow)} == {
        "length: last turn and response are longer than 25 words"
    }
    assert len(found) == 5


@pytest.mark.parametrize(
    ("rating", "up", "down"),
    [
        ("Excellent", True, False),
        ("Good", False, False),
        ("Passable", False, False),
        ("Not Good", False, True),
        ("Poor", False, True),
        ("", None, None),
    ],
)
def test_a_rating_becomes_the_nearest_signal(
    tmp_path: Path, rating: str, up: bool | None, down: bool | None
) -> None:
    turns = {"content": [turn("Hello.", 1), turn("Hi.", 2, rating)]}
    (row,) = read(write_topical(tmp_path / "t.json.gz", {"t_1": turns}))
    assert (row["thumb_up"], row["thumb_down"]) == (up, down)


def test_what_the_data_set_lacks_is_null(tmp_path: Path) -> None:
    (row,) = read(write_topical(tmp_path / "t.json.gz", {"t_1": conversation(2)}))
    for name in ("user_id", "character_id", "locale", "language", "jtbd", "model_digest"):
        assert row[name] is None
    for name in ("continue_10min", "love", "feedback"):
        assert row[name] is None
    assert (row["surface"], row["day"]) == ("user", UNDATED_DAY)


@pytest.mark.parametrize(
    ("bad", "reason", "count"),
    [
        (turn(" ", 2), "must be a text that is not empty", 11),
        (turn("Hi.", 1), "the two agents must alternate", 1),
        (turn("Hi.", 2, "Superb"), "turn_rating: must be one of Excellent", 1),
        (turn("Hi.", 2) | {"turn_rating": ["Good"]}, "turn_rating: must be one of", 1),
        ({"message": 3, "agent": "agent_2", "turn_rating": ""}, "must have a message", 1),
        (turn("Hi.", 3), "agent: must be one of", 1),
        ("Hi.", "must have a message", 1),
    ],
)
def test_a_bad_turn_sets_aside_the_rows_that_need_it(
    tmp_path: Path, bad: Any, reason: str, count: int
) -> None:
    content = [turn("Hello.", 1), bad, *(turn(f"turn {n}", n % 2 + 1) for n in range(2, 12))]
    chats = {"t_1": {"content": content}, "t_2": conversation(3), "t_3": 3}
    found = list(read_topical_chat(write_topical(tmp_path / "t.json.gz", chats)))
    wrong = [row for row in found if isinstance(row, BadRow) and "t_1" in row.where]
    assert len(wrong) == count
    assert all(reason in row.reason for row in wrong)
    assert [row["row_id"] for row in found if isinstance(row, dict)][-2:] == ["t_2-1", "t_2-2"]
    assert isinstance(found[-1], BadRow)


@pytest.mark.parametrize(
    "data",
    [
        b"{torn",
        b"{}",
        gzip.compress(b'{"t_1": {"content": []}}')[:-12],
        gzip.compress(b"{torn"),
        gzip.compress(b"\xff\xff"),
        gzip.compress(b"[1]"),
        gzip.compress(b'{"t_1": 3}'),
    ],
    ids=["torn", "empty", "cut", "zipped torn", "bytes", "list", "other"],
)
def test_another_file_is_an_error_that_says_what_is_expected(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.json.gz"
    path.write_bytes(data)
    with pytest.raises(InputDataError, match="not a Topical-Chat file"):
        list(read_topical_chat(path))


def test_only_the_newer_name_of_the_format_is_recommended(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[]")
    with pytest.raises(InputDataError, match=r"use --format flywheel$"):
        list(read_topical_chat(path))


@needs_real_file
def test_the_real_file_is_taken_in_whole() -> None:
    store = MemoryStore()
    report = ingest(REAL_FILE, "topical-chat", store, "topical")
    assert (report.read, report.accepted, report.quarantined) == (11_221, 11_221, {})
    assert not ingest(REAL_FILE, "topical-chat", store, "topical").days[0].changed


@needs_real_file
def test_the_real_file_cut_to_a_short_context_gives_the_recipe_its_rows() -> None:
    report = ingest(REAL_FILE, "topical-chat", MemoryStore(), "topical", max_words=64)
    assert (report.read, report.accepted) == (11_221, 9_916)
    assert report.quarantined == {
        "length: last turn and response are longer than 64 words": 11_221 - 9_916
    }
