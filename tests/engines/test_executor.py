"""Mapping in this process: shards, marks, resumption, and failures that say where."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_core.engines.config import ExecutorConfig
from flywheel_core.engines.executor import InProcessExecutor, make_executor
from flywheel_core.engines.mapping import MapJob, Mapped, MapResult, plan_shards
from flywheel_core.errors import ConfigError, InputDataError, MapFailed
from tests.engines.executor_samples import (
    OUTPUTS,
    ROWS,
    all_bytes,
    failing_at_250,
    make_job,
    sort_by_parity,
    write_rows,
)


def quiet(done: int, total: int, what: str = "") -> None:
    pass


def run(job: MapJob) -> MapResult:
    return InProcessExecutor().run(job, quiet)


def numbers(files: tuple[Path, ...]) -> list[int]:
    return [n for file in files for n in pq.read_table(file)["number"].to_pylist()]


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, ...]:
    """420 rows in two files, and an empty file between them."""
    return (
        write_rows(tmp_path / "in" / "a.parquet", 0, 330),
        write_rows(tmp_path / "in" / "b.parquet", 330, 0),
        write_rows(tmp_path / "in" / "c.parquet", 330, 90),
    )


def test_every_row_comes_out_once_and_in_order(tmp_path: Path, inputs: tuple[Path, ...]) -> None:
    result = run(make_job(tmp_path / "out", inputs))
    assert numbers(result.files["kept"]) == list(range(0, 420, 2))
    assert numbers(result.files["odd"]) == list(range(1, 420, 2))
    assert pq.read_table(result.files["kept"][0])["text"][0].as_py() == "ROW 0"
    assert (result.rows_in, result.rows) == (420, {"kept": 210, "odd": 210})
    assert result.counts == {"odd": 210, "rows": 420}
    assert (result.num_shards, result.num_resumed) == (5, 0)


def test_shards_are_runs_of_whole_row_groups(tmp_path: Path, inputs: tuple[Path, ...]) -> None:
    shards = list(plan_shards(make_job(tmp_path, inputs)))
    assert [(s.path.name, s.first_group, s.stop_group, s.num_rows) for s in shards] == [
        ("a.parquet", 0, 2, 100),
        ("a.parquet", 2, 4, 100),
        ("a.parquet", 4, 6, 100),
        ("a.parquet", 6, 7, 30),
        ("c.parquet", 0, 2, 90),
    ]


@settings(max_examples=25, deadline=None)
@given(batch_rows=st.integers(1, 500))
def test_the_bytes_do_not_depend_on_where_batches_end(
    tmp_path_factory: pytest.TempPathFactory, batch_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("batches")
    source = write_rows(folder / "in.parquet", 0, 400)
    run(make_job(folder / "one", (source,)))
    run(make_job(folder / "other", (source,), batch_rows=batch_rows))
    assert all_bytes(folder / "one") == all_bytes(folder / "other")


def test_outputs_longer_than_a_row_group_are_cut_at_fixed_places(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.parquet", 0, 23_000, row_group_rows=23_000)
    job = make_job(tmp_path / "out", (source,), shard_rows=23_000, batch_rows=700)
    (kept,) = run(job).files["kept"]
    metadata = pq.read_metadata(kept)
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert groups == [5_000, 5_000, 1_500]
    assert numbers((kept,)) == list(range(0, 23_000, 2))


def test_a_retry_makes_only_what_is_missing(tmp_path: Path, inputs: tuple[Path, ...]) -> None:
    with pytest.raises(MapFailed):
        run(make_job(tmp_path / "out", inputs, function=failing_at_250))
    assert len(list((tmp_path / "out" / "done").iterdir())) == 2
    before = (tmp_path / "out" / "kept" / "part-000000.parquet").stat().st_mtime_ns
    told: list[tuple[int, int]] = []
    job = make_job(tmp_path / "out", inputs)
    result = InProcessExecutor().run(job, lambda done, total, what="": told.append((done, total)))
    assert result.num_resumed == 2
    assert told[0] == (200, 420)
    assert told[-1] == (420, 420)
    assert (tmp_path / "out" / "kept" / "part-000000.parquet").stat().st_mtime_ns == before
    run(make_job(tmp_path / "fresh", inputs))
    assert all_bytes(tmp_path / "out") == all_bytes(tmp_path / "fresh")


@pytest.mark.parametrize("damage", ["mark cut short", "output cut short", "output gone"])
def test_what_a_crash_left_torn_is_made_again(
    tmp_path: Path, inputs: tuple[Path, ...], damage: str
) -> None:
    out = tmp_path / "out"
    run(make_job(out, inputs))
    good = all_bytes(out)
    mark, part = out / "done" / "000003.json", out / "odd" / "part-000003.parquet"
    if damage == "mark cut short":
        mark.write_bytes(mark.read_bytes()[:20])
    elif damage == "output cut short":
        part.write_bytes(part.read_bytes()[:20])
    else:
        part.unlink()
    (out / "odd" / ".tmp-1234-part-000003.parquet").write_bytes(b"half")
    assert run(make_job(out, inputs)).num_resumed == 4
    assert all_bytes(out) == good


def test_a_folder_of_another_job_is_refused(tmp_path: Path, inputs: tuple[Path, ...]) -> None:
    run(make_job(tmp_path / "out", inputs))
    changed: tuple[dict[str, Any], ...] = (
        {"config": {"version": 2}},
        {"shard_rows": 50},
        {"outputs": {**OUTPUTS, "more": ROWS}},
    )
    others = [make_job(tmp_path / "out", inputs, **changes) for changes in changed]
    for job in [*others, make_job(tmp_path / "out", inputs[:1])]:
        with pytest.raises(ConfigError, match="other inputs or under another configuration"):
            run(job)


def test_a_failure_names_the_place_and_quotes_no_row(
    tmp_path: Path, inputs: tuple[Path, ...]
) -> None:
    with pytest.raises(MapFailed) as caught:
        run(make_job(tmp_path / "out", inputs, function=failing_at_250))
    said = str(caught.value)
    assert "shard 2 (row groups 4 to 5 of a.parquet): KeyError at executor_samples.py" in said
    assert "secret" not in said


def test_inputs_that_cannot_be_read_are_named(tmp_path: Path, inputs: tuple[Path, ...]) -> None:
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(inputs[0].read_bytes()[:-40])
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"number": ["1"]}), other)
    for path, said in (
        (torn, "torn.parquet is not a readable Parquet file"),
        (tmp_path / "nowhere.parquet", "nowhere.parquet is not there"),
        (other, "number: expected int64, found string; text: expected string, found none"),
    ):
        with pytest.raises(InputDataError, match=said):
            run(make_job(tmp_path / "out", (*inputs, path)))
    assert not (tmp_path / "out" / "done").exists()


def test_a_page_that_is_damaged_stops_its_own_shard_only(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.parquet", 0, 400)
    data = bytearray(source.read_bytes())
    place = pq.read_metadata(source).row_group(5).column(1).data_page_offset
    data[place : place + 60] = bytes(60)
    source.write_bytes(bytes(data))
    with pytest.raises(InputDataError, match=r"row groups 4 to 5 of .*in\.parquet cannot be read"):
        run(make_job(tmp_path / "out", (source,)))
    assert len(list((tmp_path / "out" / "done").iterdir())) == 2


def wrong_output(batch: pa.Table) -> Mapped:
    return Mapped({"elsewhere": batch})


def wrong_columns(batch: pa.Table) -> Mapped:
    return Mapped({"kept": batch.select(["text"])})


@pytest.mark.parametrize(
    ("function", "said"),
    [(wrong_output, "rows for elsewhere"), (wrong_columns, "output kept: the function gave")],
)
def test_outputs_that_the_job_does_not_name_are_refused(
    tmp_path: Path, inputs: tuple[Path, ...], function: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(make_job(tmp_path / "out", inputs, function=function))
    assert not list((tmp_path / "out").glob("*/.tmp-*"))


def test_the_configuration_picks_the_executor() -> None:
    assert isinstance(make_executor(ExecutorConfig()), InProcessExecutor)
    assert type(make_executor(ExecutorConfig(kind="ray_data"))).__name__ == "RayDataExecutor"
    assert make_job(Path("x"), ()).function is sort_by_parity
