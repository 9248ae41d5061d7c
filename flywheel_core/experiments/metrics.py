"""Metrics and their variances from sums over users: breadth (Eq. 9-11), depth (Eq. 12-13), depth
per assigned user, guardrails; each also adjusted by pre-exposure behaviour (CUPED).

Every metric is a ratio of two sums over users, Σ numerator / Σ denominator: breadth's denominator
is 1 a user, depth's is A = 1(S > 0). The variance of a ratio of sums is that of its linearisation,
numerator - ratio * denominator, over the squared mean denominator. A user who did not engage has a
linearised depth of 0, so this is Eq. 15 over the engaged users, and is computed as such: the number
of users that Eq. 15 counts is the sum of the denominator.
"""

import math
from dataclasses import dataclass
from typing import Any

from flywheel_core.artifacts import Record
from flywheel_core.experiments.lifts import ArmMean


class Metric(Record):
    """A metric's name, the columns of its numerator and denominator, and the covariate that CUPED
    takes for it. `per_day` divides by the days of the window. A `harm` of `down` (or `up`) makes
    it a guardrail: a significant change that way is a loss."""

    name: str
    numerator: str
    denominator: str = "one"
    per_day: bool = False
    covariate: str | None = None
    harm: str | None = None


BREADTH = Metric(
    name="breadth", numerator="engaged_days", per_day=True, covariate="pre_engaged_days"
)
DEPTH = Metric(name="depth", numerator="sends", denominator="engaged", covariate="pre_sends")
DEPTH_PER_ASSIGNED = Metric(
    name="depth_per_assigned_user", numerator="sends", covariate="pre_sends"
)
"""Eq. 12 conditions on engaging at all, which the treatment moves: a model that draws many light
users in lowers depth while everybody sends more. Per assigned user there is no such selection."""

METRICS = (BREADTH, DEPTH, DEPTH_PER_ASSIGNED)


@dataclass(frozen=True)
class ArmSums:
    """Σ u uᵀ of an arm's users, exact integers, with the names of its rows."""

    columns: tuple[str, ...]
    matrix: Any

    def total(self, name: str) -> int:
        return int(self.matrix[0, self.columns.index(name)])

    def product(self, first: str, second: str) -> int:
        return int(self.matrix[self.columns.index(first), self.columns.index(second)])

    @property
    def num_users(self) -> int:
        return self.total("one")

    def centred(self, first: str, second: str) -> float:
        """Σ (x - mean x)(y - mean y) / (n - 1). Exact up to the one division at the end: the
        difference is taken in integers, so nothing cancels."""
        n = self.num_users
        top = n * self.product(first, second) - self.total(first) * self.total(second)
        return top / (n * (n - 1))


def unreadable(metric: Metric, arm: ArmSums) -> str | None:
    """Why this arm's metric cannot be read, or None."""
    if arm.num_users < 2:
        return f"{arm.num_users} users: a variance needs 2"
    if arm.total(metric.denominator) == 0:
        return "nobody engaged: the metric is not defined"
    if metric.denominator != "one" and arm.total(metric.denominator) < 2:
        return "one engaged user: a variance needs 2"
    return None


def arm_mean(metric: Metric, arm: ArmSums, num_days: int) -> ArmMean:
    """The arm's estimate (Eq. 11 or 13) with its standard error (Eq. 15)."""
    unit = num_days if metric.per_day else 1
    counted = arm.total(metric.denominator)
    ratio = arm.total(metric.numerator) / counted
    squares = _linearised(arm, metric, ratio) * (arm.num_users - 1)
    return ArmMean(
        mean=ratio / unit,
        standard_error=_root(squares / (counted - 1) / counted) / unit,
        num_users=arm.num_users,
    )


def _linearised(arm: ArmSums, metric: Metric, ratio: float) -> float:
    """Variance over users of numerator - ratio * denominator."""
    top, low = metric.numerator, metric.denominator
    if low == "one":
        return arm.centred(top, top)
    return (
        arm.centred(top, top) - 2 * ratio * arm.centred(top, low) + ratio**2 * arm.centred(low, low)
    )


@dataclass(frozen=True)
class Adjusted:
    """Both arms after CUPED, the covariance that the common mean gives them, and by what share
    the variance of the difference fell."""

    test: ArmMean
    control: ArmMean
    covariance: float
    variance_reduction: float


def cuped(metric: Metric, test: ArmSums, control: ArmSums, num_days: int) -> Adjusted | None:
    """Both arms adjusted by pre-exposure behaviour X (Deng, Xu, Kohavi and Walker 2013); None
    where the logs hold no covariate, or it does not vary.

    Each arm's estimate loses theta * (its mean of X - the mean of both arms). For a ratio metric
    the adjustment works on the linearisation (Budylin, Drutsa, Katsev and Tsoy 2018): theta is the
    slope of (numerator - ratio * denominator) on X over the mean denominator. One theta for both
    arms, so the expectations do not move; the common mean of X makes the two estimates covary,
    which goes into Fieller's set.
    """
    name = metric.covariate
    if name is None or name not in test.columns:
        return None
    arms = (test, control)
    spread = [arm.centred(name, name) for arm in arms]
    weight = sum(arm.num_users for arm in arms)
    if not all(spread):
        return None
    means = [arm_mean(metric, arm, num_days) for arm in arms]
    with_x = [_covariance_with(arm, metric, name, num_days) for arm in arms]
    theta = sum(c * arm.num_users for c, arm in zip(with_x, arms, strict=True)) / sum(
        v * arm.num_users for v, arm in zip(spread, arms, strict=True)
    )
    # The estimates and the means of X: variances and covariances of means, by arm.
    var = [mean.standard_error**2 for mean in means]
    var_x = [v / arm.num_users for v, arm in zip(spread, arms, strict=True)]
    cov_x = [c / arm.num_users for c, arm in zip(with_x, arms, strict=True)]
    x_means = [arm.total(name) / arm.num_users for arm in arms]
    gap, gap_variance = x_means[0] - x_means[1], sum(var_x)
    own = (theta * control.num_users / weight, theta * test.num_users / weight)
    adjusted = [
        ArmMean(
            mean=means[0].mean - own[0] * gap,
            standard_error=_root(var[0] - 2 * own[0] * cov_x[0] + own[0] ** 2 * gap_variance),
            num_users=test.num_users,
        ),
        ArmMean(
            mean=means[1].mean + own[1] * gap,
            standard_error=_root(var[1] - 2 * own[1] * cov_x[1] + own[1] ** 2 * gap_variance),
            num_users=control.num_users,
        ),
    ]
    covariance = own[1] * cov_x[0] + own[0] * cov_x[1] - own[0] * own[1] * gap_variance
    limit = adjusted[0].standard_error * adjusted[1].standard_error
    covariance = min(limit, max(-limit, covariance))
    before = sum(var)
    after = sum(one.standard_error**2 for one in adjusted) - 2 * covariance
    return Adjusted(
        test=adjusted[0],
        control=adjusted[1],
        covariance=covariance,
        variance_reduction=1 - after / before if before else 0.0,
    )


def _covariance_with(arm: ArmSums, metric: Metric, name: str, num_days: int) -> float:
    """Covariance over users of the linearised metric, in its unit, with X."""
    ratio = arm.total(metric.numerator) / arm.total(metric.denominator)
    along = arm.centred(metric.numerator, name)
    if metric.denominator != "one":
        along -= ratio * arm.centred(metric.denominator, name)
    unit = num_days if metric.per_day else 1
    return along / (arm.total(metric.denominator) / arm.num_users) / unit


def _root(variance: float) -> float:
    return math.sqrt(max(0.0, variance))
