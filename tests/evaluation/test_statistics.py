"""Intervals against published worked examples, independent float64 formulas and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_core.evaluation.statistics import (
    Interval,
    cluster_bootstrap,
    difference_of_intervals,
    kish_effective_number,
    mean_interval,
    paired_difference,
    proportion_difference,
    wilson_interval,
    win_rate,
    win_rate_interval,
)

Z95 = 1.959963984540054


def wilson_by_hand(successes: float, n: float) -> tuple[float, float]:
    """The closed formula, as in Newcombe 1998a."""
    p = successes / n
    centre = (2 * n * p + Z95**2) / (2 * (n + Z95**2))
    half = Z95 * math.sqrt(Z95**2 + 4 * n * p * (1 - p)) / (2 * (n + Z95**2))
    return centre - half, centre + half


@pytest.mark.parametrize(
    ("successes", "n", "lower", "upper"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_newcombes_published_examples(
    successes: int, n: int, lower: float, upper: float
) -> None:
    found = wilson_interval(successes, n)
    assert (found.lower, found.upper) == pytest.approx((lower, upper), abs=5e-5)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_agrees_with_the_closed_formula(n: int, share: float) -> None:
    successes = share * n
    found = wilson_interval(successes, n)
    assert (found.lower, found.upper) == pytest.approx(wilson_by_hand(successes, n), abs=1e-9)
    assert 0 <= found.lower <= found.estimate <= found.upper <= 1


def test_newcombes_difference_gives_the_published_example() -> None:
    """Newcombe 1998b, table II (a): 56/70 against 48/80, method 10: 0.0524 to 0.3339."""
    found = proportion_difference(56, 70, 48, 80)
    assert found.estimate == pytest.approx(0.2)
    assert (found.lower, found.upper) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_tie_counts_one_half_and_limits_are_exact() -> None:
    assert win_rate(3, 2, 5) == 0.4
    assert win_rate(600, 100, 300) == 0.65
    assert win_rate(13, 0, 7) == 0.65


def test_fewer_effective_prompts_widen_the_interval_and_leave_the_rate() -> None:
    whole, worth_half = win_rate_interval(600, 50, 350), win_rate_interval(600, 50, 350, 500)
    assert worth_half.estimate == whole.estimate == 0.625
    assert worth_half.lower < whole.lower < whole.upper < worth_half.upper


def test_kish_by_hand() -> None:
    assert kish_effective_number([1, 1, 1, 1]) == pytest.approx(4)
    assert kish_effective_number([3, 1]) == pytest.approx(16 / 10)
    assert kish_effective_number([5, 0, 0]) == pytest.approx(1)


def test_t_interval_by_hand() -> None:
    """Mean 3, sd sqrt(2.5), t(0.975, 4) = 2.776445."""
    found = mean_interval([1, 2, 3, 4, 5])
    half = 2.7764451051977987 * math.sqrt(2.5) / math.sqrt(5)
    assert (found.estimate, found.lower, found.upper) == pytest.approx((3, 3 - half, 3 + half))


def test_students_sleep_data_gives_the_published_paired_interval() -> None:
    """Student 1908: mean difference 1.58, 95 % interval 0.7001 to 2.4599 (R's t.test)."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_difference(second, first)
    assert found.estimate == pytest.approx(1.58)
    assert (found.lower, found.upper) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_bootstrap_repeats_with_its_seed_and_ignores_the_order() -> None:
    rng = np.random.default_rng(2)
    scores, users = rng.random(90), rng.integers(0, 30, 90)
    first = cluster_bootstrap(scores, users, seed=3)
    assert first == cluster_bootstrap(scores, users, seed=3)
    assert first != cluster_bootstrap(scores, users, seed=4)
    backwards = cluster_bootstrap(scores[::-1], users[::-1], seed=3)
    assert (backwards.lower, backwards.upper) == pytest.approx((first.lower, first.upper))
    assert first.estimate == pytest.approx(scores.mean())


def test_bootstrap_of_perfectly_correlated_users_is_as_wide_as_their_number() -> None:
    """Every user answers 20 times alike: 100 users are worth 100 prompts, not 2,000."""
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 2, 100).astype(float)
    clustered = cluster_bootstrap(np.repeat(votes, 20), np.repeat(np.arange(100), 20), seed=1)
    wilson = wilson_interval(votes.sum(), 100)
    assert clustered.upper - clustered.lower == pytest.approx(wilson.upper - wilson.lower, rel=0.12)


def test_bootstrap_covers_where_the_naive_interval_does_not() -> None:
    """200 simulated evaluations of 80 users x 10 prompts with strong user effects, truth 0.5."""
    rng = np.random.default_rng(7)
    users = np.repeat(np.arange(80), 10)
    covered = naive = 0
    for trial in range(200):
        taste = rng.beta(1.0, 1.0, 80)
        scores = (rng.random(800) < taste[users]).astype(float)
        found = cluster_bootstrap(scores, users, seed=trial, num_resamples=400)
        covered += found.lower <= 0.5 <= found.upper
        plain = wilson_interval(scores.sum(), 800)
        naive += plain.lower <= 0.5 <= plain.upper
    assert 0.89 <= covered / 200 <= 0.99
    assert naive / 200 < 0.8


def test_wilson_and_newcombe_cover() -> None:
    """2,000 simulated comparisons at n = 60: nominal 95 %."""
    rng = np.random.default_rng(11)
    first, second = rng.binomial(60, 0.6, 2000), rng.binomial(60, 0.5, 2000)
    singles = [wilson_interval(int(x), 60) for x in first]
    pairs = [
        proportion_difference(int(x), 60, int(y), 60)
        for x, y in zip(first[:500], second[:500], strict=True)
    ]
    assert 0.93 <= np.mean([i.lower <= 0.6 <= i.upper for i in singles]) <= 0.975
    assert 0.92 <= np.mean([i.lower <= 0.1 <= i.upper for i in pairs]) <= 0.98


def test_refusals_name_the_value_and_the_next_step() -> None:
    with pytest.raises(ValueError, match=r"scores\[1\] .*nan.*2 are not"):
        cluster_bootstrap([1, math.nan, math.nan], [1, 2, 3], seed=0)
    with pytest.raises(ValueError, match="1 distinct, at least 2"):
        cluster_bootstrap([1, 0], ["a", "a"], seed=0)
    with pytest.raises(ValueError, match="wins -1"):
        win_rate(-1, 0, 2)
    with pytest.raises(ValueError, match="num_prompts 0"):
        win_rate(0, 0, 0)
    with pytest.raises(ValueError, match="num_trials nan"):
        wilson_interval(1, math.nan)
    with pytest.raises(ValueError, match="num_effective 11"):
        win_rate_interval(5, 0, 5, 11)
    with pytest.raises(ValueError, match="level 95"):
        wilson_interval(1, 2, level=95)
    with pytest.raises(ValueError, match="same prompts"):
        paired_difference([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="is above upper"):
        Interval(estimate=0, lower=1, upper=0)
    zero = Interval(estimate=0, lower=0, upper=0)
    with pytest.raises(ValueError, match="level"):
        difference_of_intervals(zero.model_copy(update={"level": 0.9}), zero)
    with pytest.raises(ValueError, match="not all 0"):
        kish_effective_number([0.0, 0.0])
