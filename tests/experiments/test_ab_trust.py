"""Sample ratio, power, false discovery rate, CUPED: against scipy, statsmodels, construction."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import NormalIndPower, zt_ind_solve_power
from statsmodels.stats.proportion import proportions_ztest
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.errors import ConfigError
from flywheel_core.experiments.lifts import lift_of
from flywheel_core.experiments.metrics import (
    BREADTH,
    DEPTH,
    DEPTH_PER_ASSIGNED,
    ArmSums,
    Metric,
    arm_mean,
    cuped,
)
from flywheel_core.experiments.power import (
    minimum_detectable_lift_pct,
    plan_power,
    power_of,
    users_for_lift,
)
from flywheel_core.experiments.trust import benjamini_hochberg, check_sample_ratio

COLUMNS = ("one", "engaged_days", "engaged", "sends", "pre_engaged_days", "pre_sends")


def sums_of(vectors: np.ndarray) -> ArmSums:
    whole = vectors.astype(object)
    return ArmSums(COLUMNS, whole.T @ whole)


@pytest.mark.parametrize(("test", "control"), [(10_000, 10_000), (10_150, 9_850), (3, 0)])
@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.05, 0.2)])
def test_the_sample_ratio_is_scipys_chi_square(
    test: int, control: int, shares: tuple[float, float]
) -> None:
    found = check_sample_ratio(test, control, test_share=shares[0], control_share=shares[1])
    total, share = test + control, shares[0] / sum(shares)
    statistic = sum(
        (seen - total * part) ** 2 / (total * part)
        for seen, part in ((test, share), (control, 1 - share))
    )
    assert found.chi2 == pytest.approx(statistic)
    assert found.p_value == pytest.approx(stats.chi2.sf(statistic, 1))
    assert found.stops_the_read == (found.p_value < 0.001)


def test_the_sample_ratio_stops_one_sound_experiment_in_a_thousand() -> None:
    draws = np.random.default_rng(5).binomial(20_000, 0.5, 20_000)
    values, times = np.unique(draws, return_counts=True)
    stopped = sum(
        count
        for value, count in zip(values.tolist(), times.tolist(), strict=True)
        if check_sample_ratio(
            value, 20_000 - value, test_share=0.1, control_share=0.1
        ).stops_the_read
    )
    assert stopped / 20_000 == pytest.approx(0.001, abs=0.0007)


def test_no_users_have_no_ratio() -> None:
    with pytest.raises(ConfigError, match="at least one must have been seen"):
        check_sample_ratio(0, 0, test_share=0.1, control_share=0.1)


def test_a_share_is_tested_as_statsmodels_tests_proportions() -> None:
    """Breadth of one day is a proportion; the unpooled z-test is Fieller's at a lift of 0."""
    arms = []
    for engaged, users in ((5_230, 10_000), (5_000, 10_000)):
        column = np.r_[np.ones(engaged, int), np.zeros(users - engaged, int)]
        zeros = np.zeros_like(column)
        vectors = np.stack([np.ones_like(column), column, column, column, zeros, zeros], axis=1)
        arms.append(arm_mean(BREADTH, sums_of(vectors), 1))
    statistic = (arms[0].mean - arms[1].mean) / math.hypot(
        arms[0].standard_error, arms[1].standard_error
    )
    expected, p_value = proportions_ztest([5_230, 5_000], [10_000, 10_000], prop_var=False)
    assert statistic == pytest.approx(expected, rel=2e-3)  # pooled against unpooled variance
    assert lift_of(*arms).significant == (p_value < 0.05)


@pytest.mark.parametrize("lift_pct", [-3.0, 1.0, 5.0])
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.01, 0.95)])
def test_power_is_statsmodels(lift_pct: float, alpha: float, power: float) -> None:
    mean, sd = 0.4, 0.31
    effect = mean * abs(lift_pct) / 100 / sd
    users = users_for_lift(mean, sd, lift_pct, alpha=alpha, power=power)
    solved = zt_ind_solve_power(effect_size=effect, alpha=alpha, power=power)
    assert users == pytest.approx(solved, abs=1.01)
    expected = NormalIndPower().power(effect, users, alpha)
    assert power_of(mean, sd, lift_pct, users, alpha=alpha) == pytest.approx(expected, abs=1e-9)
    detectable = minimum_detectable_lift_pct(
        sd * math.sqrt(2 / users), mean, alpha=alpha, power=power
    )
    assert detectable == pytest.approx(abs(lift_pct), rel=1e-3)


def test_the_detectable_lift_is_found_as_often_as_it_says() -> None:
    mean, sd, users = 10.0, 8.0, 1_000
    lift = minimum_detectable_lift_pct(sd * math.sqrt(2 / users), mean)
    rng = np.random.default_rng(8)
    test = rng.normal(mean * (1 + lift / 100), sd / math.sqrt(users), 20_000)
    control = rng.normal(mean, sd / math.sqrt(users), 20_000)
    found = np.abs(test - control) > 1.959964 * sd * math.sqrt(2 / users)
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_power_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match="give a lift"):
        plan_power(1.0, 1.0, lift_pct=None, users_per_arm=None)
    with pytest.raises(ConfigError, match=r"sd 0\.0"):
        plan_power(1.0, 0.0, lift_pct=1.0, users_per_arm=None)
    for users in (None, 1000):
        with pytest.raises(ConfigError, match="lift_pct nan"):
            plan_power(1.0, 1.0, lift_pct=math.nan, users_per_arm=users)
    with pytest.raises(ConfigError, match=r"lift_pct 0\.0"):
        plan_power(1.0, 1.0, lift_pct=0.0, users_per_arm=None)
    done = CliRunner().invoke(app, ["ab", "power", "--mean", "1", "--sd", "1"])
    assert done.exit_code == 1
    assert "give a lift" in done.output
    planned = CliRunner().invoke(
        app, ["ab", "power", "--mean", "1", "--sd", "1", "--lift-pct", "5", "--json"]
    )
    assert '"users_per_arm": 6280' in planned.stdout


