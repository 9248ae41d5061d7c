"""An experiment's day, from its logs to the pointers: the only way by which `production` moves
under `release: ab`.

Free of Airflow: the answer of the release manager is handed in by whoever checked it. Each step is
safe to repeat: the day's decision is put if absent, production is moved only from the model that
the experiment compared with, and a closed experiment stays closed.
"""

import datetime
from collections.abc import Callable
from typing import TypeAlias

from flywheel_core.artifacts import Record
from flywheel_core.experiments.approval import Answered, Approval
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.journal import BY, Journal
from flywheel_core.experiments.ramp import (
    Action,
    RampState,
    day_to_read,
    first_day_of,
    next_action,
    since_last_day,
)
from flywheel_core.experiments.readout import Readout
from flywheel_core.release.experiment_reading import ExperimentReader
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

AnswerOf: TypeAlias = Callable[[Readout], Answered]


class DayRun(Record):
    """What a run of one day found and did. `moved` says whether anything changed by this run;
    `since` what the days after the step's last one say, where it waits and there are some."""

    experiment_id: str
    day: datetime.date
    action: Action
    moved: bool
    state: RampState | None = None
    readout: Readout | None = None
    since: Action | None = None
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

    A step whose last day was read and that waits, for an answer, for a guardrail that cannot be
    read or for the end of a freeze, is read on: a guardrail lost on the days since rolls back,
    whatever was or will be answered.
    """
    journal = Journal(store, flywheel, experiment.experiment_id)
    reader = ExperimentReader(store, flywheel, experiment, config, today)
    state = _begun(journal, reader)
    if state.is_over or (state.decided is not None and asked <= state.decided):
        return _told_again(store, flywheel, journal, experiment, state, asked, proof)
    waits_for = _not_readable_yet(reader, state, asked)
    if waits_for is not None:
        return _waits(experiment, asked, state, waits_for)
    readout, action, held = _look(journal, reader, state, asked)
    by, approval = BY, state.approval
    if action.kind == "ask":
        answer = answered(readout) if answered else _recorded(journal, experiment, readout, proof)
        if answer is not None:
            by, approval = answer.by, answer.approval
            action = next_action(state, readout.newest, answer.answer)
    if held and held.kind == "wait" and action.kind in ("ramp", "release"):
        action = held  # no evidence of harm is not evidence of none
    action = _allowed(store, flywheel, experiment, action, approval, proof)
    took_effect = max(readout.newest.day, today or asked)
    decided = journal.decide(readout, action, by=by, approval=approval, took_effect=took_effect)
    decision = decided.decision
    follow(store, flywheel, experiment, decided.state, proof, by=by, reason=decision.action.reason)
    return DayRun(
        experiment_id=experiment.experiment_id,
        day=decision.day,
        action=decision.action,
        moved=decided.moved,
        state=decided.state,
        readout=readout,
        since=held if held is not action else None,
        said=f"{decision.action.kind}: {decision.action.reason}",
    )


def _look(
    journal: Journal, reader: ExperimentReader, state: RampState, asked: datetime.date
) -> tuple[Readout, Action, Action | None]:
    """The step's readout, what it calls for, and what the days since its last one say of that; a
    guardrail lost since then takes the place of both."""
    readout = reader.read(state, day_to_read(state, asked))
    journal.keep_readout(readout)
    action = next_action(state, readout.newest)
    is_open = readout.newest.status == "ok" and action.kind in ("ask", "ramp", "release", "wait")
    since = reader.read_since(state) if is_open else None
    if since is None:
        return readout, action, None
    held = since_last_day(since.newest)
    if held.kind == "rollback":
        journal.keep_readout(since)
        return since, held, held
    return readout, action, held


def _begun(journal: Journal, reader: ExperimentReader) -> RampState:
    """The experiment's state: allocated from its first run on, begun once a day is logged."""
    allocation = Allocation(
        experiment_id=journal.experiment_id,
        test_share=reader.config.test_share,
        control_share=reader.config.control_share,
        eligibility=reader.config.eligibility,
    )
    state = journal.allocate(allocation, reader.config.rule(), today=reader.today)
    if state.first_day is not None or state.is_over:
        return state
    first_day = first_day_of(state, reader.days_exposed(), earliest=reader.config.first_day)
    return state if first_day is None else journal.begin(first_day)


def _not_readable_yet(
    reader: ExperimentReader, state: RampState, asked: datetime.date
) -> str | None:
    """What this step still waits for before `asked` can be read, or None."""
    if state.first_day is None:
        since = f"; allocated on {state.took_effect}, whose own rows do not count"
        return "no exposures yet" + (since if state.took_effect else "")
    day = day_to_read(state, asked)
    if day < state.first_day:
        return f"this step starts on {state.first_day}"
    if reader.today is not None and day >= reader.today:
        return f"{day} is not over; run again on a later day"
    if not reader.has_events(day):
        return f"no events are logged up to {day}; ingest them, then run again"
    return None


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
