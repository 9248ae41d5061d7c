"""`flywheel status` tells where the open experiment stands, and what it waits for."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flywheel_core.artifacts import ArtifactRef
from flywheel_core.cli import app
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.config import ExperimentRule, ReadoutConfig
from flywheel_core.experiments.journal import Journal
from flywheel_core.pointers import Pointer
from flywheel_core.release.ramping import run_day
from flywheel_core.release.releasing import end_experiment
from flywheel_core.store import Store
from tests.experiments.ab_store import EXPERIMENT, FLYWHEEL, day, log_days, open_store, say

ALLOCATION = Allocation(experiment_id=EXPERIMENT.experiment_id)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with production and an open experiment, and the command line on it."""
    monkeypatch.setenv("FLYWHEEL_STORE", str(tmp_path / "store"))
    store = open_store(tmp_path)
    ref = ArtifactRef(flywheel=FLYWHEEL, stage="train", generation=1, key="k" * 16)
    value = {"digest": EXPERIMENT.control_digest, "ref": ref.model_dump(mode="json")}
    Pointer(store, FLYWHEEL, "production").append(value, by="setup", reason="first")
    return store


def shown() -> str:
    done = CliRunner().invoke(app, ["status"])
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def told() -> dict[str, Any] | None:
    done = CliRunner().invoke(app, ["status", "--json"])
    assert done.exit_code == 0, done.output
    told: dict[str, Any] | None = json.loads(done.stdout)["flywheels"][FLYWHEEL]["experiment"]
    return told


def run(store: Store, number: int, **more: Any) -> None:
    run_day(store, FLYWHEEL, EXPERIMENT, day(number), ReadoutConfig(), **more)


def test_an_experiment_is_shown_from_its_opening_to_its_ramp(store: Store) -> None:
    assert "experiment x7: opened, test 0 % of users, newest decided day none" in shown()
    assert "waits for its first run" in shown()
    journal = Journal(store, FLYWHEEL, EXPERIMENT.experiment_id)
    journal.allocate(ALLOCATION, ExperimentRule())
    assert "x7: window, test 10 % of users, newest decided day none; waits for its first expos" in (
        shown()
    )
    journal.begin(day(0))
    assert f"waits for the decision of {day(0)} (day 1 of 7)" in shown()
    log_days(store, 0.6, ALLOCATION, day(0), 7)
    for number in range(6):
        run(store, number)
    assert told() == {
        "experiment_id": "x7",
        "phase": "window",
        "test_share": 0.1,
        "decided": str(day(5)),
        "waits_for": f"the decision of {day(6)} (day 7 of 7), which asks a release manager",
    }
    assert f"newest decided day {day(5)}; waits for the decision of {day(6)} (day 7" in shown()
    run(store, 6, answered=say("approve"))
    assert f"x7: ramping, test 50 % of users, newest decided day {day(6)}" in shown()
    assert f"waits for the decision of {day(6) + datetime.timedelta(days=1)} (day 1 of 1)" in (
        shown()
    )


def test_no_experiment_is_none(store: Store) -> None:
    end_experiment(store, FLYWHEEL, by="rm", reason="enough")
    assert told() is None
    assert "experiment" not in shown()