def test_benjamini_hochbergs_own_example() -> None:
    """The 15 p-values of Benjamini and Hochberg (1995), section 3.2: four stand at 0.05."""
    published = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459,
        0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000,
    ]  # fmt: skip
    order = np.random.default_rng(2).permutation(len(published))
    stands = benjamini_hochberg([published[i] for i in order])
    assert sorted(np.array(published)[order][stands]) == published[:4]
    assert benjamini_hochberg([]) == []
    with pytest.raises(ConfigError, match=r"must lie in 0\.\.1"):
        benjamini_hochberg([math.nan])


def people(
    rng: np.random.Generator, count: int, correlation: float, scale: float = 1.0
) -> np.ndarray:
    """Integer vectors whose sends and pre-sends correlate; whoever engages little sends 0."""
    before, own = rng.normal(size=(2, count))
    after = correlation * before + math.sqrt(1 - correlation**2) * own
    sends = np.rint(1000 * scale * (5 + after)).astype(np.int64)
    pre = np.rint(1000 * (5 + before)).astype(np.int64)
    days = np.clip(np.rint(3.5 + after), 0, 7).astype(np.int64)
    one = np.ones(count, np.int64)
    return np.stack([one, days, one, sends, np.clip(pre // 1000, 0, 7), pre], axis=1)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 0.9])
def test_cuped_takes_one_minus_rho_squared_of_the_variance(correlation: float) -> None:
    rng = np.random.default_rng(11)
    test, control = people(rng, 40_000, correlation), people(rng, 40_000, correlation)
    found = cuped(DEPTH_PER_ASSIGNED, sums_of(test), sums_of(control), 7)
    both = np.vstack([test - test.mean(axis=0), control - control.mean(axis=0)])
    rho = np.corrcoef(both[:, 3], both[:, 5])[0, 1]
    assert found is not None
    # The construction's own correlation, exactly; and the one it was drawn with, nearly.
    assert found.variance_reduction == pytest.approx(rho**2, abs=1e-4)
    assert found.variance_reduction == pytest.approx(correlation**2, abs=0.01)


@pytest.mark.parametrize("metric", [BREADTH, DEPTH, DEPTH_PER_ASSIGNED], ids=lambda one: one.name)
def test_cuped_moves_no_expectation_and_its_interval_covers(metric: Metric) -> None:
    """Over many experiments, arms of unequal size, a lift of 4 %: no bias, and 95 % coverage by
    Fieller's set with the covariance of the two adjusted means."""
    rng = np.random.default_rng(13)
    plain, adjusted, covered = [], [], []
    for _ in range(1500):
        test, control = people(rng, 300, 0.7, 1.04), people(rng, 500, 0.7)
        for vectors in (test, control):  # some do not engage, the less so the more they sent before
            idle = rng.random(len(vectors)) < np.where(vectors[:, 5] < 4500, 0.4, 0.1)
            vectors[idle, 1:4] = 0
        sums = sums_of(test), sums_of(control)
        found = cuped(metric, *sums, 7)
        assert found is not None
        means = [arm_mean(metric, one, 7) for one in sums]
        plain.append(means[0].mean - means[1].mean)
        adjusted.append(found.test.mean - found.control.mean)
        lift = lift_of(found.test, found.control, covariance=found.covariance)
        true = 0.0 if metric is BREADTH else 4.0
        covered.append(lift.lower_pct < true < lift.upper_pct)
    error = np.std(np.array(plain) - adjusted) / math.sqrt(len(plain))
    assert abs(np.mean(plain) - np.mean(adjusted)) < 4 * error
    assert np.std(adjusted) < 0.95 * np.std(plain)
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 1500))


def test_without_a_covariate_there_is_no_adjustment() -> None:
    rng = np.random.default_rng(1)
    vectors = people(rng, 50, 0.5)
    narrow = ArmSums(COLUMNS[:4], sums_of(vectors).matrix[:4, :4])
    assert cuped(DEPTH, narrow, narrow, 7) is None
    vectors[:, 5] = 3
    assert cuped(DEPTH, sums_of(vectors), sums_of(vectors), 7) is None


def test_variances_do_not_cancel_away() -> None:
    """Sums in integers: a mean of a million with a variance of 1/4 keeps every digit."""
    sends = 10**6 + np.arange(1000) % 2
    one = np.ones(1000, np.int64)
    vectors = np.stack([one, one, one, sends, one, one], axis=1)
    found = arm_mean(DEPTH_PER_ASSIGNED, sums_of(vectors), 7)
    exact = math.sqrt(np.var(np.arange(1000) % 2, ddof=1) / 1000)
    assert found.standard_error == pytest.approx(exact, rel=1e-12)
