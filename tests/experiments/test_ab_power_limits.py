"""What no experiment can be planned by is refused, in a sentence."""

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.experiments.config import ExperimentRule
from flywheel_core.experiments.power import MAX_USERS_PER_ARM, plan_power


def told(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["ab", "power", *options])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--mean 1 --sd 1 --users-per-arm 100 --target-power 0.01", "target_power 0.01: must lie"),
        ("--mean 1 --sd 1 --lift-pct 5 --target-power 0.02", "target_power 0.02: must lie"),
        ("--mean 1 --sd 1 --lift-pct 5 --target-power 0.05", "between alpha (0.05), which"),
        ("--mean 1 --sd 1 --lift-pct 5 --target-power 1", "target_power 1.0: must lie"),
        ("--mean 1 --sd 1 --lift-pct 5 --alpha 0", "alpha 0.0: must lie between 0 and 1"),
        ("--mean 1 --sd 1 --lift-pct 1e-200", "lift_pct 1e-200 of a mean of 1.0"),
        ("--mean 1e-300 --sd 1 --lift-pct 1e-20", "users an arm would be needed"),
        ("--mean 1 --sd 1e300 --lift-pct 5", "more than 10,000,000,000 users"),
        ("--mean 1 --sd 1 --users-per-arm 100000000000", "users_per_arm 100000000000: must lie"),
        ("--mean 1 --sd 1 --users-per-arm 1", "must lie between 2, for a variance"),
        ("--mean 5e-324 --sd 1 --users-per-arm 100", "no number can hold the lift"),
    ],
)
def test_a_plan_without_sense_is_refused(options: str, said: str) -> None:
    code, text = told(*options.split())
    assert code == 1
    assert said in text


def test_the_largest_plan_is_still_made() -> None:
    lift_pct = 100 * 2.8016 * (2 / MAX_USERS_PER_ARM) ** 0.5  # z(0.975) + z(0.8) = 2.80158
    plan = plan_power(1.0, 1.0, lift_pct=lift_pct, users_per_arm=None)
    assert 0.999 * MAX_USERS_PER_ARM < plan.users_per_arm <= MAX_USERS_PER_ARM
    assert plan.power == pytest.approx(0.8, abs=1e-4)


def test_a_power_just_above_alpha_has_a_lift_above_0() -> None:
    plan = plan_power(1.0, 1.0, lift_pct=None, users_per_arm=100, target_power=0.0501)
    assert plan.minimum_detectable_lift_pct > 0


@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.01), (0.1, 0.1)])
def test_a_rule_asks_for_more_power_than_chance_has(alpha: float, power: float) -> None:
    with pytest.raises(ValidationError, match=rf"target_power\n.*above alpha \({alpha}\)"):
        ExperimentRule(alpha=alpha, target_power=power)
    assert ExperimentRule(alpha=alpha, target_power=power + 0.1).target_power == power + 0.1
