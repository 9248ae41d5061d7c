"""What an experiment does at the end of a day: go on, ask, ramp, release or roll back. Pure.

Until the last day of the window only a guardrail acts, and it acts alone: a significant loss rolls
back without asking. On the last day a release manager is asked; approved, the test arm grows from
10 to 50 % of all users and, a day later, if no guardrail is lost there, to all of them, which is
the release. A day that cannot be read moves nothing forward.

Each step reads its own days. At 50 % the users who met the candidate at 10 % are a minority of the
arm, so the first window's cumulative figures would mix two allocations (and its sample ratio would
be off by construction).
"""

import datetime
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from flywheel_core.artifacts import Record
from flywheel_core.errors import ConfigError
from flywheel_core.experiments.approval import Approval
from flywheel_core.experiments.assignment import Allocation, ramped
from flywheel_core.experiments.config import RAMP_SHARES, ExperimentRule, ReadoutConfig
from flywheel_core.experiments.readout import DayReadout

RAMP_STEP_DAYS = 1

ActionKind = Literal["continue", "wait", "ask", "ramp", "release", "rollback", "nothing"]
Answer = Literal["approve", "reject"]
Phase = Literal["window", "ramping", "released", "rolled_back"]


class RampState(Record):
    """Where an experiment stands. `first_day` starts the days that this step reads, None until the
    first exposures under the allocation are logged; `decided` is the newest day that was decided;
    `approval` is what allowed the ramp. `rule` is the policy's at the start: what an experiment is
    read by is fixed before it is read. `took_effect` is the day on which the allocation changed, of
    which nothing is read; None for simulated days, which are whole."""

    experiment_id: str
    phase: Phase = "window"
    allocation: Allocation
    first_day: datetime.date | None
    rule: ExperimentRule
    took_effect: datetime.date | None = None
    decided: datetime.date | None = None
    approval: Approval | None = None

    @property
    def is_over(self) -> bool:
        return self.phase in ("released", "rolled_back")


class Action(Record):
    """What is done at the end of a day, and why. `automatic` needs nobody's approval."""

    kind: ActionKind
    reason: str = Field(min_length=1)
    automatic: bool = True


def num_days_of(state: RampState) -> int:
    """How many days this step reads."""
    return state.rule.num_days if state.phase == "window" else RAMP_STEP_DAYS


def step_config(state: RampState, config: ReadoutConfig) -> ReadoutConfig:
    """How this step is read: by the rule from the experiment's start, with the step's own first
    day, length and planned shares; only how a reading is shown is `config`'s."""
    return config.model_copy(
        update={
            **dict(state.rule),
            "first_day": state.first_day,
            "num_days": num_days_of(state),
            "test_share": state.allocation.test_share,
            "control_share": state.allocation.control_share,
        }
    )


def next_action(state: RampState, read: DayReadout, answer: Answer | None = None) -> Action:
    """What to do after this day's readout; `answer` is a release manager's, where one was asked
    for on this day. A day that was decided already, or lies before one, moves nothing."""
    if state.is_over:
        return Action(kind="nothing", reason=f"the experiment is over: {state.phase}")
    if state.decided is not None and read.day <= state.decided:
        return Action(
            kind="nothing",
            reason=f"{read.day} lies not after {state.decided}, which was decided; a day that is "
            "read again moves nothing",
        )
    if read.status != "ok":
        return Action(
            kind="wait", reason=f"nothing moves on a day that cannot be read: {read.reason}"
        )
    if read.losses:
        return Action(kind="rollback", reason=f"guardrail lost: {_lost(read)}")
    if read.is_last_day and (unread := _unread_guardrail(read)):
        return Action(kind="wait", reason=unread)
    if not read.is_last_day:
        return Action(kind="continue", reason="the window is not over, and no guardrail is lost")
    if state.phase == "ramping":
        return _next_step(state)
    return _answered(read, answer)


def since_last_day(read: DayReadout) -> Action:
    """What the days after a step's last one say while an answer or the end of a freeze is awaited:
    roll back on a lost guardrail; wait, so that no step is taken on it, where they cannot be read;
    else go on. The figures that were asked about stay those of the last day."""
    if read.status != "ok":
        return Action(
            kind="wait", reason=f"the days until {read.day} cannot be read: {read.reason}"
        )
    if read.losses:
        return Action(
            kind="rollback",
            reason=f"guardrail lost by {read.day}, after the last day and before the next step: "
            f"{_lost(read)}",
        )
    unread = _unread_guardrail(read)
    if unread:
        return Action(kind="wait", reason=f"on {read.day}, {unread}")
    return Action(kind="continue", reason=f"no guardrail is lost until {read.day}")


