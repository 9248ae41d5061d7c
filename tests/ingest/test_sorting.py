"""Sorting to days: bounded open files and memory, and nothing of it shows in what is written."""

import json
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ingest_samples import traffic_row

from flywheel_core.ingest import sorting
from flywheel_core.ingest.contract import BadRow
from flywheel_core.ingest.sorting import Sorter
from flywheel_core.row_groups import ROW_GROUP_ROWS


@pytest.fixture
def few_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def day_of(number: int) -> str:
    return f"{2020 + number // 336}-{number % 336 // 28 + 1:02d}-{number % 28 + 1:02d}"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist())


@pytest.mark.usefixtures("few_open_files")
def test_more_days_than_open_files_may_lie_in_one_source(tmp_path: Path) -> None:
    rows = [traffic_row(number, day=day_of(number % 400)) for number in range(800)]
    sorter = Sorter(tmp_path)
    sorter.take(rows)
    assert len(sorter.days) == 400
    for day, one in sorter.days.items():
        assert one.rows == 2
        assert rows_of(one.folder / "traffic.parquet") == [r for r in rows if r["day"] == day]


@pytest.mark.parametrize("chars_held_max", [1, 5_000, 10**9])
def test_how_often_rows_are_written_out_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chars_held_max: int
) -> None:
    monkeypatch.setattr(sorting, "CHARS_HELD_MAX", chars_held_max)
    rows = [traffic_row(number, day=day_of(number % 2)) for number in range(2_500)]
    sorter = Sorter(tmp_path)
    sorter.take(rows)
    for day, one in sorter.days.items():
        path = one.folder / "traffic.parquet"
        assert rows_of(path) == [row for row in rows if row["day"] == day]
        metadata = pq.read_metadata(path)
        sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        assert sizes == [ROW_GROUP_ROWS, 250]
        assert [path.name for path in one.folder.iterdir()] == ["traffic.parquet"]


def test_bad_rows_lie_with_their_day_in_their_order_and_not_in_memory(tmp_path: Path) -> None:
    text = "\ttabs, \n lines and \ud800" + "x" * 100_000

    def source() -> Iterator[dict[str, Any] | BadRow]:
        yield traffic_row(0, day="2026-01-05")
        for number in range(300):
            day = ("2026-01-06", None, "2030-01-01")[number % 3]
            yield BadRow(f"line {number}", "not JSON", f"{number}{text}", day)
        yield traffic_row(1, day="2026-01-06")

    sorter = Sorter(tmp_path)
    tracemalloc.start()
    sorter.take(source())
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 15_000_000, "30 MB of bad rows went through"
    for day, numbers in (
        ("2026-01-06", range(0, 300, 3)),
        ("2026-01-05", [number for number in range(300) if number % 3]),
    ):
        lines = (sorter.days[day].folder / "quarantine.jsonl").read_text().splitlines()
        assert [json.loads(line)["where"] for line in lines] == [f"line {n}" for n in numbers]
        assert json.loads(lines[0])["row"] == f"{numbers[0]}{text}"
