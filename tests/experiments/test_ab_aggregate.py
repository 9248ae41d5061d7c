"""The aggregation against a loop over rows: the same integers, however it is cut up."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ab_samples import FIRST, clean_logs, messy_logs, reference

from flywheel_core.engines.executor import InProcessExecutor
from flywheel_core.experiments.aggregate import aggregate, first_exposure_us, open_log
from flywheel_core.experiments.analyze import analyze, window_of
from flywheel_core.experiments.config import GuardrailConfig, ReadoutConfig
from flywheel_core.experiments.logs import partition_of
from flywheel_core.experiments.spread import spread
from flywheel_core.experiments.users import Cell, Sums, Window

CONFIG = ReadoutConfig(guardrails=(GuardrailConfig(column="reports"),), with_bootstrap=True)


def quiet(done: int, total: int, what: str = "") -> None:
    pass


def same(first: Sums, second: Sums) -> bool:
    return (
        {cell: matrix.tolist() for cell, matrix in first.moments.items()}
        == {cell: matrix.tolist() for cell, matrix in second.moments.items()}
        and first.counts == second.counts
        and first.histogram == second.histogram
    )


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return messy_logs().write(tmp_path_factory.mktemp("messy"))


@pytest.fixture(scope="module")
def opened(messy: tuple[Path, Path]) -> tuple:
    logs = open_log("exposures", messy[0]), open_log("events", messy[1], ["reports"])
    config = CONFIG.model_copy(update={"first_day": FIRST.date()})
    return (*logs, window_of(*logs, config))


@pytest.fixture(scope="module")
def whole(opened: tuple) -> Sums:
    return aggregate(*opened)


@pytest.mark.parametrize("day", range(7))
def test_every_day_equals_the_loop_over_rows_up_to_that_day(whole: Sums, day: int) -> None:
    expected = reference(messy_logs(), day)
    for place, arm in enumerate(("control", "test")):
        vectors = np.array(list(expected.vectors[arm].values()), dtype=object)
        assert (whole.moments[Cell(day, place)] == vectors.T @ vectors).all()
        assert whole.counts["users_bots", day, place] == expected.bots[arm]
    assert whole.counts["users_in_both_arms", day, -1] == expected.both
    assert expected.both > 0


def test_what_is_left_out_is_counted_by_its_reason(whole: Sums) -> None:
    found = {what: n for (what, _, arm), n in whole.counts.items() if arm == -1}
    assert found["events_unexposed"] == 1
    assert found["events_after_window"] == 1
    assert found["events_before_exposure"] == 40
    assert found["events_skewed"] == 40
    assert found["events_duplicate"] == len(range(0, 200, 9))
    assert found["exposures_before_window"] == 1
    assert whole.counts["users_bots", 6, 0] == 1
    assert whole.counts["users_bots", 2, 0] == 0


@pytest.mark.parametrize("partition_rows", [50, 333, 2000])
def test_spilled_partitions_give_the_same_integers(
    opened: tuple, whole: Sums, partition_rows: int, tmp_path: Path
) -> None:
    found = aggregate(*opened, partition_rows=partition_rows, scratch=tmp_path)
    assert same(found, whole)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [False, True])
def test_ids_that_each_user_counts_for_itself(text: bool, tmp_path: Path) -> None:
    """Ids 1, 2, 3 ... in every user, duplicates within a user: the same sums in 1 or 40 parts."""
    logs = clean_logs(400)
    counted: Counter[str] = Counter()
    for row in logs.events:
        counted[row["user_id"]] += 1
        row["event_id"] = counted[row["user_id"]]
    expected = reference(logs, 6)
    logs.events += [dict(row) for row in logs.events[::50]]
    folders = logs.write(tmp_path / "logs")
    if text:
        for path in folders[1].iterdir():
            table = pq.read_table(path)
            names = table.column("event_id").cast(pa.string())
            pq.write_table(table.set_column(2, "event_id", names), path)
    opened = open_log("exposures", folders[0]), open_log("events", folders[1], ["reports"])
    window = window_of(*opened, CONFIG)
    sums = aggregate(*opened, window)
    for place, arm in enumerate(("control", "test")):
        vectors = np.array(list(expected.vectors[arm].values()), dtype=object)
        assert (sums.moments[Cell(6, place)] == vectors.T @ vectors).all()
    assert sums.counts["events_duplicate", -1, -1] == len(range(0, sum(counted.values()), 50))
    for partition_rows in (1000, 300, 40):
        found = aggregate(*opened, window, partition_rows=partition_rows, scratch=tmp_path)
        assert same(found, sums)


def test_an_executor_gives_the_same_integers(opened: tuple, whole: Sums, tmp_path: Path) -> None:
    found = spread(
        *opened,
        executor=InProcessExecutor(),
        folder=tmp_path,
        num_partitions=5,
        progress=quiet,
    )
    assert same(found, whole)


def test_the_order_of_rows_does_not_matter(whole: Sums, tmp_path: Path, opened: tuple) -> None:
    folders = messy_logs().write(tmp_path, seed=9)
    logs = open_log("exposures", folders[0]), open_log("events", folders[1], ["reports"])
    assert same(aggregate(*logs, opened[2]), whole)


def test_breakdown_cells_add_up_to_the_whole(whole: Sums) -> None:
    for place in (0, 1):
        for dimension in ("locale", "user_kind"):
            parts = [
                matrix
                for cell, matrix in whole.moments.items()
                if (cell.day, cell.arm, cell.dimension) == (6, place, dimension)
            ]
            assert len(parts) >= 2
            assert (sum(parts) == whole.moments[Cell(6, place)]).all()
    # Attributes are those of the first exposure: the later es_ES is nobody's locale.
    assert not any(cell.value == "es_ES" for cell in whole.moments)


def test_the_readout_equals_pandas(tmp_path: Path) -> None:
    folders = clean_logs(500, seed=3, lift=0.2).write(tmp_path)
    found = analyze(*folders, ReadoutConfig())
    exposures = pd.concat(pd.read_parquet(path) for path in folders[0].iterdir())
    events = pd.concat(pd.read_parquet(path) for path in folders[1].iterdir())
    events["day"] = events["at"].dt.date
    by_day = events.groupby(["user_id", "day"])["sends"].sum().reset_index()
    users = exposures.set_index("user_id").join(
        by_day.groupby("user_id").agg(days=("day", "nunique"), sends=("sends", "sum"))
    )
    users = users.fillna({"days": 0, "sends": 0})
    for arm in ("test", "control"):
        mine = users[users["arm"] == arm]
        engaged = mine[mine["sends"] > 0]["sends"]
        for name, values in (
            ("breadth", mine["days"] / 7),
            ("depth", engaged),
            ("depth_per_assigned_user", mine["sends"]),
        ):
            read = getattr(found.newest.metrics[name], arm)
            assert read.mean == pytest.approx(values.mean(), rel=1e-12)
            assert read.standard_error == pytest.approx(values.sem(), rel=1e-12)


def test_an_earlier_day_read_later_says_what_it_said_then(messy: tuple[Path, Path]) -> None:
    config = CONFIG.model_copy(update={"first_day": FIRST.date(), "with_bootstrap": False})
    last = analyze(*messy, config)
    for day in (2, 5):
        date = last.days[day].day
        then = analyze(*messy, config.model_copy(update={"through": date}))
        assert then.newest == last.days[day]
        assert then.newest.metrics["breadth"].peeking


def test_text_ids_and_other_integer_types_are_read(tmp_path: Path) -> None:
    logs = messy_logs()
    folders = logs.write(tmp_path / "plain")
    expected = analyze(*folders, CONFIG).model_dump(exclude={"notes"})
    for name, folder in zip(("exposures", "events"), folders, strict=True):
        for path in folder.iterdir():
            table = pq.read_table(path)
            columns = {
                one: table.column(one).cast(_other_type(one, table.schema.field(one).type))
                for one in table.column_names
            }
            target = tmp_path / "other" / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), target)
    found = analyze(tmp_path / "other/exposures", tmp_path / "other/events", CONFIG)
    assert found.model_dump(exclude={"notes"}) == expected


def _other_type(name: str, kind: pa.DataType) -> pa.DataType:
    if name == "event_id":
        return pa.string()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us")  # no zone: UTC
    return {pa.string(): pa.large_string(), pa.int64(): pa.float64()}.get(kind, kind)


def test_dates_without_times_are_read(tmp_path: Path) -> None:
    folders = clean_logs(200).write(tmp_path)
    expected = analyze(*folders, ReadoutConfig())
    for folder, name in zip(folders, ("exposed_at", "at"), strict=True):
        for path in folder.iterdir():
            table = pq.read_table(path)
            place = table.column_names.index(name)
            dates = table.column(name).cast(pa.date32())
            pq.write_table(table.set_column(place, name, dates), path)
    assert analyze(*folders, ReadoutConfig()) == expected


def test_partitions_are_even_and_depend_on_the_id_alone() -> None:
    ids = pa.chunked_array([[f"user-{n}" for n in range(5000)], ["", "é" * 60, "é" * 60]])
    numbers = partition_of(ids, 16)
    assert numbers[-1] == numbers[-2]
    counts = np.bincount(numbers[:5000], minlength=16)
    assert counts.min() > 0.75 * 5000 / 16
    shuffled = np.random.default_rng(0).permutation(len(numbers))
    again = partition_of(ids.take(pa.array(shuffled)), 16)
    assert (again == numbers[shuffled]).all()
    sliced = partition_of(ids.slice(100, 50), 16)
    assert (sliced == numbers[100:150]).all()


def test_sums_beyond_64_bits_stay_exact() -> None:
    total = Sums()
    big = Sums(moments={Cell(0, 0): np.array([[2**62]])})
    for _ in range(5):
        total.add(big)
    assert total.moments[Cell(0, 0)][0, 0] == 5 * 2**62


def test_the_first_day_comes_from_the_footers_or_the_rows(
    messy: tuple[Path, Path], tmp_path: Path
) -> None:
    from_footer = first_exposure_us(open_log("exposures", messy[0]))
    for path in messy[0].iterdir():
        pq.write_table(pq.read_table(path), tmp_path / path.name, write_statistics=False)
    assert first_exposure_us(open_log("exposures", tmp_path)) == from_footer


def test_a_window_ends_where_it_says(opened: tuple) -> None:
    window: Window = replace(opened[2], num_days=2, days=(1,))
    expected = reference(messy_logs(), 1)
    found = aggregate(opened[0], opened[1], window)
    for place, arm in enumerate(("control", "test")):
        assert found.moments[Cell(1, place)][0, 0] == len(expected.vectors[arm])
