"""On Ray Data the sums are those of this process, to the last digit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ab_samples import clean_logs, messy_logs

from flywheel_core.experiments.aggregate import aggregate, open_log
from flywheel_core.experiments.analyze import window_of
from tests.experiments.ab_ray import CONFIG, canonical

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).resolve().parents[2]


def in_own_process(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_line_on_ray_says_the_same(tmp_path: Path) -> None:
    folders = clean_logs(300, lift=0.2).write(tmp_path / "logs")
    logs = ["--exposures", str(folders[0]), "--events", str(folders[1]), "--json"]
    command = ("flywheel_core.cli", "ab", "analyze", *logs)
    on_ray = in_own_process(*command, "--ray-folder", str(tmp_path / "work"))
    assert json.loads(on_ray) == json.loads(in_own_process(*command))


def test_ray_data_sums_the_same_integers(tmp_path: Path) -> None:
    folders = messy_logs().write(tmp_path / "logs")
    logs = open_log("exposures", folders[0]), open_log("events", folders[1], ["reports"])
    expected = canonical(aggregate(*logs, window_of(*logs, CONFIG)))
    work = str(tmp_path / "work")
    said = in_own_process("tests.experiments.ab_ray", *map(str, folders), work)
    found = json.loads(said.splitlines()[-1])
    assert found == json.loads(json.dumps(expected))
    assert found["histogram"]
