"""Simulated experiments: how often intervals cover the truth, and how often daily looks are
fooled. Seeded; the CI runs small ones, `make bench ONLY=experiments` the full ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from flywheel_core.evaluation.statistics import Interval, wilson_interval
from flywheel_core.experiments.fieller import Z_95, fieller_set, is_rejected
from flywheel_core.experiments.lifts import ArmMean
from flywheel_core.experiments.sequential import always_valid_lift

FloatArray = npt.NDArray[np.float64]
NUM_DAYS = 7

# -- daily looks -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Looks:
    """Shares of experiments without an effect that were called significant: at some day by the
    always-valid interval, at some day by a fixed-horizon one, and at the last day by the latter."""

    sequential: Interval
    naive: Interval
    last_day_only: Interval


MetricName = Literal["breadth", "depth"]


def daily_looks(
    *, num_experiments: int, users_per_arm: int, seed: int, planned_lift_se: float = 3.0
) -> dict[MetricName, Looks]:
    """A/A experiments, read at the end of each day. People differ in how often they come and how
    much they send (log-normal), and are first exposed on different days. The mixture's scale is
    `planned_lift_se` times the standard error that the size and the people give, known before."""
    rng = np.random.default_rng(seed)
    planned = {
        name: planned_lift_se * np.median(_relative_errors(*_moments(rng, 20, users_per_arm)[name]))
        for name in ("breadth", "depth")
    }
    alarms: dict[str, npt.NDArray[np.int64]] = {
        name: np.zeros(3, np.int64) for name in ("breadth", "depth")
    }
    chunk = max(1, 400_000 // (users_per_arm * NUM_DAYS))
    for start in range(0, num_experiments, chunk):
        count = min(chunk, num_experiments - start)
        for name, (means, errors) in _moments(rng, count, users_per_arm).items():
            alarms[name] += _count_alarms(means, errors, planned[name])
    return {  # type: ignore[return-value]
        name: Looks(*(wilson_interval(int(one), num_experiments) for one in found))
        for name, found in alarms.items()
    }


def _relative_errors(means: FloatArray, errors: FloatArray) -> FloatArray:
    """Standard error of the lift on the last day, of each experiment."""
    relative: FloatArray = np.hypot(errors[:, 0, -1], errors[:, 1, -1]) / means[:, 1, -1]
    return relative


def _moments(
    rng: np.random.Generator, count: int, users: int
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Means and standard errors of both metrics, shape [count, arm, day]."""
    shape = (count, 2, users)
    chance = 1 / (1 + np.exp(-rng.normal(-0.2, 1.3, shape)))
    rate = np.exp(rng.normal(1.2, 0.9, shape))
    entry = np.minimum(rng.geometric(0.5, shape) - 1, NUM_DAYS - 1)
    means, errors = np.empty((2, 2, count, 2, NUM_DAYS))
    days, sends = np.zeros(shape), np.zeros(shape)
    for day in range(NUM_DAYS):
        there = entry <= day
        comes = there & (rng.random(shape) < chance)
        days += comes
        sends += comes * (1 + np.floor(rng.exponential(size=shape) * rate))
        engaged = sends > 0
        for place, (values, counted) in enumerate(((days, there), (sends, engaged))):
            n = counted.sum(axis=2)
            mean = values.sum(axis=2) / n
            squares = (np.where(counted, values - mean[..., None], 0.0) ** 2).sum(axis=2)
            means[place, :, :, day] = mean
            errors[place, :, :, day] = np.sqrt(squares / (n - 1) / n)
    return {"breadth": (means[0], errors[0]), "depth": (means[1], errors[1])}


def _count_alarms(means: FloatArray, errors: FloatArray, tau: float) -> npt.NDArray[np.int64]:
    found = np.zeros(3, np.int64)
    for mean, error in zip(means, errors, strict=True):
        looks = [
            (mean[0, day], error[0, day], mean[1, day], error[1, day]) for day in range(NUM_DAYS)
        ]
        naive = [is_rejected(1.0, *look) for look in looks]
        valid = (  # what ships decides
            always_valid_lift(
                _arm(look[0], look[1]), _arm(look[2], look[3]), expected_lift_pct=100 * tau
            ).significant
            for look in looks
        )
        found += (any(valid), any(naive), naive[-1])
    return found


