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
from flywheel_core.errors import InputDataError
from flywheel_core.experiments.analyze import analyze
from flywheel_core.experiments.approval import Answered, Approval
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.exposure_log import days_logged, fetch_days
from flywheel_core.experiments.journal import BY, Journal
from flywheel_core.experiments.ramp import (
    Action,
    RampState,
    day_to_read,
    next_action,
    step_config,
)
from flywheel_core.experiments.readout import Readout
from flywheel_core.release.experiments import Experiment
from flywheel_core.release.promotion import is_frozen
from flywheel_core.release.releasing import (
    Proof,
    follow,
    require_borne_out,
    require_control,
    require_releasable,
    was_released,
)
from flywheel_core.store import Store

DAYS_PER_GENERATION = 7

AnswerOf: TypeAlias = Callable[[Readout], Answered]


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
    proof: Proof | None = None,
    today: datetime.date | None = None,
) -> DayRun:
    """Read the experiment to the end of `asked`, decide, and take the step. A day at or before the
    newest decided one is only told again.

    Where a release manager is to be asked, `answered` says what the answer to this readout was
    and who gave it; without it the day stays open. `proof` bears an approval out once more before
    a release; without it nothing is released. `today` is the date of real traffic, whose day must
    be over before it is read; None for simulated days, which are.
    """
    journal = Journal(store, flywheel, experiment.experiment_id)
    state = _opened(store, journal, experiment, config)
    if state is None:
        return _waits(experiment, asked, None, "no exposures yet")
    if state.is_over or (state.decided is not None and asked <= state.decided):
        return _told_again(store, flywheel, journal, experiment, state, asked, proof)
    day = day_to_read(state, config, asked)
    if day < state.first_day:
        return _waits(experiment, day, state, f"this step starts on {state.first_day}")
    if today is not None and day >= today:
        return _waits(experiment, day, state, f"{day} is not over; run again on a later day")
    readout = _read(store, experiment, step_config(state, config), day)
    journal.keep_readout(readout)
    by, approval = BY, state.approval
    action = next_action(state, readout.newest)
    if action.kind == "ask":
        answer = answered(readout) if answered else _recorded(journal, experiment, readout, proof)
        if answer is not None:
            by, approval = answer.by, answer.approval
            action = next_action(state, readout.newest, answer.answer)
    action = _allowed(store, flywheel, experiment, action, approval, proof)
    decided = journal.decide(
        readout, action, by=by, approval=approval, took_effect=max(day, today or asked)
    )
    follow(
        store,
        flywheel,
        experiment,
        decided.state,
        proof,
        by=by,
        reason=decided.decision.action.reason,
    )
    return DayRun(
        experiment_id=experiment.experiment_id,
        day=day,
        action=decided.decision.action,
        moved=decided.moved,
        state=decided.state,
        readout=readout,
        said=f"{decided.decision.action.kind}: {decided.decision.action.reason}",
    )


def _waits(
    experiment: Experiment, day: datetime.date, state: RampState | None, said: str
) -> DayRun:
    return DayRun(
        experiment_id=experiment.experiment_id,
        day=day,
        action=Action(kind="wait", reason=said),
        moved=False,
        state=state,
        said=said,
    )


def _recorded(
    journal: Journal, experiment: Experiment, readout: Readout, proof: Proof | None
) -> Answered | None:
    """The approval of exactly these figures that a run recorded before it died: nobody is asked
    twice. Only Airflow's own record makes it count, for decisions lie where jobs write too."""
    found = journal.decision(readout.newest.day)
    if found is None or found.action.kind != "ramp" or found.approval is None or proof is None:
        return None
    if not found.approval.asked.is_about(readout):
        return None
    require_borne_out(experiment, found.approval, proof)
    return Answered(answer="approve", by=found.approval.by, approval=found.approval)


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
    return journal.start(config.first_day or days[0], allocation, config.rule())


def _read(
    store: Store, experiment: Experiment, config: ReadoutConfig, day: datetime.date
) -> Readout:
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


def _allowed(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    action: Action,
    approval: Approval | None,
    proof: Proof | None,
) -> Action:
    """The action, or to wait where the freeze switch forbids it. A rollback is never held up."""
    if action.kind not in ("ramp", "release"):
        return action
    if is_frozen(store, flywheel):
        return Action(kind="wait", reason="promotions are frozen; lift the freeze, then run again")
    if action.kind == "release":  # before it is recorded, for the router follows the record
        require_releasable(store, flywheel, experiment, approval, proof)
    else:
        require_control(store, flywheel, experiment)
    return action


def _told_again(
    store: Store,
    flywheel: str,
    journal: Journal,
    experiment: Experiment,
    state: RampState,
    asked: datetime.date,
    proof: Proof | None,
) -> DayRun:
    """Tell a decided day, and complete what a run that died after the last step left to do."""
    decision = journal.decision(asked)
    to_release = state.phase == "released" and not was_released(store, flywheel, experiment)
    if to_release and is_frozen(store, flywheel):
        return _waits(
            experiment, asked, state, "frozen before production was moved; lift the freeze"
        )
    done = follow(store, flywheel, experiment, state, proof, by=BY, reason=state.phase)
    action = next_over(decision.action if decision else None, state)
    what = "; ".join(done) or "nothing moves"
    return DayRun(
        experiment_id=experiment.experiment_id,
        day=asked,
        action=action,
        moved=bool(done),
        state=state,
        said=f"{asked} was decided before; {what}: {action.reason}",
    )


def next_over(action: Action | None, state: RampState) -> Action:
    """What is told of a day that is not decided again."""
    if action is not None:
        return Action(kind="nothing", reason=f"it was {action.kind} ({action.reason})")
    return Action(kind="nothing", reason=f"the experiment stands at: {state.phase}")


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
    return max(state.first_day, state.decided + datetime.timedelta(days=1))
