"""An experiment's day, from its logs to the pointers: the only way by which `production` moves
under `release: ab`.

Free of Airflow: the answer of the release manager is handed in by whoever checked it. Each step is
safe to repeat: the day's decision is put if absent, production is moved only from the model that
the experiment compared with, and a closed experiment stays closed.
"""

import datetime
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from flywheel_core.artifacts import Record
from flywheel_core.days import WORLD_EPOCH, keep_days, kept_days, last_day
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.experiments.analyze import analyze
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.exposure_log import days_logged, fetch_days
from flywheel_core.experiments.journal import BY, Journal
from flywheel_core.experiments.ramp import (
    Action,
    Answer,
    RampState,
    day_to_read,
    next_action,
    step_config,
)
from flywheel_core.experiments.readout import Readout
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.release.decision import StaleCandidate
from flywheel_core.release.experiments import CANDIDATE, Experiment, read_open_experiment
from flywheel_core.release.promotion import PRODUCTION, is_frozen
from flywheel_core.store import Store

DAYS_PER_GENERATION = 7

AnswerOf: TypeAlias = Callable[[Readout], tuple[Answer, str]]


class DayRun(Record):
    """What a run of one day found and did. `moved` says whether anything changed by this run."""

    experiment_id: str
    day: datetime.date
    action: Action
    moved: bool
    state: RampState | None = None
    readout: Readout | None = None
    said: str


def run_day(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    asked: datetime.date,
    config: ReadoutConfig,
    *,
    answered: AnswerOf | None = None,
) -> DayRun:
    """Read the experiment to the end of `asked`, decide, and take the step. A day at or before the
    newest decided one is only told again.

    Where a release manager is to be asked, `answered` says what the answer to this readout was
    and who gave it; without it the day stays open.
    """
    journal = Journal(store, flywheel, experiment.experiment_id)
    state = _opened(store, journal, experiment, config)
    if state is None:
        said = "no exposures yet"
        return DayRun(
            experiment_id=experiment.experiment_id,
            day=asked,
            action=Action(kind="wait", reason=said),
            moved=False,
            said=said,
        )
    if state.is_over or (state.decided is not None and asked <= state.decided):
        return _told_again(store, flywheel, journal, experiment, state, asked)
    day = day_to_read(state, config, asked)
    readout = _read(store, experiment, step_config(state, config), day)
    journal.keep_readout(readout)
    by = BY
    action = next_action(state, readout.newest)
    if action.kind == "ask" and answered is not None:
        answer, by = answered(readout)
        action = next_action(state, readout.newest, answer)
    action = _allowed(store, flywheel, experiment, action)
    decided = journal.decide(readout, action, by=by)
    _follow(store, flywheel, experiment, decided.decision.action, by)
    return DayRun(
        experiment_id=experiment.experiment_id,
        day=day,
        action=decided.decision.action,
        moved=decided.moved,
        state=decided.state,
        readout=readout,
        said=f"{decided.decision.action.kind}: {decided.decision.action.reason}",
    )


def _opened(
    store: Store, journal: Journal, experiment: Experiment, config: ReadoutConfig
) -> RampState | None:
    """The experiment's state, from its first logged day on; None before that."""
    days = days_logged(store, experiment.exposures)
    if not days:
        return None
    allocation = Allocation(
        experiment_id=experiment.experiment_id,
        test_share=config.test_share,
        control_share=config.control_share,
    )
    return journal.start(config.first_day or days[0], allocation)


def _read(
    store: Store, experiment: Experiment, config: ReadoutConfig, day: datetime.date
) -> Readout:
    assert config.first_day is not None  # `step_config` sets it
    if day < config.first_day:
        raise ConfigError(
            f"day {day}: this step starts on {config.first_day}; run that day or a later one"
        )
    with tempfile.TemporaryDirectory(prefix="flywheel-ab-") as name:
        logs = [
            fetch_days(store, folder, day, Path(name) / part)
            for part, folder in (
                ("exposures", experiment.exposures),
                ("events", events_of(experiment)),
            )
        ]
        return analyze(
            logs[0],
            logs[1],
            config.model_copy(update={"through": day}),
            experiment_id=experiment.experiment_id,
        )


def events_of(experiment: Experiment) -> str:
    """Where the experiment's events lie: beside its exposures."""
    parent, _, name = experiment.exposures.rpartition("/")
    if name != "exposures":
        raise InputDataError(
            f"{experiment.exposures}: an experiment's exposures lie in a folder of that name, with "
            "its events beside it"
        )
    return f"{parent}/events"


def _allowed(store: Store, flywheel: str, experiment: Experiment, action: Action) -> Action:
    """The action, or to wait where the freeze switch forbids it. A rollback is never held up."""
    if action.kind in ("ramp", "release"):
        if is_frozen(store, flywheel):
            return Action(
                kind="wait", reason="promotions are frozen; lift the freeze, then run again"
            )
        _require_control(store, flywheel, experiment)
    return action


def _require_control(store: Store, flywheel: str, experiment: Experiment) -> PointerRecord:
    """Production's record, if it is the model that the experiment compared with."""
    production = Pointer(store, flywheel, PRODUCTION).newest()
    digest = production.value.get("digest") if production else None
    if production is None or digest not in (experiment.control_digest, experiment.candidate_digest):
        raise StaleCandidate(
            f"production is {str(digest)[:16]}, but the experiment compared with "
            f"{experiment.control_digest[:16]}: production has moved since; end this experiment "
            "and start a climb from production"
        )
    return production


