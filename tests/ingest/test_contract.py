"""The traffic contract: what is accepted, what is set aside and why, and never anything lost."""

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_samples import traffic_row, write_jsonl

from flywheel_core.errors import InputDataError
from flywheel_core.ingest.contract import BadRow, RowFault, check_row, read_contract
from flywheel_core.records import TRAFFIC, write_table

SYSTEM = {"role": "system", "content": "You are Mina."}
USER = {"role": "user", "content": "Hello!"}
REPLY = {"role": "assistant", "content": "Hi!"}


def test_a_row_of_the_contract_comes_back_as_it_is() -> None:
    assert check_row(traffic_row()) == traffic_row()
    welcomed = traffic_row(messages=[SYSTEM, REPLY, USER])
    assert check_row(welcomed) == welcomed
    cut = traffic_row(depth=40)
    assert check_row(cut) == cut


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
    ("changes", "reason"),
    [
        ({"extra": 1}, "unknown fields"),
        ({"day": "5 January"}, "day"),
        ({"day": "20260105"}, "day"),
        ({"day": "2026-02-30"}, "day"),
        ({"day": "../2026-01-05"}, "day"),
        ({"day": None}, "day"),
        ({"surface": "beta"}, "surface: must be one of internal, user"),
        ({"surface": ["user"]}, "surface"),
        ({"surface": None}, "surface"),
        ({"row_id": ""}, "row_id"),
        ({"row_id": 7}, "row_id"),
        ({"row_id": None}, "row_id"),
        ({"row_id": "\ud800"}, "row_id: holds a lone surrogate"),
        ({"conversation_id": "x" * 201}, "conversation_id: longer"),
        ({"user_id": 7}, "user_id"),
        ({"locale": " "}, "locale"),
        ({"language": "jane@example.com"}, "language: not a BCP 47 tag"),
        ({"language": "English"}, "language: not a BCP 47 tag"),
        ({"language": "en-x-janedoe"}, "language: not a BCP 47 tag"),
        ({"language": "US"}, "language: not a BCP 47 tag"),
        ({"jtbd": "mail jane@example.com"}, "jtbd: not a label"),
        ({"jtbd": "x" * 65}, "jtbd: not a label"),
        ({"jtbd": "a\nb"}, "jtbd: not a label"),
        ({"jtbd": "call 555 234 5678"}, r"jtbd: reads as personal data \(phone\)"),
        ({"row_id": "jane@example.com-1"}, r"row_id: reads as personal data \(email\)"),
        ({"conversation_id": "wa-+34 612 345 678"}, r"conversation_id: .*\(phone\)"),
        ({"user_id": "jane@example.com"}, r"user_id: reads as personal data \(email\)"),
        ({"character_id": "4111 1111 1111 1111"}, r"character_id: .*\(card\)"),
        ({"user_id": "u1 "}, "user_id: begins or ends in whitespace"),
        ({"user_id": "\ufeffu1"}, "user_id: begins or ends .* does not print"),
        ({"row_id": "r\n1"}, "row_id: begins or ends"),
        ({"model_digest": "jane@example.com"}, r"model_digest: .*\(email\)"),
        ({"turn_index": -1}, "turn_index"),
        ({"turn_index": 1.0}, "turn_index"),
        ({"turn_index": True}, "turn_index"),
        ({"turn_index": 2**31}, "turn_index"),
        ({"depth": "0"}, "depth"),
        ({"depth": None}, "depth"),
        ({"messages": [SYSTEM, USER, REPLY, USER]}, "depth: smaller"),
        ({"response": " \n"}, "response"),
        ({"response": None}, "response"),
        ({"response": "x" * 1_000_000}, "response: longer"),
        ({"response": "\ud800"}, "response: holds a lone surrogate"),
        ({"thumb_up": 1}, "thumb_up"),
        ({"thumb_up": "yes"}, "thumb_up"),
        ({"love": 0.0}, "love"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [USER]}, "messages: the first turn must be the system turn"),
        ({"messages": [SYSTEM]}, "messages: the last turn"),
        ({"messages": [SYSTEM, USER, REPLY]}, "messages: the last turn"),
        ({"messages": [SYSTEM, USER, USER]}, "messages: user and assistant must alternate"),
        ({"messages": [SYSTEM, SYSTEM, USER]}, "messages: roles"),
        ({"messages": [SYSTEM, USER | {"name": "x"}]}, "messages: each turn"),
        ({"messages": [SYSTEM, {"role": "user"}]}, "messages: each turn"),
        ({"messages": [SYSTEM, USER | {"content": None}]}, "messages"),
        ({"messages": [SYSTEM, USER | {"content": "x" * 200_000}]}, "messages: longer"),
    ],
)
def test_each_fault_has_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowFault, match=reason):
        check_row(traffic_row(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"jtbd": "Role-playing \u2013 Romantic"},
        {"jtbd": "Image-gen"},
        {"jtbd": "info_seeking/travel & food (2)"},
        {"jtbd": "\u0938\u0932\u093e\u0939"},
        *({"language": tag} for tag in ("en", "hi-Latn", "es-419", "zh-Hant-TW", "und", "fil")),
        {"user_id": "t_d004c097-424d-45d4-8f91-833d85c2da31"},
        {"user_id": "0a4012888888881881" + "7" * 22},
        {"conversation_id": "conv-0001234567"},
    ],
)
def test_real_labels_and_pseudonyms_pass(changes: dict[str, Any]) -> None:
    row = traffic_row(**changes)
    assert check_row(row) == row


