"""The simulated product's day of an open experiment: what its users did, logged for the readout.

Each run of `flywheel_ab_test` lives the next day. What the two models' responses are worth comes
from the candidate's evaluation, which knows the hidden utility in this world; single responses
spread around the mean as the world's design found.
"""

import datetime

import numpy as np

from flywheel_core.artifacts import ArtifactRef, read_manifest
from flywheel_core.erasure.users import read_erasures
from flywheel_core.errors import ArtifactMissing
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.config import ExperimentRule
from flywheel_core.experiments.exposure_log import append_day, days_logged
from flywheel_core.experiments.journal import Journal
from flywheel_core.experiments.ramp import num_days_of
from flywheel_core.pointers import Pointer
from flywheel_core.release.experiment_days import next_world_day
from flywheel_core.release.experiment_reading import events_of
from flywheel_core.release.experiments import CANDIDATE, Experiment
from flywheel_core.store import Store
from flywheel_core.world.experiment import ExperimentConfig
from flywheel_core.world.experiment_logs import simulate_logs
from flywheel_core.world.utility import FloatArray

UTILITY_SD = 1.7
"""Of the hidden utility across one model's responses (shared/WORLD.md's prototype)."""
NUM_RESPONSES = 4_000


def log_world_day(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    rule: ExperimentRule,
    day: datetime.date,
    *,
    seed: int = 0,
    size: ExperimentConfig | None = None,
) -> None:
    """Live `day`, and the days before it that nobody lived, as far as they lie in the step that is
    being read. The same day gives the same rows, so living it again changes nothing."""
    journal = Journal(store, flywheel, experiment.experiment_id)
    first, num_days = next_world_day(journal, experiment.generation), rule.num_days
    allocation = Allocation(
        experiment_id=experiment.experiment_id,
        test_share=rule.test_share,
        control_share=rule.control_share,
        eligibility=rule.eligibility,
    )
    if journal.is_allocated:
        state = journal.state()
        first, allocation = state.first_day or first, state.allocation
        num_days = num_days_of(state)
        if state.is_over:
            return
    there = days_logged(store, experiment.exposures)
    wanted = {first + datetime.timedelta(days=number) for number in range(num_days)}
    missing = {one for one in wanted if one <= day} - set(there)
    if not missing:
        return
    control, test = _utilities(store, flywheel, seed)
    config = (size or ExperimentConfig()).model_copy(update={"num_days": num_days})
    erasures = read_erasures(store, flywheel)
    for logged in simulate_logs(control, test, allocation, config, first, seed):
        if logged.day in missing:
            for folder, rows, at in (
                (events_of(experiment), logged.events, "at"),
                (experiment.exposures, logged.exposures, "exposed_at"),
            ):
                append_day(store, folder, logged.day, rows, at, erasures=erasures)


def _utilities(store: Store, flywheel: str, seed: int) -> tuple[FloatArray, FloatArray]:
    """What each model's responses are worth, from the candidate's evaluation."""
    candidate = Pointer(store, flywheel, CANDIDATE).newest()
    described = candidate.value.get("ref") if candidate else None
    truth = None
    if described is not None:
        manifest = read_manifest(store, ArtifactRef.model_validate(described))
        truth = manifest.metrics.get("true_effect")
    if truth is None:
        raise ArtifactMissing(
            f"candidate of {flywheel!r}: its evaluation holds no true effect, so nobody knows how "
            "its users would behave; only the simulated world's evaluation does. Log real "
            "exposures and events instead"
        )
    noise = np.random.default_rng([seed, 0xAB3]).normal(0, UTILITY_SD, NUM_RESPONSES)
    return (
        float(truth["production"]["estimate"]) + noise,
        float(truth["candidate"]["estimate"]) + noise,
    )
