"""Percentage lifts of a test arm over a control arm, with their confidence sets (Eq. 14-18)."""

import math

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from flywheel_core.artifacts import Record
from flywheel_core.errors import ConfigError
from flywheel_core.evaluation.statistics import DEFAULT_LEVEL, Interval
from flywheel_core.experiments.fieller import Z_95, Kind, fieller_set, is_rejected

Counts = npt.NDArray[np.int64]


class ArmMean(Record):
    """An arm's estimated mean, its standard error, and the number of users it rests on."""

    model_config = ConfigDict(allow_inf_nan=False)

    mean: float
    standard_error: float = Field(ge=0)
    num_users: int = Field(ge=0)


class Lift(Record):
    """A lift in percent with its confidence set; for `complement` the set is what lies outside
    the two bounds, for `empty` no lift agrees with the data: control counted nothing at all, and
    test clearly something. `estimate_pct` is None where control's mean is 0."""

    model_config = ConfigDict(allow_inf_nan=False)

    estimate_pct: float | None
    kind: Kind
    lower_pct: float | None
    upper_pct: float | None
    significant: bool

    @property
    def direction(self) -> int:
        """1 for a significant gain, -1 for a significant loss, 0 for neither."""
        if not self.significant or self.estimate_pct is None:
            return 0
        return 1 if self.estimate_pct > 0 else -1

    def text(self) -> str:
        """As people write it, for example `+3.52 % (-0.77 to +7.99)`."""
        estimate = "undefined" if self.estimate_pct is None else f"{self.estimate_pct:+.2f} %"
        low, high = (
            f"{sign}infinity" if bound is None else f"{bound:+.2f}"
            for sign, bound in (("-", self.lower_pct), ("+", self.upper_pct))
        )
        said = {
            "bounded": f"{low} to {high}",
            "complement": f"all but {low} to {high}",
            "whole": "any lift is possible",
            "empty": "control has none at all",
        }
        return f"{estimate} ({said[self.kind]})"


def lift_of(
    test: ArmMean, control: ArmMean, *, covariance: float = 0.0, critical: float = Z_95
) -> Lift:
    """The lift with Fieller's set; significant where a lift of 0 lies outside the set.

    `covariance` is that of the two estimated means, 0 for independent arms.
    """
    means = (test.mean, test.standard_error, control.mean, control.standard_error)
    ratios = fieller_set(*means, covariance=covariance, critical=critical)
    return Lift(
        estimate_pct=_estimate(test.mean, control.mean),
        kind=ratios.kind,
        lower_pct=_percent(ratios.lower),
        upper_pct=_percent(ratios.upper),
        significant=is_rejected(1.0, *means, covariance=covariance, critical=critical),
    )


def _estimate(test: float, control: float) -> float | None:
    return _percent(test / control if control else None)


def _percent(ratio: float | None) -> float | None:
    """None where there is no ratio, or none that a number can hold."""
    lift = math.inf if ratio is None else 100 * (ratio - 1)
    return lift if math.isfinite(lift) else None


def delta_interval(
    test: ArmMean, control: ArmMean, *, covariance: float = 0.0, level: float = DEFAULT_LEVEL
) -> Interval:
    """The lift in percent with the symmetric delta-method interval, to compare with Fieller's."""
    if control.mean == 0:
        raise ConfigError("control mean 0.0: a lift over it is not defined; use the difference")
    from scipy.stats import norm

    ratio = test.mean / control.mean
    variance = (
        test.standard_error**2 - 2 * ratio * covariance + (ratio * control.standard_error) ** 2
    )
    half = float(norm.ppf(0.5 + level / 2)) * math.sqrt(max(0.0, variance)) / abs(control.mean)
    estimate = 100 * (ratio - 1)
    return Interval(
        estimate=estimate, lower=estimate - 100 * half, upper=estimate + 100 * half, level=level
    )


def bootstrap_interval(
    test: tuple[Counts, Counts, Counts],
    control: tuple[Counts, Counts, Counts],
    *,
    seed: int,
    num_resamples: int = 2000,
    level: float = DEFAULT_LEVEL,
) -> Interval | None:
    """The lift of a ratio of sums in percent, with the percentile bootstrap over users; None where
    some resample has no lift (a denominator or control's mean is 0), so that no quantile is one.

    Each arm is (numerators, denominators, numbers of users): users with equal values are drawn
    together, which gives exactly the distribution of drawing them one by one (a multinomial), at a
    cost that depends on the number of distinct values and not on that of users.
    """
    rng = np.random.default_rng(seed)
    drawn = [_resampled_ratios(*arm, num_resamples, rng) for arm in (test, control)]
    point = [float(top @ users) / float(low @ users) for top, low, users in (test, control)]
    if not (np.isfinite(drawn).all() and drawn[1].all() and point[1]):
        return None
    lifts = 100 * (drawn[0] / drawn[1] - 1)
    tail = (1 - level) / 2
    lower, upper = np.quantile(lifts, [tail, 1 - tail])
    return Interval(estimate=100 * (point[0] / point[1] - 1), lower=lower, upper=upper, level=level)


def _resampled_ratios(
    numerators: Counts,
    denominators: Counts,
    users: Counts,
    num_resamples: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    total = int(users.sum())
    if total < 2 or not denominators @ users:
        raise ConfigError(
            f"an arm with {total} users and a denominator of {int(denominators @ users)} has "
            "nothing to draw from again; collect data first"
        )
    values = np.stack([numerators, denominators], axis=1).astype(np.float64)
    ratios = []
    chunk = max(1, 4_000_000 // len(users))  # counts held at once: 32 MB
    for start in range(0, num_resamples, chunk):
        count = min(chunk, num_resamples - start)
        sums = rng.multinomial(total, users / total, size=count) @ values
        with np.errstate(invalid="ignore"):  # 0 / 0: the caller looks
            ratios.append(sums[:, 0] / sums[:, 1])
    return np.concatenate(ratios)
