"""An interval that may be looked at every day (mSPRT; Johari, Koomen, Pekelis and Walsh 2022).

A 95 % interval that is read daily, with a stop at the first significant day, is wrong far more
often than in 5 % of the experiments without an effect. The mixture sequential probability ratio
test (Robbins 1970; Johari, Koomen, Pekelis and Walsh, "Always Valid Inference: Continuous
Monitoring of A/B Tests", Operations Research 70(3), 2022) is not: with a normal mixture of standard
deviation tau over the effect, an estimate with variance V rejects where

    z² >= (V + tau²)/tau² * log((V + tau²)/(V alpha²)),

and with probability 1 - alpha that never happens without an effect, however often one looks. It
holds as far as the estimates are normal with independent increments, which successive cumulative
readouts of one population are approximately; `make bench ONLY=experiments` counts the false alarms
of 5,000 experiments without an effect.

The price is a wider interval. It is least where tau is about 3 standard errors of the last day,
that is about the effect the experiment was sized for; tau is fixed before the start and never
taken from the data.
"""

import math

from flywheel_core.errors import ConfigError
from flywheel_core.experiments.fieller import critical_value
from flywheel_core.experiments.lifts import ArmMean, Lift, lift_of


def always_valid_critical(relative_variance: float, tau: float, alpha: float = 0.05) -> float:
    """The critical value that takes the place of 1.96, for an estimated relative lift with this
    variance; `tau` is in the same unit (0.02 is a lift of 2 %)."""
    if not (tau > 0 and 0 < alpha < 1):
        raise ConfigError(
            f"tau {tau!r}, alpha {alpha!r}: tau must be above 0 (the lift the experiment was sized "
            "for), alpha between 0 and 1"
        )
    if relative_variance <= 0:
        return critical_value(alpha)
    mixed = relative_variance + tau * tau
    return math.sqrt(mixed / tau**2 * math.log(mixed / (relative_variance * alpha**2)))


def always_valid_lift(
    test: ArmMean,
    control: ArmMean,
    *,
    expected_lift_pct: float,
    covariance: float = 0.0,
    alpha: float = 0.05,
) -> Lift:
    """The lift with Fieller's set at the always-valid critical value.

    The test of each ratio r is the mSPRT of test - r control, its mixture in proportion to the
    standard error at r; `expected_lift_pct` is tau, the lift that the experiment was sized for.
    """
    critical = critical_for_lift(
        test, control, expected_lift_pct=expected_lift_pct, covariance=covariance, alpha=alpha
    )
    return lift_of(test, control, covariance=covariance, critical=critical)


def critical_for_lift(
    test: ArmMean,
    control: ArmMean,
    *,
    expected_lift_pct: float,
    covariance: float = 0.0,
    alpha: float = 0.05,
) -> float:
    """The critical value that `always_valid_lift` takes."""
    scale = abs(control.mean) or abs(test.mean) or 1.0  # a control of 0 has no relative lift
    variance = (test.standard_error**2 + control.standard_error**2 - 2 * covariance) / scale**2
    return always_valid_critical(variance, expected_lift_pct / 100, alpha)