def _arm(mean: float, error: float) -> ArmMean:
    return ArmMean.model_construct(mean=float(mean), standard_error=float(error), num_users=0)


# -- coverage --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """Two arms of users whose values have this shape; the true ratio is 1.05."""

    name: str
    shape: Literal["normal", "lognormal"]
    mean: float
    sd: float
    num_users: int


RATIO = 1.05
ASSUMPTIONS_HOLD = (
    Scenario("normal, large", "normal", 1.0, 1.0, 10_000),
    Scenario("normal, control near 0", "normal", 0.1, 1.0, 400),
    Scenario("log-normal, large", "lognormal", 1.0, 1.0, 5_000),
)
ASSUMPTIONS_FAIL = (
    Scenario("normal, small", "normal", 1.0, 1.0, 10),
    Scenario("log-normal, small", "lognormal", 1.0, 1.0, 30),
    Scenario("heavy tail, small", "lognormal", 1.0, 1.8, 100),
)


@dataclass(frozen=True)
class Coverage:
    """Shares of experiments whose interval holds the true ratio."""

    scenario: Scenario
    fieller: Interval
    delta: Interval
    bootstrap: Interval | None


def coverage(
    scenario: Scenario, *, num_experiments: int, seed: int, num_bootstrapped: int = 0
) -> Coverage:
    """Cover the true ratio by each interval; `num_bootstrapped` of the experiments are resampled
    too, 400 times each."""
    rng = np.random.default_rng(seed)
    arms = [_arm_moments(scenario, scale, num_experiments, rng) for scale in (RATIO, 1.0)]
    (a, se_a), (b, se_b) = arms
    fieller = sum(  # by the set that ships
        fieller_set(*map(float, one)).contains(RATIO) for one in zip(a, se_a, b, se_b, strict=True)
    )
    with np.errstate(divide="ignore"):
        half = Z_95 * np.hypot(se_a, a / b * se_b) / np.abs(b)
        delta = np.abs(a / b - RATIO) <= half
    drawn = [_bootstrap_covers(scenario, rng) for _ in range(num_bootstrapped)]
    return Coverage(
        scenario=scenario,
        fieller=wilson_interval(fieller, num_experiments),
        delta=wilson_interval(int(delta.sum()), num_experiments),
        bootstrap=wilson_interval(sum(drawn), num_bootstrapped) if num_bootstrapped else None,
    )


def _drawing(
    scenario: Scenario, scale: float, rng: np.random.Generator
) -> Callable[[tuple[int, ...]], FloatArray]:
    mean, sd = scale * scenario.mean, scale * scenario.sd
    if scenario.shape == "normal":
        return lambda size: rng.normal(mean, sd, size)
    variance = math.log(1 + (sd / mean) ** 2)
    return lambda size: rng.lognormal(math.log(mean) - variance / 2, math.sqrt(variance), size)


def _arm_moments(
    scenario: Scenario, scale: float, count: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Means and standard errors of `count` arms."""
    n = scenario.num_users
    if scenario.shape == "normal":  # their exact joint distribution
        mean, sd = scale * scenario.mean, scale * scenario.sd
        errors = sd * np.sqrt(rng.chisquare(n - 1, count) / (n - 1) / n)
        return rng.normal(mean, sd / math.sqrt(n), count), errors
    draw = _drawing(scenario, scale, rng)
    means, errors = np.empty((2, count))
    chunk = max(1, 2_000_000 // n)
    for start in range(0, count, chunk):
        some = draw((min(chunk, count - start), n))
        means[start : start + chunk] = some.mean(axis=1)
        errors[start : start + chunk] = some.std(axis=1, ddof=1) / math.sqrt(n)
    return means, errors


def _bootstrap_covers(scenario: Scenario, rng: np.random.Generator, resamples: int = 400) -> bool:
    n = scenario.num_users
    drawn = []
    for scale in (RATIO, 1.0):
        users = _drawing(scenario, scale, rng)((n,))
        drawn.append(users[rng.integers(n, size=(resamples, n))].mean(axis=1))
    lower, upper = np.quantile(drawn[0] / drawn[1], [0.025, 0.975])
    return bool(lower <= RATIO <= upper)
