"""The week's traffic from pinned days: in order, each row id once, in groups, in bounded memory."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest_samples import traffic_row

from flywheel_core.engines.mapping import MapJob, plan_shards
from flywheel_core.erasure.users import NOBODY
from flywheel_core.errors import InputDataError
from flywheel_core.jobs.base import StageOutput
from flywheel_core.jobs.traffic import Config, kept_rows, run
from flywheel_core.records import TRAFFIC, read_table, write_table
from flywheel_core.row_groups import write_row_groups
from flywheel_core.sections import TrafficSection

DAYS = ("2026-01-05", "2026-01-06", "2026-01-07")


def run_stage(folder: Path, days: list[list[dict[str, Any]]]) -> StageOutput:
    inputs = {}
    for day, rows in zip(DAYS, days, strict=False):
        inputs[f"day-{day}"] = folder / day
        write_table(folder / day / "traffic.parquet", rows, TRAFFIC)
    traffic = TrafficSection(source="ingested", num_days=len(days), sampling={"max_tokens": 8})
    (folder / "out").mkdir()
    context: Any = SimpleNamespace(
        plan=SimpleNamespace(parent=SimpleNamespace(digest="d" * 64)),
        output=folder / "out",
        work=folder / "work",
        progress=lambda done, total, what="": None,
    )
    return run(Config(traffic=traffic, days=DAYS[: len(days)]), inputs, context)


def test_a_row_id_of_an_earlier_day_is_left_out_and_counted(tmp_path: Path) -> None:
    first = [traffic_row(n, day=DAYS[0], surface="internal") for n in range(5)]
    second = [traffic_row(n, day=DAYS[1]) for n in range(3, 9)]
    third = [traffic_row(n, day=DAYS[2], model_digest="old") for n in (0, 8, 9, 9)]
    done = run_stage(tmp_path, [first, second, third])
    assert done.row_counts == {
        "rows": 10,
        "rows_erased": 0,
        "rows_repeated": 5,
        "days_pinned": 3,
        "days_made": 0,
        "internal": 5,
        "user": 5,
    }
    assert done.metrics == {"near_policy_share": 0.9}
    rows = read_table(tmp_path / "out" / "traffic.parquet", TRAFFIC).to_pylist()
    assert rows == [*first, *second[2:], third[2]]


def test_the_week_is_many_tasks_of_phase_one_and_not_one(tmp_path: Path) -> None:
    days = [[traffic_row(1700 * d + n, day=day) for n in range(1700)] for d, day in enumerate(DAYS)]
    run_stage(tmp_path, days)
    path = tmp_path / "out" / "traffic.parquet"
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert sizes == [1000] * 5 + [100]
    job = MapJob(
        name="phase I",
        function=lambda table: None,  # type: ignore[arg-type, return-value]
        config={},
        inputs=(path,),
        columns=TRAFFIC,
        outputs={},
        folder=tmp_path,
        shard_rows=2000,
        batch_rows=500,
    )
    assert len(list(plan_shards(job))) == 3


def test_a_week_is_never_held_whole(tmp_path: Path) -> None:
    files = []
    for day in DAYS:
        rows = [
            traffic_row(n, day=day, row_id=f"{day}-{n}", response="x" * 5_000) for n in range(4_000)
        ]
        files.append(tmp_path / f"{day}.parquet")
        write_row_groups(files[-1], [pa.Table.from_pylist(rows, schema=TRAFFIC)], TRAFFIC)
    del rows
    held_bytes, num_rows = [], 0
    before = pa.total_allocated_bytes()
    for table in kept_rows(files, NOBODY, Counter()):
        num_rows += table.num_rows
        held_bytes.append(pa.total_allocated_bytes() - before)
    assert num_rows == 12_000
    assert max(held_bytes) < 25_000_000, "the three days are 60 MB"


def test_a_day_that_is_no_table_of_traffic_is_named(tmp_path: Path) -> None:
    path = tmp_path / "traffic.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(InputDataError, match="not a readable Parquet file"):
        list(kept_rows([path], NOBODY, Counter()))
    pq.write_table(pa.table({"row_id": ["a"]}), path)
    with pytest.raises(InputDataError, match="not the expected table: day: expected string"):
        list(kept_rows([path], NOBODY, Counter()))