def _lost(read: DayReadout) -> str:
    lifts = ((name, read.guardrails[name].decisive) for name in read.losses)
    return ", ".join(f"{name} {lift.text()}" if lift else name for name, lift in lifts)


def _unread_guardrail(read: DayReadout) -> str | None:
    """The first guardrail without a lift, and why: missing evidence is never a pass."""
    for name, one in read.guardrails.items():
        if one.lift is None:
            return (
                f"guardrail {name} could not be read: {one.unreadable}. If that cannot be mended, "
                "end the experiment by `flywheel ab end` and take the guardrail out of the policy"
            )
    return None


def _answered(read: DayReadout, answer: Answer | None) -> Action:
    if answer is None:
        return Action(kind="ask", reason=_recommendation(read), automatic=False)
    if answer == "reject":
        return Action(kind="rollback", reason="rejected by the release manager", automatic=False)
    return Action(
        kind="ramp",
        reason=f"approved: {100 * RAMP_SHARES[0]:g} % of all users meet the candidate",
        automatic=False,
    )


def _next_step(state: RampState) -> Action:
    following = _share_after(state)
    if following < 1:
        return Action(kind="ramp", reason=f"no guardrail lost; {100 * following:g} % next")
    return Action(kind="release", reason="no guardrail lost on the ramp; the candidate is released")


def _share_after(state: RampState) -> float:
    return next(share for share in RAMP_SHARES if share > state.allocation.test_share)


def _recommendation(read: DayReadout) -> str:
    """What the data say for the question to the release manager."""
    primary = [read.metrics[name] for name in ("breadth", "depth") if name in read.metrics]
    said = ", ".join(f"{one.name} {one.decisive.text()}" for one in primary if one.decisive)
    moves = {one.direction for one in primary}
    if -1 in moves:
        return f"recommended: roll back, {said}"
    if 1 in moves:
        return f"recommended: ramp, {said}"
    return f"no significant change, the release manager decides: {said}"


def advance(
    state: RampState,
    day: datetime.date,
    action: Action,
    *,
    approval: Approval | None = None,
    took_effect: datetime.date | None = None,
) -> RampState:
    """The state after an action of a day; an action never goes back in time. `approval` is what
    allowed a ramp; the steps after it rest on it too.

    `took_effect` is the day on which the action is taken, `day` unless an answer came late: users
    changed arms on it, so the next step is read from the first full day after it.
    """
    if state.decided is not None and day <= state.decided and action.kind != "nothing":
        raise ConfigError(
            f"day {day}: {state.decided} was decided already; reading a day again moves nothing"
        )
    if action.kind == "nothing":
        return state
    if action.kind == "rollback":
        return rolled_back(state).model_copy(update={"decided": day})
    changed: dict[str, object] = {"decided": day}
    if action.kind == "release":
        if state.phase != "ramping":
            raise ConfigError(f"day {day}: only a ramp is released, not a {state.phase}")
        changed["phase"] = "released"
        changed["allocation"] = ramped(state.allocation, state.allocation.range_share)
    elif action.kind == "ramp":
        share = _share_after(state)
        changed["phase"] = "ramping"
        changed["allocation"] = ramped(state.allocation, share)
        changed["took_effect"] = max(day, took_effect or day)
        changed["first_day"] = max(day, took_effect or day) + datetime.timedelta(days=1)
        changed["approval"] = approval or state.approval
    if action.kind in ("wait", "ask"):
        del changed["decided"]  # the day is still to be decided
    return state.model_copy(update=changed)


def rolled_back(state: RampState) -> RampState:
    """Nobody meets the candidate any more."""
    nobody = state.allocation.model_copy(update={"test_share": 0.0, "control_share": 0.0})
    return state.model_copy(update={"phase": "rolled_back", "allocation": nobody})


def last_day_of(state: RampState) -> datetime.date:
    """The last day of this step; a `ValueError` before its first one is known."""
    if state.first_day is None:
        raise ValueError("a step without a first day has no last one")
    return state.first_day + datetime.timedelta(days=num_days_of(state) - 1)


def day_to_read(state: RampState, asked: datetime.date) -> datetime.date:
    """The day that a run for `asked` reads: the last one of this step where that is over and still
    waits for data or an answer."""
    return min(asked, last_day_of(state))


def first_day_of(
    state: RampState, logged: Iterable[datetime.date], *, earliest: datetime.date | None = None
) -> datetime.date | None:
    """The first day that is read: the first logged one after the day on which the allocation took
    effect, and not before `earliest`. What was logged before is another router's, or a part of a
    day; it is counted and left out. None where no such day is logged yet."""
    after = datetime.date.min if state.took_effect is None else state.took_effect
    return min(
        (one for one in logged if one > after and (earliest is None or one >= earliest)),
        default=None,
    )
