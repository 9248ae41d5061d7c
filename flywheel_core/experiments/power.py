"""How many users an experiment needs, and what it could have seen: before the start, and beside
every flat result.

The test is the two-sided z-test of test - control, which is Fieller's at a lift of 0. Under the
alternative the test arm's standard deviation is taken to be control's, as usual.
"""

import math

from flywheel_core.artifacts import Record
from flywheel_core.errors import ConfigError

MAX_USERS_PER_ARM = 10**10
"""More than there are people: a plan that asks for more has wrong numbers in it."""


class PowerPlan(Record):
    """What an experiment of this size can see. Lifts are relative, in percent."""

    users_per_arm: int
    lift_pct: float
    power: float
    alpha: float
    minimum_detectable_lift_pct: float
    target_power: float


def _critical(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha {alpha!r}: must lie between 0 and 1, for example 0.05")
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha / 2))


def _beyond(alpha: float, power: float, critical: float | None = None) -> float:
    """How many standard errors a true difference must be for the test to find it."""
    fixed = _critical(alpha)
    if not alpha < power < 1:
        raise ConfigError(
            f"target_power {power!r}: must lie between alpha ({alpha!r}), which a lift of 0 "
            "reaches already, and 1; for example 0.8"
        )
    from scipy.stats import norm

    return (fixed if critical is None else critical) + float(norm.ppf(power))


def minimum_detectable_lift_pct(
    standard_error: float,
    control_mean: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    critical: float | None = None,
) -> float:
    """The true lift that a test with this standard error of (test - control) detects with
    probability `power`. `critical` takes the place of alpha's fixed-horizon value, where another
    interval decides."""
    if control_mean == 0:
        raise ConfigError("control mean 0.0: no lift over it is defined")
    return 100 * _beyond(alpha, power, critical) * standard_error / abs(control_mean)


def users_for_lift(
    mean: float, sd: float, lift_pct: float, *, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Users in each arm for a lift; `sd` is that of one user's value (for depth: the linearised
    one, over the share that engages)."""
    _check(mean, sd)
    if lift_pct == 0 or not math.isfinite(lift_pct):
        raise ConfigError(f"lift_pct {lift_pct!r}: must be a number other than 0, for example 2")
    effect = abs(mean * lift_pct / 100) / sd
    errors = _beyond(alpha, power) / effect if effect else math.inf
    if errors > math.sqrt(MAX_USERS_PER_ARM / 2):
        raise ConfigError(
            f"lift_pct {lift_pct!r} of a mean of {mean!r} beside a standard deviation of {sd!r}: "
            f"more than {MAX_USERS_PER_ARM:,} users an arm would be needed; give a larger lift, "
            "or check the units"
        )
    return max(2, math.ceil(2 * errors**2))


def power_of(
    mean: float, sd: float, lift_pct: float, users_per_arm: int, *, alpha: float = 0.05
) -> float:
    """The probability that an experiment of this size calls a true lift significant."""
    _check(mean, sd)
    from scipy.stats import norm

    shift = abs(mean * lift_pct / 100) / (sd * math.sqrt(2 / users_per_arm))
    z = _critical(alpha)
    return float(norm.sf(z - shift) + norm.cdf(-z - shift))


def plan_power(
    mean: float,
    sd: float,
    *,
    lift_pct: float | None,
    users_per_arm: int | None,
    alpha: float = 0.05,
    target_power: float = 0.8,
) -> PowerPlan:
    """From a lift the users, from users the detectable lift, from both the power."""
    if lift_pct is None and users_per_arm is None:
        raise ConfigError("give a lift (how many users?), a number of users (what lift?), or both")
    _check(mean, sd)
    if lift_pct is not None and not math.isfinite(lift_pct):
        raise ConfigError(f"lift_pct {lift_pct!r}: must be a number, for example 2")
    if users_per_arm is None:
        assert lift_pct is not None
        users_per_arm = users_for_lift(mean, sd, lift_pct, alpha=alpha, power=target_power)
    if not 2 <= users_per_arm <= MAX_USERS_PER_ARM:
        raise ConfigError(
            f"users_per_arm {users_per_arm}: must lie between 2, for a variance, and "
            f"{MAX_USERS_PER_ARM:,}"
        )
    least = minimum_detectable_lift_pct(
        sd * math.sqrt(2 / users_per_arm), mean, alpha=alpha, power=target_power
    )
    if not math.isfinite(least):
        raise ConfigError(
            f"mean {mean!r} beside a standard deviation of {sd!r}: no number can hold the lift "
            "that would be found; check the units"
        )
    lift_pct = least if lift_pct is None else lift_pct
    return PowerPlan(
        users_per_arm=users_per_arm,
        lift_pct=lift_pct,
        power=power_of(mean, sd, lift_pct, users_per_arm, alpha=alpha),
        alpha=alpha,
        minimum_detectable_lift_pct=least,
        target_power=target_power,
    )


def _check(mean: float, sd: float) -> None:
    if not (math.isfinite(mean) and mean != 0):
        raise ConfigError(f"mean {mean!r}: must be a number other than 0, control's mean")
    if not (math.isfinite(sd) and sd > 0):
        raise ConfigError(f"sd {sd!r}: must be above 0, the standard deviation of one user's value")
