"""A process may hold few files open, and the spill stays within that."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ab_samples import messy_logs

from flywheel_core.experiments.aggregate import aggregate, open_log
from flywheel_core.experiments.analyze import window_of
from tests.experiments.ab_ray import CONFIG, canonical

ROOT = Path(__file__).resolve().parents[2]
SPILL = """
import json, resource, sys
from pathlib import Path
from flywheel_core.experiments.aggregate import aggregate, open_log
from flywheel_core.experiments.analyze import window_of
from tests.experiments.ab_ray import CONFIG, canonical

exposures, events, num_held = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
logs = open_log("exposures", exposures), open_log("events", events, ["reports"])
window = window_of(*logs, CONFIG)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
held = [open("/dev/null") for _ in range(num_held)]
try:
    print(json.dumps(canonical(aggregate(*logs, window, partition_rows=4))))
except Exception as error:
    print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def spill_with(num_held: int, folders: tuple[Path, Path]) -> object:
    """What a process says that may hold 256 files open, and holds `num_held` already."""
    done = subprocess.run(
        [sys.executable, "-c", SPILL, *map(str, folders), str(num_held)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return messy_logs().write(tmp_path_factory.mktemp("messy"))


def test_few_open_files_give_the_same_sums(folders: tuple[Path, Path]) -> None:
    logs = open_log("exposures", folders[0]), open_log("events", folders[1], ["reports"])
    assert sum(log.num_rows for log in logs) > 4 * 256  # more partitions than files allowed
    expected = canonical(aggregate(*logs, window_of(*logs, CONFIG)))
    assert spill_with(0, folders) == json.loads(json.dumps(expected))


@pytest.mark.parametrize("num_held", [150, 180])
def test_too_many_open_files_are_said(folders: tuple[Path, Path], num_held: int) -> None:
    said = str(spill_with(num_held, folders))
    assert said.startswith("ConfigError: ")
    assert "too many open files (this process may hold 256, the spill needs 128" in said
    assert "ulimit -n" in said
