"""One metric on one day: its lift, how sure, and what could have been seen."""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from flywheel_core.evaluation.statistics import Interval
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.fieller import critical_value
from flywheel_core.experiments.lifts import (
    ArmMean,
    Counts,
    Lift,
    bootstrap_interval,
    delta_interval,
    lift_of,
)
from flywheel_core.experiments.logs import ARMS, Arm
from flywheel_core.experiments.metrics import METRICS, ArmSums, Metric, arm_mean, cuped, unreadable
from flywheel_core.experiments.power import minimum_detectable_lift_pct
from flywheel_core.experiments.readout import AdjustedLift, MetricReadout
from flywheel_core.experiments.sequential import always_valid_lift, critical_for_lift

Histogram: TypeAlias = Mapping[tuple[int, int, int], int]
"""Users by (arm, engaged days, sends)."""


def guardrail_metrics(config: ReadoutConfig) -> tuple[Metric, ...]:
    """The columns of the events that guard, per assigned user, and those metrics that do."""
    columns = [
        Metric(name=one.column, numerator=one.column, harm=one.harm) for one in config.guardrails
    ]
    known = {metric.name: metric for metric in METRICS}
    guarding = [
        known[name].model_copy(update={"harm": "down"}) for name in config.metric_guardrails
    ]
    return (*columns, *guarding)


def read_metric(
    metric: Metric,
    test: ArmSums,
    control: ArmSums,
    config: ReadoutConfig,
    day: int,
    drawn: Histogram | None = None,
) -> MetricReadout:
    """One metric at the end of a day; `drawn` is the users' histogram where a bootstrap interval
    is wanted."""
    peeking = day != config.num_days - 1
    told: dict[str, Any] = {"name": metric.name, "peeking": peeking, "harm": metric.harm}
    for arm, sums in (("test", test), ("control", control)):
        fault = unreadable(metric, sums)
        if fault:
            return MetricReadout(unreadable=f"{arm}: {fault}", **told)
    means = [arm_mean(metric, sums, day + 1) for sums in (test, control)]
    if not any(mean.standard_error for mean in means):
        return MetricReadout(test=means[0], control=means[1], unreadable=NO_VARIANCE, **told)
    expected = config.expected_lifts_pct.get(metric.name, config.expected_guardrail_lift_pct)
    lift = _fixed(means[0], means[1], config)
    drawn_again, undefined = _bootstrap(metric, drawn, config)
    valid = always_valid_lift(*means, expected_lift_pct=expected, alpha=config.alpha)
    return MetricReadout(
        test=means[0],
        control=means[1],
        lift=lift,
        always_valid=valid,
        adjusted=_adjusted(metric, test, control, config, day, expected),
        minimum_detectable_lift_pct=detectable(
            means[0], means[1], config, expected if peeking else None
        ),
        delta=_delta(means[0], means[1], config),
        bootstrap=drawn_again,
        bootstrap_undefined=undefined,
        loss=_is_loss(valid if peeking else lift, means[0], means[1], metric.harm),
        **told,
    )


NO_VARIANCE = (
    "no user differs from another in either arm: a variance of 0 is no evidence; look at what is "
    "logged"
)


BOOTSTRAP_UNDEFINED = (
    "not defined: in some resamples nobody of an arm engaged, or control has a mean of 0; use "
    "Fieller's set"
)


def _is_loss(decisive: Lift, test: ArmMean, control: ArmMean, harm: str | None) -> bool:
    """Whether the guardrail moved for the worse, significantly. By the means, not by the lift:
    over a control of 0 there is none."""
    if harm is None or not decisive.significant:
        return False
    return test.mean > control.mean if harm == "up" else test.mean < control.mean


def detectable(
    test: ArmMean, control: ArmMean, config: ReadoutConfig, expected_lift_pct: float | None = None
) -> float | None:
    """The true lift in percent that is found with the target power, None over a control of 0. By
    the interval that decides: where `expected_lift_pct` is given, the always-valid one."""
    if control.mean == 0:
        return None
    critical = critical_value(config.alpha)
    if expected_lift_pct is not None:
        critical = critical_for_lift(
            test, control, expected_lift_pct=expected_lift_pct, alpha=config.alpha
        )
    error = math.hypot(test.standard_error, control.standard_error)
    return minimum_detectable_lift_pct(
        error, control.mean, power=config.target_power, critical=critical
    )


def _delta(test: ArmMean, control: ArmMean, config: ReadoutConfig) -> Interval | None:
    if not config.with_delta or control.mean == 0:
        return None
    return delta_interval(test, control, level=1 - config.alpha)


def _fixed(test: ArmMean, control: ArmMean, config: ReadoutConfig, covariance: float = 0.0) -> Lift:
    return lift_of(test, control, covariance=covariance, critical=critical_value(config.alpha))


def _adjusted(
    metric: Metric,
    test: ArmSums,
    control: ArmSums,
    config: ReadoutConfig,
    day: int,
    expected: float,
) -> AdjustedLift | None:
    found = cuped(metric, test, control, day + 1)
    if found is None:
        return None
    return AdjustedLift(
        test=found.test,
        control=found.control,
        covariance=found.covariance,
        variance_reduction=found.variance_reduction,
        lift=_fixed(found.test, found.control, config, found.covariance),
        always_valid=always_valid_lift(
            found.test,
            found.control,
            expected_lift_pct=expected,
            covariance=found.covariance,
            alpha=config.alpha,
        ),
    )


def _bootstrap(
    metric: Metric, drawn: Histogram | None, config: ReadoutConfig
) -> tuple[Interval | None, str | None]:
    """The interval, or why it is not defined; neither where none was asked for."""
    if drawn is None or metric.numerator not in ("engaged_days", "sends"):
        return None, None
    found = bootstrap_interval(
        _values(metric, drawn, "test"),
        _values(metric, drawn, "control"),
        seed=config.bootstrap_seed,
        level=1 - config.alpha,
    )
    return found, BOOTSTRAP_UNDEFINED if found is None else None


def _values(metric: Metric, drawn: Histogram, arm: Arm) -> tuple[Counts, Counts, Counts]:
    """An arm's users by value: numerators, denominators and how many have them."""
    place = ARMS.index(arm)
    rows = np.array(
        [
            (days, sends, count)
            for (one, days, sends), count in sorted(drawn.items())
            if one == place
        ],
        dtype=np.int64,
    )
    columns = {
        "one": np.ones(len(rows), np.int64),
        "engaged_days": rows[:, 0],
        "sends": rows[:, 1],
        "engaged": (rows[:, 1] > 0).astype(np.int64),
    }
    return columns[metric.numerator], columns[metric.denominator], rows[:, 2]
