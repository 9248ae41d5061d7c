"""Topical-Chat: what its turns and ratings become, on small files and on the real one."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from ingest_samples import REAL_FILE, conversation, turn, write_topical

from flywheel_core.errors import InputDataError
from flywheel_core.ingest.contract import GoodRow, QuarantinedRow
from flywheel_core.ingest.topical_chat import SYSTEM_TURN, day_of, read_topical_chat

LAST_DAY = "2019-12-01"


def rows_of(path: Path, **options: Any) -> list[dict[str, Any]]:
    found = list(read_topical_chat(path, LAST_DAY, **options))
    assert all(isinstance(one, GoodRow) for one in found), found
    return [one.row for one in found if isinstance(one, GoodRow)]


def test_each_turn_after_the_first_is_a_response_to_its_partner(tmp_path: Path) -> None:
    rows = rows_of(write_topical(tmp_path / "t.json.gz", {"t_1": conversation(6)}))
    assert [row["response"] for row in rows] == [f"turn {index}" for index in range(1, 6)]
    assert [row["turn_index"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["depth"] for row in rows] == [0, 0, 1, 1, 2]
    assert rows[2]["messages"] == [
        {"role": "system", "content": SYSTEM_TURN},
        {"role": "user", "content": "turn 0"},
        {"role": "assistant", "content": "turn 1"},
        {"role": "user", "content": "turn 2"},
    ]
    assert rows[4]["messages"][1]["content"] == "turn 2"


@pytest.mark.parametrize(("limit", "turns"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (99, 5)])
def test_history_is_cut_to_the_limit_and_begins_with_the_user(
    tmp_path: Path, limit: int, turns: int
) -> None:
    path = write_topical(tmp_path / "t.json.gz", {"t_1": conversation(6)})
    row = rows_of(path, max_history_turns=limit)[-1]
    assert len(row["messages"]) == 1 + turns
    assert row["messages"][1]["role"] == "user"


@pytest.mark.parametrize("limit", [0, -1])
def test_a_history_of_no_turn_is_refused(tmp_path: Path, limit: int) -> None:
    path = write_topical(tmp_path / "t.json.gz", {"t_1": conversation(6)})
    with pytest.raises(InputDataError, match=f"max_history_turns: {limit}; allowed: 1 or more"):
        rows_of(path, max_history_turns=limit)


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
    (row,) = rows_of(write_topical(tmp_path / "t.json.gz", {"t_1": turns}))
    assert (row["thumb_up"], row["thumb_down"]) == (up, down)


def test_what_the_data_set_lacks_is_null(tmp_path: Path) -> None:
    (row,) = rows_of(write_topical(tmp_path / "t.json.gz", {"t_1": conversation(2)}))
    for name in ("user_id", "character_id", "locale", "jtbd", "model_digest"):
        assert row[name] is None
    for name in ("continue_10min", "love", "feedback"):
        assert row[name] is None
    assert row["language"] == "en"
    assert row["surface"] == "user"


def test_conversations_spread_over_seven_days_and_stay_whole(tmp_path: Path) -> None:
    path = write_topical(tmp_path / "t.json.gz", {f"t_{n}": conversation(4) for n in range(200)})
    rows = rows_of(path)
    assert sorted({row["day"] for row in rows}) == [
        *(f"2019-11-{day}" for day in range(25, 31)),
        "2019-12-01",
    ]
    assert all(row["day"] == day_of(row["conversation_id"], LAST_DAY) for row in rows)


def test_a_row_over_the_word_limit_is_quarantined_with_that_reason(tmp_path: Path) -> None:
    content = [turn("Hello.", 1), turn("word " * 50, 2), turn("Hi.", 1)]
    path = write_topical(tmp_path / "t.json.gz", {"t_1": {"content": content}})
    found = list(read_topical_chat(path, LAST_DAY, max_words=40))
    assert len(found) == 2
    assert all(isinstance(one, QuarantinedRow) for one in found)
    assert isinstance(found[0], QuarantinedRow)
    assert found[0].where == "conversation t_1, turn 1"
    assert "60 words; allowed: at most 40" in found[0].reason


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (turn(" ", 2), "empty"),
        (turn("Hi.", 1), "speaks twice"),
        (turn("Hi.", 2, "Superb"), "turn_rating: 'Superb'; allowed: Excellent"),
        ({"message": 3, "agent": "agent_2", "turn_rating": ""}, "message: 3"),
        ("Hi.", "a turn is 'Hi.'"),
    ],
)
def test_a_bad_turn_quarantines_the_rows_that_need_it(
    tmp_path: Path, bad: object, complaint: str
) -> None:
    content = [turn("Hello.", 1), bad, *(turn(f"turn {n}", n % 2 + 1) for n in range(2, 12))]
    path = write_topical(tmp_path / "t.json.gz", {"t_1": {"content": content}})
    found = list(read_topical_chat(path, LAST_DAY))
    assert len(found) == 11
    quarantined = [one for one in found if isinstance(one, QuarantinedRow)]
    assert 1 <= len(quarantined) <= 4
    assert complaint in quarantined[0].reason


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"{}", "not a whole gzip file"),
        (gzip.compress(b'{"t_1": {"content": []}}')[:-12], "not a whole gzip file"),
        (gzip.compress(b"{torn"), "not JSON"),
        (gzip.compress(b"\xff\xff"), "not JSON"),
        (gzip.compress(b"[1]"), "not conversations"),
        (gzip.compress(b"{}"), "not conversations"),
        (gzip.compress(b'{"t_1": []}'), "conversation 't_1' has no list of turns"),
        (gzip.compress(b'{"t_1": {"content": 3}}'), "conversation 't_1' has no list of turns"),
    ],
    ids=["plain", "cut", "torn", "bytes", "list", "none", "conversation", "content"],
)
def test_another_file_is_an_error_that_says_what_is_expected(
    tmp_path: Path, data: bytes, complaint: str
) -> None:
    path = tmp_path / "t.json.gz"
    path.write_bytes(data)
    with pytest.raises(InputDataError, match=complaint) as told:
        list(read_topical_chat(path, LAST_DAY))
    assert "--format contract" in str(told.value)


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"the data set is not here: {REAL_FILE}")
def test_the_real_file_is_taken_in_whole() -> None:
    rows = rows_of(REAL_FILE)
    assert len(rows) == 11_760 - 539
    assert len({row["day"] for row in rows}) == 7
    assert sum(row["thumb_up"] is None for row in rows) <= 112
    assert 0.4 < sum(row["thumb_up"] is True for row in rows) / len(rows) < 0.6
