"""One metric on one day: its lift, how sure, and what could have been seen."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from flywheel_core.errors import ConfigError
from flywheel_core.evaluation.statistics import Interval
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.fieller import Z_95
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
from flywheel_core.experiments.sequential import always_valid_lift

Histogram: TypeAlias = Mapping[tuple[int, int, int], int]
"""Users by (arm, engaged days, sends)."""


def guardrail_metrics(config: ReadoutConfig) -> tuple[Metric, ...]:
    """The columns of the events that guard, per assigned user, and those metrics that do."""
    columns = [
        Metric(name=one.column, numerator=one.column, harm=one.harm) for one in config.guardrails
    ]
    known = {metric.name: metric for metric in METRICS}
    unknown = set(config.metric_guardrails) - set(known)
    if unknown:
        raise ConfigError(
            f"metric_guardrails: {sorted(unknown)[0]!r} is none of {', '.join(known)}"
        )
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
    peeking = day < config.num_days - 1
    for name, arm in (("test", test), ("control", control)):
        fault = unreadable(metric, arm)
        if fault:
            return MetricReadout(
                name=metric.name, peeking=peeking, unreadable=f"{name}: {fault}", harm=metric.harm
            )
    arms = tuple(arm_mean(metric, arm, day + 1) for arm in (test, control))
    if arms[0].standard_error == 0 and arms[1].standard_error == 0:
        return MetricReadout(
            name=metric.name,
            peeking=peeking,
            test=arms[0],
            control=arms[1],
            harm=metric.harm,
            unreadable="no user differs from another in either arm: a variance of 0 is no "
            "evidence; look at what is logged",
        )
    expected = config.expected_lifts_pct.get(metric.name, config.expected_guardrail_lift_pct)
    lift = _fixed(arms[0], arms[1], config)
    valid = always_valid_lift(*arms, expected_lift_pct=expected, alpha=config.alpha)
    decisive = valid if peeking else lift
    worse = {"down": -1, "up": 1}.get(metric.harm or "")
    moved = (arms[0].mean > arms[1].mean) - (arms[0].mean < arms[1].mean)
    error = (arms[0].standard_error ** 2 + arms[1].standard_error ** 2) ** 0.5
    return MetricReadout(
        name=metric.name,
        test=arms[0],
        control=arms[1],
        lift=lift,
        peeking=peeking,
        always_valid=valid,
        adjusted=_adjusted(metric, test, control, config, day, expected),
        minimum_detectable_lift_pct=minimum_detectable_lift_pct(
            error, arms[1].mean, alpha=config.alpha, power=config.target_power
        )
        if arms[1].mean
        else None,
        delta=delta_interval(*arms, level=1 - config.alpha)
        if config.with_delta and arms[1].mean
        else None,
        bootstrap=_bootstrap(metric, drawn, config),
        harm=metric.harm,
        loss=decisive.significant and moved == worse,
    )


def _fixed(test: ArmMean, control: ArmMean, config: ReadoutConfig, covariance: float = 0.0) -> Lift:
    return lift_of(test, control, covariance=covariance, critical=critical_value(config.alpha))


def critical_value(alpha: float) -> float:
    """The two-sided normal critical value."""
    if alpha == 0.05:
        return Z_95
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha / 2))


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


def _bootstrap(metric: Metric, drawn: Histogram | None, config: ReadoutConfig) -> Interval | None:
    if drawn is None or metric.numerator not in ("engaged_days", "sends"):
        return None
    return bootstrap_interval(
        _values(metric, drawn, "test"),
        _values(metric, drawn, "control"),
        seed=config.bootstrap_seed,
        level=1 - config.alpha,
    )


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
