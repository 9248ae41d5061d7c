"""Input that is rare, and is still read as documented or refused in a sentence."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ab_samples import Logs, clean_logs, event, exposure, reference
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.engines.executor import InProcessExecutor
from flywheel_core.errors import InputDataError
from flywheel_core.experiments.aggregate import Log, aggregate, open_log
from flywheel_core.experiments.analyze import analyze, window_of
from flywheel_core.experiments.config import GuardrailConfig, ReadoutConfig
from flywheel_core.experiments.spread import spread
from flywheel_core.experiments.users import Sums
from tests.experiments.ab_ray import canonical

CONFIG = ReadoutConfig(guardrails=(GuardrailConfig(column="reports"),))


def quiet(done: int, total: int, what: str = "") -> None:
    pass


def opened(logs: Logs, folder: Path) -> tuple[Log, Log]:
    folders = logs.write(folder)
    return open_log("exposures", folders[0]), open_log("events", folders[1], ["reports"])


def in_every_way(logs: tuple[Log, Log], folder: Path) -> list[Sums]:
    """The sums of one partition, of many on this machine and of many by an executor."""
    window = window_of(*logs, CONFIG)
    folder.mkdir()
    by_executor = spread(
        *logs,
        window,
        executor=InProcessExecutor(),
        folder=folder,
        num_partitions=7,
        progress=quiet,
    )
    return [aggregate(*logs, window), aggregate(*logs, window, partition_rows=50), by_executor]


@pytest.mark.parametrize("sends", [1001, 10**12, 10**13, 2**53, 2**63 - 1])
def test_a_program_of_any_size_is_left_out_and_counted(sends: int, tmp_path: Path) -> None:
    logs = clean_logs(400)
    logs.exposures.append(exposure("bot", "test", 0.1, locale="en_US"))
    logs.events += [event("bot", 2.5, 10**9 + index, sends) for index in range(3)]
    expected = reference(logs, 6)
    assert expected.bots == {"control": 0, "test": 1}
    ways = in_every_way(opened(logs, tmp_path / "logs"), tmp_path / "work")
    assert canonical(ways[0]) == canonical(ways[1]) == canonical(ways[2])
    assert ways[0].counts["users_bots", 6, 1] == 1
    assert ways[0].counts["users_bots", 1, 1] == 0
    for place, arm in enumerate(("control", "test")):
        (entire,) = [
            matrix
            for cell, matrix in ways[0].moments.items()
            if (cell.day, cell.arm, cell.dimension) == (6, place, "")
        ]
        assert entire[0, 0] == len(expected.vectors[arm])
        assert entire[0, 3] == sum(vector[3] for vector in expected.vectors[arm].values())


@pytest.mark.parametrize(("reports", "is_read"), [(2**52, True), (2**53, False)])
def test_what_a_guardrail_may_hold_does_not_depend_on_the_partition(
    reports: int, is_read: bool, tmp_path: Path
) -> None:
    """A program's reports: they enter no product, so only the limit of a user's day counts."""
    logs = clean_logs(400)
    logs.exposures.append(exposure("bot", "test", 0.1))
    logs.events.append(event("bot", 2.5, 10**9, 5000, reports))
    both = opened(logs, tmp_path / "logs")
    if is_read:
        ways = in_every_way(both, tmp_path / "work")
        assert canonical(ways[0]) == canonical(ways[1]) == canonical(ways[2])
        return
    for partition_rows in (1 << 18, 50):
        with pytest.raises(InputDataError, match=r"a user's day holds 9,007,199,254,740,992 of"):
            aggregate(*both, window_of(*both, CONFIG), partition_rows=partition_rows)


@pytest.mark.parametrize(("log", "name"), [(0, "arm"), (1, "sends"), (1, "user_id")])
def test_a_column_that_is_there_twice_is_named(log: int, name: str, tmp_path: Path) -> None:
    folders = clean_logs(40).write(tmp_path)
    path = sorted(folders[log].iterdir())[0]
    table = pq.read_table(path)
    columns = [*table.columns, table.column(name)]
    pq.write_table(pa.table(columns, names=[*table.column_names, name]), path)
    with pytest.raises(InputDataError, match=rf"column '{name}' is there twice"):
        analyze(*folders, CONFIG)


def analyze_by_command(folders: tuple[Path, Path], *more: str) -> tuple[int, str]:
    where = ["--exposures", str(folders[0]), "--events", str(folders[1])]
    done = CliRunner().invoke(app, ["ab", "analyze", *where, *more], env={"COLUMNS": "300"})
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("page", ["a_file/page.html", "/proc/nowhere/page.html", "folder"])
def test_a_page_that_cannot_be_written_is_said_before_the_read(page: str, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("")
    (tmp_path / "folder").mkdir()
    missing = tmp_path / "missing", tmp_path / "missing"  # so that a read would say something else
    code, said = analyze_by_command(missing, "--page", str(tmp_path / page))
    assert code == 1
    assert f"--page {tmp_path / page}: cannot be written (" in said


def test_a_page_may_be_written_again(tmp_path: Path) -> None:
    folders = clean_logs(100).write(tmp_path)
    page = tmp_path / "page.html"
    assert analyze_by_command(folders, "--page", str(page))[0] == 0
    first = page.read_bytes()
    assert analyze_by_command(folders, "--page", str(page))[0] == 0
    assert page.read_bytes() == first


def test_a_scratch_folder_that_is_missing_is_refused_on_small_logs(tmp_path: Path) -> None:
    folders = clean_logs(100).write(tmp_path)
    code, said = analyze_by_command(folders, "--scratch", str(tmp_path / "nowhere"))
    assert code == 2
    assert "'--scratch'" in said
    assert "does not exist" in said
    assert analyze_by_command(folders, "--scratch", str(tmp_path))[0] == 0
