"""Bringing the pointers to where an experiment's ramp stands: production to a released candidate,
the candidate's experiment to closed.

Each step is safe to repeat, and looks for itself whether it may be taken: a run that completes
what an earlier one began knows nothing of the checks that were made then.
"""

from collections.abc import Callable
from typing import TypeAlias

from flywheel_core.errors import ConfigError, PromotionRefused
from flywheel_core.experiments.approval import Approval
from flywheel_core.experiments.journal import Journal
from flywheel_core.experiments.ramp import RampState
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.release.decision import ReleasesFrozen, StaleCandidate, UnprovenRecord
from flywheel_core.release.experiments import CANDIDATE, Experiment, read_open_experiment
from flywheel_core.release.promotion import PRODUCTION, is_frozen
from flywheel_core.store import Store

Proof: TypeAlias = Callable[[Approval], None]
"""Raises a `PromotionRefused` unless Airflow's own record bears the approval out."""


def follow(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    state: RampState,
    proof: Proof | None,
    *,
    by: str,
    reason: str,
) -> list[str]:
    """Move the pointers to where the ramp stands; returns what was moved, in words."""
    moved = []
    if state.phase == "released" and not was_released(store, flywheel, experiment):
        _release(store, flywheel, experiment, state.approval, proof, by=by, reason=reason)
        moved.append("production was moved to the candidate")
    if state.is_over and _close(store, flywheel, experiment, by, reason):
        moved.append("the experiment was closed")
    return moved


def require_releasable(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    approval: Approval | None,
    proof: Proof | None,
) -> PointerRecord:
    """Production's record, if the candidate may be released after it: no freeze, production is the
    model that was compared with, and a release manager's approval is borne out."""
    if is_frozen(store, flywheel):
        raise ReleasesFrozen(
            f"releases of {flywheel!r} are frozen; lift the freeze, then run again"
        )
    production = require_control(store, flywheel, experiment)
    require_borne_out(experiment, approval, proof)
    return production


def require_borne_out(
    experiment: Experiment, approval: Approval | None, proof: Proof | None
) -> None:
    """Raise unless a release manager approved the ramp of exactly this experiment."""
    if approval is None or proof is None:
        missing = "names no approval" if approval is None else "cannot be compared with Airflow's"
        raise UnprovenRecord(
            f"the ramp of experiment {experiment.experiment_id!r} {missing}: nothing is released; "
            "look at its history, and end it by `flywheel ab end`"
        )
    asked = approval.asked
    mine = (experiment.experiment_id, experiment.candidate_digest, experiment.control_digest)
    if (asked.experiment, asked.candidate, asked.control) != mine:
        raise UnprovenRecord(
            f"the ramp of experiment {experiment.experiment_id!r} rests on the approval of "
            f"another one ({asked.experiment!r}): nothing is released; end it by `flywheel ab end`"
        )
    proof(approval)


def require_control(store: Store, flywheel: str, experiment: Experiment) -> PointerRecord:
    """Production's record, if it is the model that the experiment compared with."""
    production = Pointer(store, flywheel, PRODUCTION).newest()
    digest = production.value.get("digest") if production else None
    if production is None or digest != experiment.control_digest:
        raise StaleCandidate(
            f"production is {str(digest)[:16]}, but the experiment compared with "
            f"{experiment.control_digest[:16]}: production has moved since; end this experiment "
            "and start a climb from production"
        )
    return production


def was_released(store: Store, flywheel: str, experiment: Experiment) -> bool:
    """Whether production was moved by this experiment, rolled back since or not: a release that a
    person took back is not made again."""
    history = Pointer(store, flywheel, PRODUCTION).history()
    described = [record.value.get("experiment") or {} for record in history]
    return any(one.get("experiment_id") == experiment.experiment_id for one in described)


def end_experiment(store: Store, flywheel: str, *, by: str, reason: str) -> RampState | None:
    """Roll the open experiment back by hand, at any time and with Airflow down: nobody meets the
    candidate any more, and its experiment is closed. None where nobody had been allocated."""
    experiment = read_open_experiment(store, flywheel)
    if experiment is None:
        raise ConfigError(f"flywheel {flywheel!r} has no open experiment; `flywheel status` shows")
    _require_unreleased(store, flywheel, experiment)
    journal = Journal(store, flywheel, experiment.experiment_id)
    state = journal.end(by=by, reason=reason) if journal.is_allocated else None
    _close(store, flywheel, experiment, by, reason)
    _require_unreleased(store, flywheel, experiment)  # a run under way may have been first
    return state


def _require_unreleased(store: Store, flywheel: str, experiment: Experiment) -> None:
    if was_released(store, flywheel, experiment):
        raise PromotionRefused(
            f"experiment {experiment.experiment_id!r} has moved production to its candidate: "
            "ending it would not take that back; use `flywheel rollback`"
        )


def _release(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    approval: Approval | None,
    proof: Proof | None,
    *,
    by: str,
    reason: str,
) -> None:
    production = require_releasable(store, flywheel, experiment, approval, proof)
    candidate = _candidate(store, flywheel, experiment)
    phase = Journal(store, flywheel, experiment.experiment_id).state().phase
    if phase != "released" or candidate.value["experiment"]["state"] == "closed":
        raise PromotionRefused(
            f"experiment {experiment.experiment_id!r} was ended while this run was under way "
            f"({phase}): production stays where it is"
        )
    value = {**candidate.value, "experiment": {**candidate.value["experiment"], "state": "closed"}}
    Pointer(store, flywheel, PRODUCTION).move(
        value, expected_number=production.number, by=by, reason=reason
    )


def _close(store: Store, flywheel: str, experiment: Experiment, by: str, reason: str) -> bool:
    candidate = _candidate(store, flywheel, experiment)
    described = candidate.value["experiment"]
    if described["state"] == "closed":
        return False
    value = {**candidate.value, "experiment": {**described, "state": "closed"}}
    Pointer(store, flywheel, CANDIDATE).move(
        value, expected_number=candidate.number, by=by, reason=reason
    )
    return True


def _candidate(store: Store, flywheel: str, experiment: Experiment) -> PointerRecord:
    newest = Pointer(store, flywheel, CANDIDATE).newest()
    described = (newest.value.get("experiment") or {}) if newest else {}
    if newest is None or described.get("experiment_id") != experiment.experiment_id:
        raise StaleCandidate(
            f"candidate names experiment {described.get('experiment_id')!r}, not "
            f"{experiment.experiment_id!r}: another one was opened since; run that one"
        )
    return newest