def _told_again(
    store: Store,
    flywheel: str,
    journal: Journal,
    experiment: Experiment,
    state: RampState,
    asked: datetime.date,
) -> DayRun:
    decision = journal.decision(asked)
    if state.is_over:  # a run that died after the last step left this to do
        kind = "release" if state.phase == "released" else "rollback"
        _follow(store, flywheel, experiment, Action(kind=kind, reason=state.phase), BY)
    action = next_over(decision.action if decision else None, state)
    return DayRun(
        experiment_id=experiment.experiment_id,
        day=asked,
        action=action,
        moved=False,
        state=state,
        said=f"{asked} was decided before; nothing moves: {action.reason}",
    )


def next_over(action: Action | None, state: RampState) -> Action:
    """What is told of a day that is not decided again."""
    if action is not None:
        return Action(kind="nothing", reason=f"it was {action.kind} ({action.reason})")
    return Action(kind="nothing", reason=f"the experiment stands at: {state.phase}")


def end_experiment(store: Store, flywheel: str, *, by: str, reason: str) -> RampState | None:
    """Roll the open experiment back by hand, at any time and with Airflow down: nobody meets the
    candidate any more, and its experiment is closed. None where it had not started."""
    experiment = read_open_experiment(store, flywheel)
    if experiment is None:
        raise ConfigError(f"flywheel {flywheel!r} has no open experiment; `flywheel status` shows")
    journal = Journal(store, flywheel, experiment.experiment_id)
    state = journal.end(by=by, reason=reason) if journal.is_started else None
    _close(store, flywheel, experiment, by, reason)
    return state


def _follow(store: Store, flywheel: str, experiment: Experiment, action: Action, by: str) -> None:
    """Move the pointers that a release or a rollback moves."""
    if action.kind == "release":
        _release(store, flywheel, experiment, by, action.reason)
    if action.kind in ("release", "rollback"):
        _close(store, flywheel, experiment, by, action.reason)


def _release(store: Store, flywheel: str, experiment: Experiment, by: str, reason: str) -> None:
    production = _require_control(store, flywheel, experiment)
    if production.value.get("digest") == experiment.candidate_digest:
        return  # an earlier try of this day moved it
    candidate = _candidate(store, flywheel, experiment)
    value = {**candidate.value, "experiment": {**candidate.value["experiment"], "state": "closed"}}
    Pointer(store, flywheel, PRODUCTION).move(
        value, expected_number=production.number, by=by, reason=reason
    )


def _close(store: Store, flywheel: str, experiment: Experiment, by: str, reason: str) -> None:
    candidate = _candidate(store, flywheel, experiment)
    described = candidate.value["experiment"]
    if described["state"] == "closed":
        return
    value = {**candidate.value, "experiment": {**described, "state": "closed"}}
    Pointer(store, flywheel, CANDIDATE).move(
        value, expected_number=candidate.number, by=by, reason=reason
    )


def _candidate(store: Store, flywheel: str, experiment: Experiment) -> PointerRecord:
    newest = Pointer(store, flywheel, CANDIDATE).newest()
    described = (newest.value.get("experiment") or {}) if newest else {}
    if newest is None or described.get("experiment_id") != experiment.experiment_id:
        raise StaleCandidate(
            f"candidate names experiment {described.get('experiment_id')!r}, not "
            f"{experiment.experiment_id!r}: another one was opened since; run that one"
        )
    return newest


def day_of_run(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    run_id: str,
    *,
    given: str | None,
    scheduled_for: datetime.date | None,
    simulated: bool,
) -> datetime.date:
    """The day that a run reads; kept when it is first worked out, so that every task and try of
    the run means the same one."""
    name = f"ab_test/{experiment.experiment_id}/{run_id}"
    kept = kept_days(store, flywheel, name)
    if kept is None:
        day = _asked(store, flywheel, experiment, given, scheduled_for, simulated)
        kept = keep_days(store, flywheel, name, (str(day),))
    return datetime.date.fromisoformat(kept[0])


def _asked(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    given: str | None,
    scheduled_for: datetime.date | None,
    simulated: bool,
) -> datetime.date:
    if given is not None:
        day = last_day("day", given, None)
        assert day is not None
        return day
    journal = Journal(store, flywheel, experiment.experiment_id)
    if simulated:
        return next_world_day(journal, experiment.generation)
    if scheduled_for is not None:
        return scheduled_for - datetime.timedelta(days=1)
    days = days_logged(store, experiment.exposures)
    if not days:
        raise InputDataError(
            f"{experiment.exposures}: no day is logged yet; log exposures and events, or name a day"
        )
    return days[-1]


def next_world_day(journal: Journal, generation: int) -> datetime.date:
    """The simulated world's next day that is not decided; the last one again while it waits for
    an answer. An experiment starts after the week that its generation was trained on."""
    if not journal.is_started:
        return WORLD_EPOCH + datetime.timedelta(days=DAYS_PER_GENERATION * generation)
    state = journal.state()
    if state.decided is None:
        return state.first_day
    return state.decided + datetime.timedelta(days=1)
