"""Bad input of every kind, end to end: a clear error, or a quarantined row while the rest goes on.

Whatever happens, rows read are rows accepted plus rows set aside, and an error writes nothing.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest_samples import traffic_row, write_jsonl

from flywheel_core.artifacts import ArtifactRef, read_file
from flywheel_core.errors import InputDataError
from flywheel_core.ingest.contract import BadRow, read_contract
from flywheel_core.ingest.ingest import IngestReport, ingest
from flywheel_core.ingest.locales import is_known_locale
from flywheel_core.records import TRAFFIC
from flywheel_core.store import MemoryStore

MEGABYTE = "x" * 1_000_000


def take_in(path: Path) -> tuple[IngestReport, list[dict[str, Any]]]:
    """The report, and every quarantined line; nothing may be lost between them."""
    store = MemoryStore()
    report = ingest(path, "contract", store, "test")
    lines = [
        json.loads(line)
        for day in report.days
        if day.quarantined
        for line in read_file(
            store,
            ArtifactRef(flywheel="test", generation=0, stage="traffic_day", key=day.key),
            "quarantine.jsonl",
        ).splitlines()
    ]
    assert report.accepted + sum(report.quarantined.values()) == report.read
    assert len(lines) == sum(report.quarantined.values())
    return report, lines


def parquet(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path)
    return path


def table(count: int = 3, **columns: pa.Array) -> pa.Table:
    made = pa.Table.from_pylist([traffic_row(number) for number in range(count)], schema=TRAFFIC)
    for name, values in columns.items():
        made = made.set_column(made.schema.get_field_index(name), name, values)
    return made


BAD_ROWS = [
    ({"response": MEGABYTE}, "response: longer than 100000 characters"),
    (
        {"messages": [*traffic_row()["messages"][:1], {"role": "user", "content": MEGABYTE}]},
        "messages: longer than 100000 characters",
    ),
    ({"response": "\ud83d"}, "response: holds a lone surrogate, so it is not text"),
    ({"user_id": "\udc00"}, "user_id: holds a lone surrogate, so it is not text"),
    ({"day": "-0001-01-05"}, "day: must be a date YYYY-MM-DD"),
    ({"day": -86400}, "day: must be a date YYYY-MM-DD"),
    ({"turn_index": -1}, "turn_index: must be a whole number from 0"),
    ({"depth": -3}, "depth: must be a whole number from 0"),
    ({"row_id": "chat0-1"}, "row_id: seen before"),
    ({"locale": "qq_US"}, "locale: unknown; write it as language_REGION, for example en_US"),
    ({"locale": "English"}, "locale: unknown; write it as language_REGION, for example en_US"),
    ({"depth": "0"}, "depth: must be a whole number from 0"),
    ({"messages": "Hello"}, "messages: must be a list of turns"),
    ({"extra": 1}, "unknown fields: 1"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_ROWS)
def test_a_bad_row_is_set_aside_whole_and_its_neighbours_go_on(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    bad = traffic_row(1) | changes
    report, lines = take_in(
        write_jsonl(tmp_path / "chats.jsonl", [traffic_row(0), bad, traffic_row(2)])
    )
    assert (report.read, report.accepted, report.quarantined) == (3, 2, {reason: 1})
    assert lines[0]["row"] == bad


def test_all_of_them_together(tmp_path: Path) -> None:
    rows: list[Any] = []
    for number, (changes, _) in enumerate(BAD_ROWS):
        rows += [traffic_row(2 * number), traffic_row(2 * number + 1) | changes]
    path = write_jsonl(tmp_path / "chats.jsonl", [*rows, "{torn", "null", '"text"'])
    with path.open("ab") as file:
        file.write(b'{"response": "\xff\xfe"}\n\xef\xbb\xbf{}\n')
    report, _ = take_in(path)
    assert report.read == 2 * len(BAD_ROWS) + 5
    assert report.accepted == len(BAD_ROWS)


def test_times_out_of_range_lose_only_their_rows(tmp_path: Path) -> None:
    for values, kind in (([-(2**62), 0], pa.timestamp("us")), ([-(2**30), 0], pa.date32())):
        path = parquet(tmp_path / "chats.parquet", table(2, day=pa.array(values, kind)))
        found = [row for row in read_contract(path) if isinstance(row, BadRow)]
        assert [(row.where, row.reason) for row in found] == [
            ("row 1", "a time or number out of range"),
            ("row 2", "day: must be a date YYYY-MM-DD"),
        ]


def test_columns_of_another_type_set_rows_aside_and_wider_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "chats.parquet"
    depths = pa.array([0, 2**40, -1], pa.int64())
    report, _ = take_in(parquet(path, table(depth=depths)))
    assert report.accepted == 1
    assert report.quarantined == {"depth: must be a whole number from 0": 2}
    report, _ = take_in(parquet(path, table(love=pa.nulls(3))))
    assert report.accepted == 3
    whole = table()
    wide = whole.column("response").cast(pa.large_string())
    coded = whole.column("surface").dictionary_encode()
    assert take_in(parquet(path, table(response=wide, surface=coded)))[0].accepted == 3
    store = MemoryStore()
    for columns in ({"depth": pa.array([0.0, 1.0, 2.0])}, {"messages": pa.array(["[]"] * 3)}):
        with pytest.raises(InputDataError, match="none of 3 rows follows the format"):
            ingest(parquet(path, table(**columns)), "contract", store, "test")
    assert store.list("") == []


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    whole = table()
    twice = pa.Table.from_arrays(
        [*whole.columns, whole.column("response")], names=[*whole.column_names, "response"]
    )
    with pytest.raises(InputDataError, match="columns response are there more than once"):
        list(read_contract(parquet(tmp_path / "chats.parquet", twice)))


def test_damage_in_the_middle_of_a_parquet_file_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chats.parquet"
    pq.write_table(table(3000), path, row_group_size=500)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(byte ^ 0xFF for byte in data[middle : middle + 200])
    path.write_bytes(bytes(data))
    store = MemoryStore()
    with pytest.raises(InputDataError, match=r"chats\.parquet: not a readable Parquet file"):
        ingest(path, "contract", store, "test")
    assert store.list("") == []


def test_an_empty_day_is_an_error_and_a_day_of_bad_rows_only_is_kept_with_another(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    with pytest.raises(InputDataError, match="holds no row; there is no day of traffic"):
        ingest(parquet(tmp_path / "none.parquet", table(0)), "contract", store, "test")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputDataError, match="holds no row"):
        ingest(tmp_path / "empty", "contract", store, "test")
    assert store.list("") == []
    rows = [traffic_row(0), traffic_row(1, day="2026-01-09", surface="public")]
    report, lines = take_in(write_jsonl(tmp_path / "chats.jsonl", rows))
    assert [day.day for day in report.days] == ["2026-01-05"]
    assert lines[0]["row"]["day"] == "2026-01-09"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("en_US", True), ("en-GB", True), ("en", True), ("US", True), ("hi-Latn-IN", True),
        ("es-419", True), ("fil_PH", True), ("zh_Hans_CN", True),
        ("qq", False), ("qq_US", False), ("en_QQ", False), ("ZZ", False), ("en_us", False),
        ("en_US.UTF-8", False), ("", False), ("en_", False), ("e" * 9999, False),
    ],
)  # fmt: skip
def test_known_locales(text: str, known: bool) -> None:
    assert is_known_locale(text) is known
