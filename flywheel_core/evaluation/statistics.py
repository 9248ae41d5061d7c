"""Intervals for what the gates and the report compare.

Win rates are fractions with a tie counting one half. Every function returns an `Interval`, and
says what it assumes about independence: prompts of one user are not independent of each other,
so traffic takes `cluster_bootstrap`, and a plain interval takes an *effective* number.

The heavy imports are inside the functions, so that importing a gate does not import statsmodels.
Fieller's interval for relative lifts (paper, Equation 17) is not here: it belongs to A/B readouts.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, model_validator

from flywheel_core.artifacts import Record

DEFAULT_LEVEL = 0.95
DEFAULT_NUM_RESAMPLES = 2000
_BOOTSTRAP_CHUNK_CELLS = 4_000_000  # clusters x resamples held at once: 32 MB of counts

FloatArray = npt.NDArray[np.float64]


class Interval(Record):
    """An estimate with its confidence interval, all in the unit of the estimate."""

    model_config = ConfigDict(allow_inf_nan=False)

    estimate: float
    lower: float
    upper: float
    level: float = Field(default=DEFAULT_LEVEL, gt=0, lt=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Interval":
        if self.lower > self.upper:
            raise ValueError(f"lower {self.lower!r} is above upper {self.upper!r}: swap them")
        return self

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies strictly outside."""
        return self.lower > 0 or self.upper < 0


def wilson_interval(successes: float, num_trials: float, level: float = DEFAULT_LEVEL) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927; Newcombe 1998, method 3).

    Both numbers may be fractional: ties count one half, and an effective number of prompts is
    seldom whole. With ties the interval is too wide rather than too narrow, because a half has
    less variance than a coin.
    """
    _check_level(level)
    if not (math.isfinite(num_trials) and num_trials > 0):
        raise ValueError(f"num_trials {num_trials!r}: must be finite and above 0; collect data")
    if not (math.isfinite(successes) and 0 <= successes <= num_trials):
        raise ValueError(f"successes {successes!r}: must lie in 0..{num_trials!r}; recount")
    from statsmodels.stats.proportion import proportion_confint

    lower, upper = proportion_confint(successes, num_trials, alpha=1 - level, method="wilson")
    rate = successes / num_trials
    # At 0 and 1 rounding can put a limit 1e-17 on the wrong side of the estimate.
    return Interval(
        estimate=rate,
        lower=max(0.0, min(float(lower), rate)),
        upper=min(1.0, max(float(upper), rate)),
        level=level,
    )


def win_rate(wins: int, ties: int, losses: int) -> float:
    """Share won, a tie counting one half. Exact at a threshold: one rounding, by division."""
    for name, count in (("wins", wins), ("ties", ties), ("losses", losses)):
        if count < 0:
            raise ValueError(f"{name} {count!r}: a count is 0 or more; check what was counted")
    num_prompts = wins + ties + losses
    if num_prompts == 0:
        raise ValueError("num_prompts 0: at least one comparison is needed; run the evaluation")
    return (2 * wins + ties) / (2 * num_prompts)


def win_rate_interval(
    wins: int,
    ties: int,
    losses: int,
    num_effective: float | None = None,
    level: float = DEFAULT_LEVEL,
) -> Interval:
    """Win rate with Wilson's interval at the effective number of prompts (default: all)."""
    rate = win_rate(wins, ties, losses)
    num_prompts = wins + ties + losses
    size = float(num_prompts) if num_effective is None else num_effective
    if not 0 < size <= num_prompts:
        raise ValueError(
            f"num_effective {num_effective!r}: must lie in (0, {num_prompts}]; "
            "use kish_effective_number"
        )
    interval = wilson_interval(rate * size, size, level)
    return interval.model_copy(update={"estimate": rate})


def cluster_bootstrap(
    scores: Sequence[float] | FloatArray,
    clusters: Sequence[Hashable] | npt.NDArray[Any],
    *,
    seed: int,
    level: float = DEFAULT_LEVEL,
    num_resamples: int = DEFAULT_NUM_RESAMPLES,
) -> Interval:
    """Mean score with a percentile interval from resampling whole clusters (users).

    `scores` has one value a prompt (win 1, tie 1/2, loss 0), `clusters` the user it came from.
    Users are drawn with replacement and bring all their prompts, so the size of a user's share
    is random too: the statistic is a ratio of sums. Needs two users; be wary below about thirty,
    where percentile intervals are too narrow.
    """
    _check_level(level)
    values = _finite("scores", scores)
    labels = np.asarray(clusters)
    if labels.shape != values.shape:
        raise ValueError(f"clusters shape {labels.shape}: must be {values.shape}, one per score")
    _, index = np.unique(labels, return_inverse=True)
    sums = np.bincount(index, weights=values).astype(np.float64)
    sizes = np.bincount(index).astype(np.float64)
    num_clusters = len(sums)
    if num_clusters < 2:
        raise ValueError(f"clusters: {num_clusters} distinct, at least 2 needed; add users")
    means = _resampled_means(sums, sizes, num_resamples, np.random.default_rng(seed))
    tail = (1 - level) / 2
    lower, upper = np.quantile(means, [tail, 1 - tail])
    return Interval(
        estimate=float(values.mean()), lower=float(lower), upper=float(upper), level=level
    )


