"""The always-valid interval: its formula, and false alarms under daily looks."""

import math
from pathlib import Path

import numpy as np
import pytest
from ab_samples import clean_logs
from hypothesis import given
from hypothesis import strategies as st

from flywheel_core.errors import ConfigError
from flywheel_core.experiments.analyze import analyze
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.lifts import ArmMean, lift_of
from flywheel_core.experiments.sequential import always_valid_critical, always_valid_lift
from tests.bench.simulations import (
    ASSUMPTIONS_FAIL,
    ASSUMPTIONS_HOLD,
    Scenario,
    coverage,
    daily_looks,
)


@given(st.floats(1e-6, 1.0), st.floats(1e-3, 1.0), st.floats(0.001, 0.2))
def test_the_critical_value_is_where_the_likelihood_ratio_reaches_one_over_alpha(
    variance: float, tau: float, alpha: float
) -> None:
    """The mixture of the likelihood ratio over N(0, tau²), by its integral, is 1/alpha there."""
    z = always_valid_critical(variance, tau, alpha)
    estimate = z * math.sqrt(variance)
    # ∫ exp((2 x e - x²) / 2V) N(x; 0, tau²) dx, a Gaussian integral over a fine grid.
    spread = math.sqrt(variance * tau**2 / (variance + tau**2))
    centre = estimate * tau**2 / (variance + tau**2)
    grid = centre + spread * np.linspace(-12, 12, 4001)
    logs = (2 * grid * estimate - grid**2) / (2 * variance) - grid**2 / (2 * tau**2)
    top = logs.max()
    integral = np.trapezoid(np.exp(logs - top), grid) / (tau * math.sqrt(2 * math.pi))
    assert top + math.log(integral) == pytest.approx(math.log(1 / alpha), rel=1e-6)


def test_it_is_wider_than_one_look_and_narrowest_near_the_planned_lift() -> None:
    critical = {tau: always_valid_critical(1.0, tau) for tau in (0.3, 1.0, 3.0, 9.0, 30.0)}
    assert min(critical.values()) == critical[3.0]
    assert 1.96 < critical[3.0] < 3.1


def test_a_significant_set_excludes_zero() -> None:
    test = ArmMean(mean=1.06, standard_error=0.01, num_users=100)
    control = ArmMean(mean=1.0, standard_error=0.01, num_users=100)
    found = always_valid_lift(test, control, expected_lift_pct=4.0)
    once = lift_of(test, control)
    assert found.significant
    assert found.lower_pct is not None
    assert once.lower_pct is not None
    assert 0 < found.lower_pct < once.lower_pct


def test_a_control_of_zero_is_still_tested() -> None:
    test = ArmMean(mean=0.5, standard_error=0.01, num_users=100)
    control = ArmMean(mean=0.0, standard_error=0.0001, num_users=100)
    assert always_valid_lift(test, control, expected_lift_pct=5.0).significant


def test_a_tau_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tau 0\.0"):
        always_valid_critical(1.0, 0.0)


def test_daily_looks_at_5000_experiments_without_an_effect() -> None:
    """The always-valid interval alarms in at most 6 % of them (upper 95 % bound); looking daily at
    a fixed-horizon interval, in far more than 5 %."""
    for found in daily_looks(num_experiments=5000, users_per_arm=150, seed=61).values():
        assert found.sequential.upper <= 0.06
        assert found.naive.lower > 0.07
        assert found.last_day_only.lower < 0.05 < found.last_day_only.upper + 0.01


@pytest.mark.parametrize("scenario", ASSUMPTIONS_HOLD, ids=lambda one: one.name)
def test_fieller_covers_95_percent_where_its_assumptions_hold(scenario: Scenario) -> None:
    count = 40_000 if scenario.shape == "normal" else 2_000
    found = coverage(scenario, num_experiments=count, seed=17).fieller
    # The simulation's own error on top of the half point: nothing at 40,000, a point at 2,000.
    slack = 0.005 if count == 40_000 else 0.015
    assert found.estimate == pytest.approx(0.95, abs=slack)


def test_where_they_fail_fieller_is_shown_beside_delta_and_bootstrap() -> None:
    """As found: with ten normal users an arm 1.96 is too small a critical value for all; with few
    heavy-tailed ones the delta interval misses, and Fieller's still holds."""
    found = {
        one.name: coverage(one, num_experiments=4_000, seed=19, num_bootstrapped=100)
        for one in ASSUMPTIONS_FAIL
    }
    assert found["normal, small"].fieller.upper < 0.945
    for name in ("log-normal, small", "heavy tail, small"):
        assert found[name].delta.upper < 0.945
        assert found[name].fieller.lower > found[name].delta.upper
    assert all(one.bootstrap.lower > 0.8 for one in found.values() if one.bootstrap)


def test_delta_misses_where_control_may_be_zero() -> None:
    near_zero = next(one for one in ASSUMPTIONS_HOLD if one.name == "normal, control near 0")
    found = coverage(near_zero, num_experiments=40_000, seed=23)
    assert abs(found.delta.estimate - 0.95) > 3 * abs(found.fieller.estimate - 0.95)


def test_while_peeking_the_detectable_lift_is_that_of_the_interval_that_decides(
    tmp_path: Path,
) -> None:
    """A true change of just that size is found by the always-valid interval in 80 %."""
    logs = clean_logs(600, num_days=3).write(tmp_path)
    read = analyze(*logs, ReadoutConfig()).newest.metrics["breadth"]
    least, test, control = read.minimum_detectable_lift_pct, read.test, read.control
    assert read.peeking
    assert least is not None
    assert test is not None
    assert control is not None
    rng = np.random.default_rng(9)
    true = control.mean * (1 + least / 100)
    found = 0
    for seen in rng.normal(true, math.hypot(test.standard_error, control.standard_error), 4000):
        arm = test.model_copy(update={"mean": float(seen)})
        found += always_valid_lift(arm, control, expected_lift_pct=2.0).significant
    assert found / 4000 == pytest.approx(0.8, abs=0.02)


def test_without_variance_the_critical_value_is_alphas() -> None:
    assert always_valid_critical(0.0, 0.02, 0.01) == pytest.approx(2.5758293)