def reason_of(row: dict[str, Any]) -> str:
    try:
        check_row(row)
    except RowFault as fault:
        return str(fault)
    return ""


def test_a_reason_never_repeats_the_rows_text() -> None:
    secret = "jane@example.com"
    reasons = [reason_of(traffic_row(**{name: [secret]})) for name in traffic_row()]
    reasons.append(reason_of(traffic_row(**{secret: 1})))
    assert all(reasons)
    assert not any(secret in reason for reason in reasons)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(traffic_row())), value=JSON_VALUES)
def test_any_value_in_any_field_is_accepted_or_set_aside(name: str, value: Any) -> None:
    row = traffic_row(**{name: value})
    if not reason_of(row):
        pa.Table.from_pylist([check_row(row)], schema=TRAFFIC)


def test_every_line_is_either_taken_or_set_aside_with_its_number(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "chats.jsonl",
        [
            traffic_row(0),
            "{torn",
            "",
            "[1, 2]",
            "[" * 100_000,
            traffic_row(1, surface="public"),
            traffic_row(2),
        ],
    )
    with path.open("ab") as file:
        file.write(b'{"response": "\xff"}\n')
    found = list(read_contract(path))
    assert [row["row_id"] for row in found if isinstance(row, dict)] == ["chat0-1", "chat2-1"]
    assert [(row.where, row.reason, row.day) for row in found if isinstance(row, BadRow)] == [
        ("line 2", "not JSON", None),
        ("line 4", "not an object", None),
        ("line 5", "not JSON", None),
        ("line 6", "surface: must be one of internal, user", "2026-01-05"),
        ("line 8", "not UTF-8", None),
    ]


def test_gzipped_lines_are_read_and_a_cut_one_is_named(tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "chats.jsonl", [traffic_row(n) for n in range(500)])
    whole = tmp_path / "chats.jsonl.gz"
    whole.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(read_contract(whole)) == list(read_contract(plain))
    cut = tmp_path / "cut.gz"
    cut.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(InputDataError, match="cut short"):
        list(read_contract(cut))


def test_parquet_is_the_same_contract_whatever_the_suffix(tmp_path: Path) -> None:
    rows = [traffic_row(number) for number in range(2_500)]
    rows[1700]["response"] = ""
    path = tmp_path / "no suffix"
    write_table(path, rows, TRAFFIC)
    found = list(read_contract(path))
    assert [row.where for row in found if isinstance(row, BadRow)] == ["row 1701"]
    assert [row for row in found if isinstance(row, dict)] == rows[:1700] + rows[1701:]


def test_parquet_with_text_that_is_not_utf8_loses_only_that_row(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([traffic_row(n) for n in range(5)], schema=TRAFFIC)
    binary = pa.array([b"a", b"b", b"\xff\xfe", b"d", b"e"])
    broken = pa.StringArray.from_buffers(5, binary.buffers()[1], binary.buffers()[2])
    position = table.schema.get_field_index("response")
    table = table.set_column(position, table.schema.field(position), broken)
    path = tmp_path / "chats.parquet"
    pq.write_table(table, path)
    found = list(read_contract(path))
    assert len(found) == 5
    bad = [(row.where, row.reason) for row in found if isinstance(row, BadRow)]
    assert bad == [("row 3", "not UTF-8")]


def test_a_parquet_file_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chats.parquet"
    pq.write_table(pa.table({"prompt": ["x"], "response": ["y"]}), path)
    with pytest.raises(InputDataError, match=r"row_id.* are missing.*prompt are unknown"):
        list(read_contract(path))
    write_table(path, [traffic_row(n) for n in range(100)], TRAFFIC)
    for size in (path.stat().st_size - 100, 200, 4):
        (tmp_path / "torn").write_bytes(path.read_bytes()[:size])
        with pytest.raises(InputDataError, match="cut short or damaged"):
            list(read_contract(tmp_path / "torn"))


def test_the_day_argument_is_for_rows_that_carry_none(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", [traffic_row(1, day=None), traffic_row(2)])
    days = [row["day"] for row in read_contract(path, "2026-02-01") if isinstance(row, dict)]
    assert days == ["2026-02-01", "2026-01-05"]
    table = pa.Table.from_pylist([traffic_row()], schema=TRAFFIC)
    pq.write_table(table.drop_columns(["love", "day"]), tmp_path / "chats.parquet")
    (row,) = read_contract(tmp_path / "chats.parquet", "2026-03-01")
    assert isinstance(row, dict)
    assert (row["day"], row["love"]) == ("2026-03-01", None)