def _resampled_means(
    sums: FloatArray, sizes: FloatArray, num_resamples: int, rng: np.random.Generator
) -> FloatArray:
    """Means (num_resamples,) over clusters drawn with replacement, a chunk at a time."""
    num_clusters = len(sums)
    chunk = max(1, _BOOTSTRAP_CHUNK_CELLS // num_clusters)
    chances = np.full(num_clusters, 1 / num_clusters)
    means = []
    for start in range(0, num_resamples, chunk):
        count = min(chunk, num_resamples - start)
        draws = rng.multinomial(num_clusters, chances, size=count)
        means.append((draws @ sums) / (draws @ sizes))
    return np.concatenate(means)


def kish_effective_number(weights: Sequence[float] | FloatArray) -> float:
    """Kish's effective number (sum w)^2 / sum w^2 of weighted observations.

    For prompts clustered by user, pass the number of prompts of each user: the result is the
    lower bound that holds even if all prompts of a user agree (intra-class correlation 1).
    """
    values = _finite("weights", weights)
    if (values < 0).any() or values.sum() == 0:
        raise ValueError("weights: must be 0 or more and not all 0; drop empty users first")
    scaled = values / values.max()
    return float(scaled.sum() ** 2 / (scaled**2).sum())


def mean_interval(values: Sequence[float] | FloatArray, level: float = DEFAULT_LEVEL) -> Interval:
    """Mean of independent values with Student's t interval; needs two values."""
    _check_level(level)
    sample = _finite("values", values)
    if len(sample) < 2:
        raise ValueError(f"values: {len(sample)} given, at least 2 needed for an interval")
    from scipy.stats import t

    mean = float(sample.mean())
    error = float(sample.std(ddof=1)) / math.sqrt(len(sample))
    half = float(t.ppf(0.5 + level / 2, len(sample) - 1)) * error
    return Interval(estimate=mean, lower=mean - half, upper=mean + half, level=level)


def paired_difference(
    candidate: Sequence[float] | FloatArray,
    production: Sequence[float] | FloatArray,
    level: float = DEFAULT_LEVEL,
) -> Interval:
    """Mean of candidate minus production on the same prompts, with the paired t interval."""
    first = _finite("candidate", candidate)
    second = _finite("production", production)
    if first.shape != second.shape:
        raise ValueError(
            f"production shape {second.shape}: must be {first.shape}, the same prompts in order"
        )
    return mean_interval(first - second, level)


def difference_of_intervals(first: Interval, second: Interval) -> Interval:
    """First minus second for two independent estimates, from their own intervals.

    The square-and-add rule (Newcombe 1998, method 10; "MOVER"): with Wilson intervals it is
    Newcombe's hybrid score interval, and it takes bootstrap intervals as well.
    """
    if first.level != second.level:
        raise ValueError(f"level {second.level!r}: must be {first.level!r}, that of the other")
    difference = first.estimate - second.estimate
    down = math.hypot(first.estimate - first.lower, second.upper - second.estimate)
    up = math.hypot(first.upper - first.estimate, second.estimate - second.lower)
    return Interval(
        estimate=difference, lower=difference - down, upper=difference + up, level=first.level
    )


def proportion_difference(
    successes: float,
    num_trials: float,
    other_successes: float,
    other_num_trials: float,
    level: float = DEFAULT_LEVEL,
) -> Interval:
    """Newcombe's hybrid score interval for a difference of two independent proportions.

    For candidate and production answering the *same* prompts it ignores the pairing, which
    makes it too wide, never too narrow, as long as the two agree more often than by chance.
    """
    return difference_of_intervals(
        wilson_interval(successes, num_trials, level),
        wilson_interval(other_successes, other_num_trials, level),
    )


def _finite(name: str, values: Sequence[float] | FloatArray) -> FloatArray:
    """The values as a non-empty vector of finite float64, or a ValueError that says where."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} shape {array.shape}: must be one dimension with a value or more")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"{name}[{bad[0]}] {array[bad[0]]!r}: must be finite ({bad.size} are not); "
            "find what scored NaN, do not drop it silently"
        )
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level {level!r}: must lie strictly between 0 and 1, for example 0.95")
