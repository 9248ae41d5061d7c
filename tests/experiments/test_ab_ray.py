"""On Ray Data the sums are those of this process, to the last digit, and so is the readout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ab_samples import messy_logs

from flywheel_core.experiments.aggregate import aggregate, open_log
from flywheel_core.experiments.analyze import analyze, window_of
from flywheel_core.experiments.config import ReadoutConfig
from tests.experiments.ab_ray import CONFIG, canonical

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).resolve().parents[2]


def test_ray_data_sums_the_same_integers(tmp_path: Path) -> None:
    folders = messy_logs().write(tmp_path / "logs")
    logs = open_log("exposures", folders[0]), open_log("events", folders[1], ["reports"])
    expected = canonical(aggregate(*logs, window_of(*logs, CONFIG)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.experiments.ab_ray", *map(str, folders), str(tmp_path / "w")],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["sums"] == json.loads(json.dumps(expected))
    assert found["sums"]["histogram"]
    here = analyze(*folders, ReadoutConfig()).model_dump(mode="json")
    assert found["told"] == json.loads(json.dumps(here))
