"""Fieller's confidence set for a ratio of two means (paper, Appendix 6, Eq. 15-18).

The set holds every ratio r that the data do not reject: |a - r b| <= z sqrt(Va - 2 r Cab + r² Vb).
It is an interval only while the denominator is clearly away from 0. Else it is everything outside
two bounds, or every number there is: the paper's Eq. 17 is the first of the three cases, and a
formula that always gives two numbers would be wrong in the others (Fieller 1954). Where nothing at
all was counted in control, the denominator is 0 with no error: then every ratio is in the set, or,
where the numerator is clearly not 0, none. The paper takes the arms as independent; the covariance
is ours, for what adjusts both arms by one pooled mean.
"""

import math
from typing import Literal

from pydantic import ConfigDict, model_validator

from flywheel_core.artifacts import Record
from flywheel_core.errors import ConfigError

Z_95 = 1.959963984540054


def critical_value(alpha: float) -> float:
    """The two-sided normal critical value."""
    if alpha == 0.05:
        return Z_95
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha / 2))


Kind = Literal["bounded", "complement", "whole", "empty"]


class RatioSet(Record):
    """The ratios that are not rejected: [lower, upper], everything outside (lower, upper), all or,
    over a denominator of exactly 0, none.

    A bound is None for `whole` and `empty`, and where it is infinite (a denominator exactly at the
    border of significance leaves a half-line).
    """

    model_config = ConfigDict(allow_inf_nan=False)

    kind: Kind
    lower: float | None
    upper: float | None

    @model_validator(mode="after")
    def _consistent(self) -> "RatioSet":
        if self.kind in ("whole", "empty") and (self.lower, self.upper) != (None, None):
            raise ValueError(
                f"{self.kind}: such a set has no bounds, got {self.lower!r} and {self.upper!r}"
            )
        if self.kind == "bounded" and (self.lower is None or self.upper is None):
            raise ValueError("a bounded set needs both bounds")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower {self.lower!r} is above upper {self.upper!r}: swap them")
        return self

    def contains(self, ratio: float) -> bool:
        """Whether `ratio` is in the set; bounds belong to it."""
        above_lower = self.lower is not None and ratio >= self.lower
        below_upper = self.upper is not None and ratio <= self.upper
        if self.kind == "empty":
            return False
        if self.kind == "bounded":
            return above_lower and below_upper
        below_lower = self.lower is not None and ratio <= self.lower
        above_upper = self.upper is not None and ratio >= self.upper
        return self.kind == "whole" or below_lower or above_upper


def fieller_set(
    numerator: float,
    numerator_se: float,
    denominator: float,
    denominator_se: float,
    *,
    covariance: float = 0.0,
    critical: float = Z_95,
) -> RatioSet:
    """The confidence set of numerator / denominator, from two means and their standard errors.

    `critical` is the two-sided critical value (normal or Student's t), `covariance` that of the
    two means. Raises `ConfigError` for numbers that no data have.
    """
    _check(numerator, numerator_se, denominator, denominator_se, covariance, critical)
    if denominator == denominator_se == 0:
        is_off = abs(numerator) > critical * numerator_se
        return RatioSet(kind="empty" if is_off else "whole", lower=None, upper=None)
    # The quadratic A r² - 2 B r + C <= 0. Scaled, so that no square over- or underflows.
    scale_a, scale_b = _scale(numerator, numerator_se), _scale(denominator, denominator_se)
    a, b = numerator / scale_a, denominator / scale_b
    se_a, se_b = numerator_se / scale_a, denominator_se / scale_b
    square = critical * critical
    shared = covariance / scale_a / scale_b
    head = (b - critical * se_b) * (b + critical * se_b)
    middle = a * b - square * shared
    tail = (a - critical * se_a) * (a + critical * se_a)
    # Equal to middle² - head tail, without the cancellation.
    under_root = (a * se_b) ** 2 - 2 * a * b * shared + (b * se_a) ** 2
    discriminant = square * (under_root - square * ((se_a * se_b) ** 2 - shared**2))
    lower, upper, kind = _solve(head, middle, tail, discriminant)
    bounds = [None if one is None else one * (scale_a / scale_b) for one in (lower, upper)]
    if not all(one is None or math.isfinite(one) for one in bounds):
        raise ConfigError(
            f"test mean {numerator!r} over control mean {denominator!r}: no number can hold their "
            "ratio; check the units of the two arms"
        )
    return RatioSet(kind=kind, lower=bounds[0], upper=bounds[1])


def _solve(
    head: float, middle: float, tail: float, discriminant: float
) -> tuple[float | None, float | None, Kind]:
    """Where A r² - 2 B r + C <= 0."""
    if head == 0:
        if middle == 0:
            return None, None, "whole"
        end = tail / (2 * middle)
        return (None, end, "complement") if middle > 0 else (end, None, "complement")
    if head < 0 and discriminant <= 0:
        return None, None, "whole"
    # Both roots without cancellation. Rounding may put a point set's discriminant below 0.
    far = middle + math.copysign(math.sqrt(max(0.0, discriminant)), middle)
    roots = sorted((far / head, tail / far)) if far else [0.0, 0.0]
    return roots[0], roots[1], "bounded" if head > 0 else "complement"


def is_rejected(
    ratio: float,
    numerator: float,
    numerator_se: float,
    denominator: float,
    denominator_se: float,
    *,
    covariance: float = 0.0,
    critical: float = Z_95,
) -> bool:
    """Whether `ratio` lies outside the set, by its definition (Eq. 16).

    For ratio 1 this is the z-test of the difference of the two means.
    """
    _check(numerator, numerator_se, denominator, denominator_se, covariance, critical)
    variance = numerator_se**2 - 2 * ratio * covariance + (ratio * denominator_se) ** 2
    return abs(numerator - ratio * denominator) > critical * math.sqrt(max(0.0, variance))


def _scale(mean: float, error: float) -> float:
    return max(abs(mean), error) or 1.0


def _check(
    numerator: float,
    numerator_se: float,
    denominator: float,
    denominator_se: float,
    covariance: float,
    critical: float,
) -> None:
    named = {
        "test mean": numerator,
        "test standard error": numerator_se,
        "control mean": denominator,
        "control standard error": denominator_se,
        "covariance": covariance,
        "critical value": critical,
    }
    for name, value in named.items():
        if not math.isfinite(value):
            raise ConfigError(
                f"{name} {value!r}: must be a finite number; find where it became NaN or infinite"
            )
    for name in ("test standard error", "control standard error"):
        if named[name] < 0:
            raise ConfigError(
                f"{name} {named[name]!r}: must be 0 or more; give the standard error of the mean"
            )
    if critical <= 0:
        raise ConfigError(f"critical value {critical!r}: must be above 0, 1.96 for 95 %")
    limit = numerator_se * denominator_se
    if abs(covariance) > limit * (1 + 1e-9):
        raise ConfigError(
            f"covariance {covariance!r}: must lie within ±{limit!r}, the product of the two "
            "standard errors; give the covariance of the two means, not of single users"
        )
