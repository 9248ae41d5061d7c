"""What an experiment says at the end of each day, as a document: lifts, trust, guardrails."""

import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from flywheel_core.artifacts import Record
from flywheel_core.evaluation.statistics import Interval
from flywheel_core.experiments.lifts import ArmMean, Lift
from flywheel_core.experiments.trust import SampleRatio

READOUT_SCHEMA_VERSION: Literal[1] = 1

Status = Literal["ok", "insufficient", "stopped"]
"""`insufficient`: data are missing or broken. `stopped`: the sample ratio forbids the read."""


class ReadoutRecord(Record):
    """Base of a readout's parts: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(allow_inf_nan=False)


class AdjustedLift(ReadoutRecord):
    """A lift after CUPED; `variance_reduction` is that of the difference of the arms."""

    test: ArmMean
    control: ArmMean
    covariance: float
    variance_reduction: float
    lift: Lift
    always_valid: Lift


class MetricReadout(ReadoutRecord):
    """One metric on one day. `lift` is at the fixed horizon: read before the last day, or after
    it, it is `peeking`, and `always_valid` is the one to look at. `unreadable` says why there is
    none.

    `minimum_detectable_lift_pct` stands beside every lift, so that a flat one is not read as none;
    it is that of the decisive interval. `bootstrap_undefined` says why no bootstrap interval is
    there although one was asked for.
    `loss` is set on guardrails: the decisive interval shows a significant change for the worse.
    """

    name: str
    unreadable: str | None = None
    test: ArmMean | None = None
    control: ArmMean | None = None
    lift: Lift | None = None
    peeking: bool
    always_valid: Lift | None = None
    adjusted: AdjustedLift | None = None
    minimum_detectable_lift_pct: float | None = None
    delta: Interval | None = None
    bootstrap: Interval | None = None
    bootstrap_undefined: str | None = None
    harm: Literal["up", "down"] | None = None
    loss: bool = False

    @property
    def decisive(self) -> Lift | None:
        """The interval that may decide on this day."""
        return self.always_valid if self.peeking else self.lift

    @property
    def direction(self) -> int:
        """1 for a significant gain by the decisive interval, -1 for a significant loss, 0 for
        neither. By the means: over a control of 0 there is no lift, but there is a direction."""
        lift, test, control = self.decisive, self.test, self.control
        if lift is None or not lift.significant:
            return 0
        if test is None or control is None:
            return lift.direction
        return 1 if test.mean > control.mean else -1


class DayReadout(ReadoutRecord):
    """Everything up to the end of one day, cumulatively. Where `status` is not ok, no metric is
    there, and `reason` says why."""

    day: datetime.date
    is_last_day: bool
    status: Status
    reason: str
    sample_ratio: SampleRatio | None = None
    num_bots: dict[str, int] = Field(default_factory=dict)
    num_in_both_arms: int = 0
    metrics: dict[str, MetricReadout] = Field(default_factory=dict)
    guardrails: dict[str, MetricReadout] = Field(default_factory=dict)

    @property
    def losses(self) -> tuple[str, ...]:
        """The guardrails that a significant loss recommends a rollback for."""
        return tuple(name for name, read in self.guardrails.items() if read.loss)


class ExploratoryLift(ReadoutRecord):
    """A lift within one value of a breakdown: a lead for the next experiment, never a result of
    this one. `stands` is after Benjamini-Hochberg over all of them."""

    dimension: str
    value: str
    metric: str
    test: ArmMean
    control: ArmMean
    lift: Lift
    p_value: float
    stands: bool
    minimum_detectable_lift_pct: float | None = None
    exploratory: Literal[True] = True


class Readout(ReadoutRecord):
    """An experiment's readouts day by day, the newest last, with what was left out and why."""

    schema_version: Literal[1] = READOUT_SCHEMA_VERSION
    experiment_id: str | None = None
    first_day: datetime.date
    num_days: int
    days: tuple[DayReadout, ...]
    exploratory: tuple[ExploratoryLift, ...] = ()
    left_out: dict[str, int] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sentence: str

    @property
    def newest(self) -> DayReadout:
        return self.days[-1]

    @property
    def is_watch(self) -> bool:
        """Whether it goes beyond the window: read on while something is awaited."""
        return len(self.days) > self.num_days
