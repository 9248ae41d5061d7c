"""What an experiment is read by, decided before it starts. Light: needs nothing but pydantic."""

import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from flywheel_core.experiments.eligibility import Eligibility

DIMENSIONS = ("locale", "language", "jtbd", "user_kind")
"""Columns of the exposures that users are broken down by."""

COVARIATES = ("pre_engaged_days", "pre_sends")
"""Columns of the exposures that say what a user did before."""

METRIC_NAMES = ("breadth", "depth", "depth_per_assigned_user")

RESERVED = ("user_id", "at", "event_id", "one", "engaged", "engaged_days", *COVARIATES)


RAMP_SHARES = (0.50, 1.00)
"""Shares of all users in test after the first; §2.5.2 gives that one, the steps are ours."""


class GuardrailConfig(BaseModel):
    """A column of the events that must not change for the worse; `harm` is the bad direction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    harm: Literal["up", "down"] = "up"

    @model_validator(mode="after")
    def _may_guard(self) -> "GuardrailConfig":
        if self.column in RESERVED:
            raise ValueError(
                f"column {self.column!r} has a meaning of its own; give a column of counts, for "
                "example thumb_down"
            )
        return self


class ExperimentRule(BaseModel):
    """How experiments are read and decided. A seven-day window and 10 % an arm are the paper's
    (§2.5.2), the rest is ours. It is part of the deployed policy, so that whoever starts a climb
    cannot choose what judges it.

    An event up to `clock_skew_s` before its user's first exposure counts as after it. A user who
    sends more than `max_sends_per_day` on some day is a program, and is left out of both arms; more
    of them than `max_programs_share` of the users stop the read.
    `expected_lifts_pct` are the lifts the experiment was sized for: they set the mixture of the
    always-valid interval (see `sequential`). `eligibility` goes into the allocation that the router
    reads; users it leaves out are in neither arm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_days: int = Field(default=7, ge=1, le=366)
    test_share: float = Field(default=0.10, gt=0, le=1)
    control_share: float = Field(default=0.10, gt=0, le=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    target_power: float = Field(default=0.8, gt=0, lt=1)
    clock_skew_s: float = Field(default=60.0, ge=0)
    max_sends_per_day: int = Field(default=1000, ge=1, le=10**7)
    max_programs_share: float = Field(default=0.05, ge=0, le=1)
    max_in_both_arms_share: float = Field(default=0.01, ge=0, le=1)
    breakdowns: tuple[str, ...] = DIMENSIONS
    guardrails: tuple[GuardrailConfig, ...] = ()
    metric_guardrails: tuple[str, ...] = ("breadth", "depth_per_assigned_user")
    expected_lifts_pct: dict[str, float] = Field(
        default_factory=lambda: {"breadth": 2.0, "depth": 5.0, "depth_per_assigned_user": 5.0}
    )
    expected_guardrail_lift_pct: float = Field(default=20.0, gt=0)
    eligibility: Eligibility = Eligibility()

    @field_validator("target_power")
    @classmethod
    def _beyond_chance(cls, power: float, info: ValidationInfo) -> float:
        alpha = info.data.get("alpha")
        if alpha is not None and power <= alpha:
            raise ValueError(
                f"must be above alpha ({alpha}), which a lift of 0 reaches already; for example 0.8"
            )
        return power

    @model_validator(mode="after")
    def _known_metrics(self) -> "ExperimentRule":
        for field in ("metric_guardrails", "expected_lifts_pct"):
            unknown = sorted(set(getattr(self, field)) - set(METRIC_NAMES))
            if unknown:
                raise ValueError(f"{field}: {unknown[0]!r} is none of {', '.join(METRIC_NAMES)}")
        wrong = [name for name, lift in self.expected_lifts_pct.items() if not lift > 0]
        if wrong:
            raise ValueError(
                f"expected_lifts_pct: {wrong[0]} is {self.expected_lifts_pct[wrong[0]]}, must be "
                "above 0; give the lift the experiment was sized for"
            )
        return self

    @model_validator(mode="after")
    def _each_guardrail_once(self) -> "ExperimentRule":
        # A second one under a name would take the first one's place in the readout.
        for field, names in (
            ("guardrails", [one.column for one in self.guardrails]),
            ("metric_guardrails", list(self.metric_guardrails)),
        ):
            twice = [name for place, name in enumerate(names) if name in names[:place]]
            if twice:
                raise ValueError(
                    f"{field}: {twice[0]!r} is given twice, and only one direction of it can be "
                    "harm; give each guardrail once"
                )
        clash = [one.column for one in self.guardrails if one.column in METRIC_NAMES]
        if clash:
            raise ValueError(
                f"guardrails: {clash[0]!r} is the name of a metric; to guard the metric give it "
                "in metric_guardrails, else rename the column"
            )
        return self

    @model_validator(mode="after")
    def _sensible(self) -> "ExperimentRule":
        unknown = set(self.breakdowns) - set(DIMENSIONS)
        if unknown:
            raise ValueError(
                f"breakdowns: {sorted(unknown)[0]!r} is none of {', '.join(DIMENSIONS)}"
            )
        if self.test_share + self.control_share > 1 + 1e-12:
            raise ValueError(
                f"test_share {self.test_share} and control_share {self.control_share}: together "
                "they must not exceed 1"
            )
        return self


class ReadoutConfig(ExperimentRule):
    """One reading by the rule. `first_day` is the day of the first exposure where it is not given;
    `through` is the last day to read, else the last one that the logs hold. `watched_days` are read
    on after the window while something is awaited, by the intervals that may be read daily; the
    result of the experiment stays that of the window's last day."""

    first_day: datetime.date | None = None
    through: datetime.date | None = None
    watched_days: int = Field(default=0, ge=0)
    with_delta: bool = False
    with_bootstrap: bool = False
    bootstrap_seed: int = 0

    @classmethod
    def under(cls, rule: ExperimentRule) -> "ReadoutConfig":
        """A reading under this rule, of whatever days there are."""
        return cls.model_validate(rule.model_dump())

    def rule(self) -> ExperimentRule:
        """The rule alone, to be kept with an experiment from its start."""
        return ExperimentRule.model_validate(
            {name: getattr(self, name) for name in ExperimentRule.model_fields}
        )
