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
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from flywheel_core.artifacts import Record
from flywheel_core.errors import ConfigError
from flywheel_core.experiments.approval import Approval
from flywheel_core.experiments.assignment import Allocation, ramped
from flywheel_core.experiments.config import ExperimentRule, ReadoutConfig
from flywheel_core.experiments.lifts import Lift
from flywheel_core.experiments.readout import DayReadout

RAMP_SHARES = (0.50, 1.00)
"""Shares of all users in test after the first; §2.5.2 gives that one, the steps are ours."""

RAMP_STEP_DAYS = 1

ActionKind = Literal["continue", "wait", "ask", "ramp", "release", "rollback", "nothing"]
Answer = Literal["approve", "reject"]
Phase = Literal["window", "ramping", "released", "rolled_back"]


class RampState(Record):
    """Where an experiment stands. `first_day` starts the days that this step reads; `decided`
    is the newest day that was decided; `approval` is what allowed the ramp. `rule` is the policy's
    at the start: what an experiment is read by is fixed before it is read. `took_effect` is the
    day on which the allocation changed, of which nothing is read."""

    experiment_id: str
    phase: Phase = "window"
    allocation: Allocation
    first_day: datetime.date
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


def step_config(state: RampState, config: ReadoutConfig) -> ReadoutConfig:
    """How this step is read: by the rule from the experiment's start, with the step's own first
    day, length and planned shares; only how a reading is shown is `config`'s."""
    num_days = state.rule.num_days if state.phase == "window" else RAMP_STEP_DAYS
    return config.model_copy(
        update={
            **dict(state.rule),
            "first_day": state.first_day,
            "num_days": num_days,
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
        lost = ", ".join(_loss(read, name) for name in read.losses)
        return Action(kind="rollback", reason=f"guardrail lost: {lost}")
    unread = [name for name, one in read.guardrails.items() if one.lift is None]
    if unread and read.is_last_day:
        said = read.guardrails[unread[0]].unreadable
        return Action(kind="wait", reason=f"guardrail {unread[0]} could not be read: {said}")
    if not read.is_last_day:
        return Action(kind="continue", reason="the window is not over, and no guardrail is lost")
    if state.phase == "ramping":
        return _next_step(state)
    return _answered(read, answer)


def _loss(read: DayReadout, name: str) -> str:
    lift = read.guardrails[name].decisive
    return f"{name} {lift.text()}" if lift else name


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
    following = [share for share in RAMP_SHARES if share > state.allocation.test_share]
    if following and following[0] < 1:
        return Action(kind="ramp", reason=f"no guardrail lost; {100 * following[0]:g} % next")
    return Action(kind="release", reason="no guardrail lost on the ramp; the candidate is released")


def _recommendation(read: DayReadout) -> str:
    """What the data say for the question to the release manager."""
    lifts = {name: one.lift for name, one in read.metrics.items() if one.lift is not None}
    primary: dict[str, Lift] = {one: lifts[one] for one in ("breadth", "depth") if one in lifts}
    if any(lift.direction < 0 for lift in primary.values()):
        return "recommended: roll back, " + _texts(primary)
    if any(lift.direction > 0 for lift in primary.values()):
        return "recommended: ramp, " + _texts(primary)
    return "no significant change, the release manager decides: " + _texts(primary)


def _texts(lifts: Mapping[str, Lift]) -> str:
    return ", ".join(f"{name} {lift.text()}" for name, lift in lifts.items())


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
        share = next(one for one in RAMP_SHARES if one > state.allocation.test_share)
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


def day_to_read(state: RampState, config: ReadoutConfig, asked: datetime.date) -> datetime.date:
    """The day that a run for `asked` reads: the last one of this step where that is over and still
    waits for data or an answer."""
    num_days = step_config(state, config).num_days
    return min(asked, state.first_day + datetime.timedelta(days=num_days - 1))
