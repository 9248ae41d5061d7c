"""A store with production at one model and an experiment with another one, and its logs."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flywheel_core.artifacts import digest_of
from flywheel_core.experiments.approval import Answered, Approval, Asked
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.config import GuardrailConfig, ReadoutConfig
from flywheel_core.experiments.exposure_log import append_day
from flywheel_core.experiments.journal import Journal
from flywheel_core.experiments.readout import Readout
from flywheel_core.pointers import Pointer
from flywheel_core.release.decision import UnprovenRecord
from flywheel_core.release.experiments import Experiment
from flywheel_core.release.ramping import DayRun, run_day
from flywheel_core.store import LocalStore, Store
from flywheel_core.world.experiment import ExperimentConfig
from flywheel_core.world.experiment_logs import simulate_logs

FIRST = datetime.date(2026, 1, 5)
FLYWHEEL = "tiny"
EXPERIMENT = Experiment(
    experiment_id="x7",
    state="open",
    generation=2,
    candidate_digest="c" * 64,
    control_digest="p" * 64,
    exposures=f"{FLYWHEEL}/experiments/x7/exposures",
)
EVENTS = EXPERIMENT.exposures.replace("exposures", "events")
CONFIG = ReadoutConfig(guardrails=(GuardrailConfig(column="reports"),))
SMALL = ExperimentConfig(num_users_per_arm=3000, num_days=7)


def open_store(folder: Path) -> Store:
    """Production at the control model, and an open experiment with its candidate."""
    store = LocalStore(str(folder / "store"))
    Pointer(store, FLYWHEEL, "production").append(
        {"digest": EXPERIMENT.control_digest}, by="setup", reason="first"
    )
    described = EXPERIMENT.model_dump(mode="json")
    Pointer(store, FLYWHEEL, "candidate").append(
        {"digest": EXPERIMENT.candidate_digest, "experiment": described}, by="rm", reason="open"
    )
    return store


def log_days(
    store: Store, step: float, allocation: Allocation, first: datetime.date, num_days: int
) -> None:
    """Log the days of an experiment whose candidate is worth `step` more."""
    noise = np.random.default_rng(3).normal(1.0, 1.6, 3_000)
    config = SMALL.model_copy(update={"num_days": num_days})
    for logged in simulate_logs(noise, noise + step, allocation, config, first, seed=5):
        append_day(store, EXPERIMENT.exposures, logged.day, logged.exposures, "exposed_at")
        append_day(store, EVENTS, logged.day, logged.events, "at")


def day(number: int) -> datetime.date:
    return FIRST + datetime.timedelta(days=number)


def production(store: Store) -> str:
    newest = Pointer(store, FLYWHEEL, "production").newest()
    assert newest is not None
    return str(newest.value["digest"])


def start(store: Store, step: float) -> None:
    log_days(store, step, Allocation(experiment_id="x7"), FIRST, 7)


def say(answer: Any, by: str = "rm") -> Callable[[Readout], Answered]:
    """An answer as `settle` hands it in after Airflow's record was checked."""

    def answered(readout: Readout) -> Answered:
        asked = Asked(
            experiment=EXPERIMENT.experiment_id,
            candidate=EXPERIMENT.candidate_digest,
            control=EXPERIMENT.control_digest,
            day=readout.newest.day,
            readout=digest_of(readout.model_dump(mode="json")),
            policy="0" * 64,
        )
        approval = Approval(asked=asked, dag_id="d", run_id="r", task_id="t", try_number=1, by=by)
        return Answered(answer=answer, by=by, approval=approval)

    return answered


def borne_out(approval: Approval) -> None:
    """Airflow has the approval."""


def not_borne_out(approval: Approval) -> None:
    """Airflow has no such approval."""
    raise UnprovenRecord(f"Airflow has no approval by {approval.by}")


def run(store: Store, number: int, answer: Any = None, *, by: str = "rm", **more: Any) -> DayRun:
    """Run a day of the experiment, answered so where something is asked."""
    given = {"config": CONFIG, "proof": borne_out, **more}
    if answer is not None:
        given["answered"] = say(answer, by)
    return run_day(store, FLYWHEEL, EXPERIMENT, day(number), **given)


def journal(store: Store) -> Journal:
    return Journal(store, FLYWHEEL, EXPERIMENT.experiment_id)
