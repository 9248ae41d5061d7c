"""The contract of a traffic row: what keeps it, what breaks it, and that nothing gets lost."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest_samples import traffic_row, write_jsonl

from flywheel_core.errors import InputDataError
from flywheel_core.ingest.contract import (
    BadRow,
    GoodRow,
    QuarantinedRow,
    check_row,
    read_contract,
)
from flywheel_core.records import TRAFFIC, write_table

SYSTEM = {"role": "system", "content": "You are Mina."}
USER = {"role": "user", "content": "Hello!"}
REPLY = {"role": "assistant", "content": "Hi!"}


def test_a_row_of_the_contract_comes_back_as_it_is() -> None:
    assert check_row(traffic_row()) == traffic_row()


def test_a_nullable_field_may_be_left_out() -> None:
    row = traffic_row()
    for field in TRAFFIC:
        if field.nullable:
            del row[field.name]
    checked = check_row(row)
    assert set(checked) == set(TRAFFIC.names)
    assert checked["thumb_up"] is None
    assert checked["user_id"] is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"extra": 1}, "extra.*unknown field; allowed: row_id"),
        ({"row_id": None}, "row_id: missing"),
        ({"row_id": ""}, "row_id: empty"),
        ({"row_id": 3}, "row_id: 3 is int"),
        ({"row_id": "\ud800"}, "row_id: not valid Unicode"),
        ({"day": "2026-02-30"}, "day: '2026-02-30'; allowed: a date"),
        ({"day": "20260105"}, "day: '20260105'; allowed"),
        ({"day": "../2026-01-05"}, "allowed: a date"),
        ({"surface": "public"}, "surface: 'public'; allowed: internal, user"),
        ({"turn_index": -1}, "turn_index: -1"),
        ({"turn_index": True}, "turn_index: True"),
        ({"turn_index": 1.0}, "turn_index: 1.0"),
        ({"turn_index": 2**31}, "turn_index"),
        ({"depth": "0"}, "depth: '0'"),
        ({"thumb_up": 1}, "thumb_up: 1; allowed: true, false or null"),
        ({"thumb_up": "yes"}, "thumb_up: 'yes'"),
        ({"response": " \n"}, "response: empty"),
        ({"messages": "Hello"}, "messages: 'Hello'; allowed: a list"),
        ({"messages": None}, "messages: missing"),
        ({"messages": []}, "messages: 0 turns"),
        ({"messages": [SYSTEM]}, "messages: 1 turns"),
        ({"messages": [USER, SYSTEM]}, r"messages\[0\]\.role: 'user'; allowed here: 'system'"),
        ({"messages": [SYSTEM, USER, REPLY]}, "3 turns"),
        ({"messages": [SYSTEM, USER, USER, USER]}, r"messages\[2\]\.role: 'user'"),
        ({"messages": [SYSTEM, USER | {"content": " "}]}, r"messages\[1\]\.content: empty"),
        ({"messages": [SYSTEM, USER | {"content": None}]}, r"messages\[1\]\.content: None"),
        ({"messages": [SYSTEM, {"role": "user"}]}, r"messages\[1\]"),
        ({"messages": [SYSTEM, USER | {"name": "x"}]}, r"messages\[1\]"),
        ({"messages": [SYSTEM, USER, REPLY, USER]}, "depth: 0, but messages hold 1 user turns"),
    ],
)
def test_a_broken_row_names_field_value_and_what_is_allowed(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadRow, match=complaint):
        check_row(traffic_row(**changes))


def test_a_cut_history_may_be_deeper_than_it_looks() -> None:
    assert check_row(traffic_row(depth=40))["depth"] == 40


def test_a_row_without_a_day_takes_the_one_given() -> None:
    row = traffic_row(day=None)
    assert check_row(row, "2026-03-01")["day"] == "2026-03-01"
    with pytest.raises(BadRow, match="day: missing"):
        check_row(row)


def test_every_line_is_either_taken_or_quarantined_with_its_number(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "chats.jsonl",
        [
            traffic_row(0),
            "{torn",
            "",
            "[1, 2]",
            "[" * 100_000,
            traffic_row(1, surface="public"),
            traffic_row(0),
            traffic_row(2),
        ],
    )
    found = list(read_contract(path, None))
    assert [one.where for one in found if isinstance(one, GoodRow)] == ["line 1", "line 8"]
    bad = [one for one in found if isinstance(one, QuarantinedRow)]
    assert [one.where for one in bad] == [f"line {number}" for number in (2, 4, 5, 6, 7)]
    assert "not JSON" in bad[0].reason
    assert "JSON list" in bad[1].reason
    assert "not JSON" in bad[2].reason
    assert bad[3].reason.startswith("surface")
    assert bad[3].day == "2026-01-05"
    assert "occurs twice" in bad[4].reason


def test_bytes_that_are_no_text_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    (bad,) = read_contract(path, None)
    assert isinstance(bad, QuarantinedRow)
    assert bad.day is None


def test_parquet_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    rows = [traffic_row(number) for number in range(2_500)]
    path = tmp_path / "no suffix"
    write_table(path, rows, TRAFFIC)
    found = list(read_contract(path, None))
    assert [one.row for one in found if isinstance(one, GoodRow)] == rows
    assert found[-1].where == "row 2500"


def test_parquet_without_a_column_says_which(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([traffic_row()], schema=TRAFFIC)
    pq.write_table(table.drop_columns(["response"]), tmp_path / "a")
    with pytest.raises(InputDataError, match="column 'response' is missing"):
        list(read_contract(tmp_path / "a", None))
    pq.write_table(table.drop_columns(["love", "day"]), tmp_path / "b")
    (good,) = read_contract(tmp_path / "b", "2026-03-01")
    assert isinstance(good, GoodRow)
    assert good.row["love"] is None


def test_a_torn_parquet_file_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "whole", [traffic_row()], TRAFFIC)
    (tmp_path / "torn").write_bytes((tmp_path / "whole").read_bytes()[:200])
    with pytest.raises(InputDataError, match="not a readable Parquet file"):
        list(read_contract(tmp_path / "torn", None))


def test_a_missing_file_or_a_folder_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputDataError, match="cannot be read"):
            list(read_contract(path, None))
