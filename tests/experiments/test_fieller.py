"""Fieller's set against published cases, its definition, the z-test, and the paper's Table 10."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import brentq
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.errors import ConfigError
from flywheel_core.experiments.fieller import Z_95, RatioSet, fieller_set, is_rejected
from flywheel_core.experiments.lifts import ArmMean, bootstrap_interval, delta_interval, lift_of

CASES = json.loads((Path(__file__).parent / "fieller_cases.json").read_text(encoding="utf-8"))[
    "cases"
]
MEANS = st.floats(-50, 50)
ERRORS = st.floats(0.01, 20)
RATIOS = st.floats(-100, 100)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_published_cases(case: dict) -> None:
    found = fieller_set(
        case["numerator"],
        case["numerator_se"],
        case["denominator"],
        case["denominator_se"],
        critical=case["critical"],
    )
    assert found.kind == case["kind"]
    assert found.lower == pytest.approx(case["lower"], abs=1e-6)
    assert found.upper == pytest.approx(case["upper"], abs=1e-6)
    if case["published"]:
        decimals = [len(str(bound).split(".")[1]) for bound in case["published"]]
        for bound, printed, places in zip(
            (found.lower, found.upper), case["published"], decimals, strict=True
        ):
            assert bound == pytest.approx(printed, abs=0.6 * 10 ** -min(places, 5))


@given(MEANS, ERRORS, MEANS, ERRORS, RATIOS, st.floats(-0.95, 0.95))
def test_membership_is_the_definition(
    a: float, se_a: float, b: float, se_b: float, r: float, correlation: float
) -> None:
    covariance = correlation * se_a * se_b
    variance = se_a**2 - 2 * r * covariance + (r * se_b) ** 2
    gap = abs(a - r * b) - Z_95 * math.sqrt(variance)
    assume(abs(gap) > 1e-7 * (1 + abs(a) + abs(r * b)))
    found = fieller_set(a, se_a, b, se_b, covariance=covariance)
    assert found.contains(r) == (gap < 0)
    assert is_rejected(r, a, se_a, b, se_b, covariance=covariance) == (gap > 0)


@given(MEANS, ERRORS, MEANS, ERRORS)
def test_the_whole_line_iff_both_means_together_are_near_zero(
    a: float, se_a: float, b: float, se_b: float
) -> None:
    size = (a / se_a) ** 2 + (b / se_b) ** 2
    assume(abs(size - Z_95**2) > 1e-7)
    assert (fieller_set(a, se_a, b, se_b).kind == "whole") == (size < Z_95**2)


@given(MEANS, ERRORS, MEANS, ERRORS)
def test_bounded_iff_the_denominator_is_significant_and_then_the_midpoint_is_shifted(
    a: float, se_a: float, b: float, se_b: float
) -> None:
    g = (Z_95 * se_b / b) ** 2 if abs(b) > 1e-9 else math.inf
    assume(abs(g - 1) > 1e-4)
    found = fieller_set(a, se_a, b, se_b)
    assert (found.kind == "bounded") == (g < 1)
    if found.lower is not None and found.upper is not None and found.kind == "bounded":
        middle = (found.lower + found.upper) / 2
        assert middle == pytest.approx(a / b / (1 - g), rel=1e-6, abs=1e-6)


@given(MEANS, ERRORS, MEANS, ERRORS)
def test_ratio_one_is_the_z_test_of_the_difference(
    a: float, se_a: float, b: float, se_b: float
) -> None:
    statistic = (a - b) / math.hypot(se_a, se_b)
    assume(abs(abs(statistic) - Z_95) > 1e-7)
    found = lift_of(
        ArmMean(mean=a, standard_error=se_a, num_users=9),
        ArmMean(mean=b, standard_error=se_b, num_users=9),
    )
    assert found.significant == (abs(statistic) > Z_95)
    assert fieller_set(a, se_a, b, se_b).contains(1.0) != found.significant


@given(MEANS, ERRORS, MEANS, ERRORS, st.floats(0.01, 1000))
def test_units_do_not_matter(a: float, se_a: float, b: float, se_b: float, unit: float) -> None:
    assume(abs(b) > Z_95 * se_b * 1.01)
    found = fieller_set(a, se_a, b, se_b)
    scaled = fieller_set(a * unit, se_a * unit, b * unit, se_b * unit)
    assert scaled.kind == found.kind
    assert scaled.lower == pytest.approx(found.lower, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(
    ("lift_pct", "below", "above"), [(3.52, 4.29, 4.47), (1.38, 4.41, 4.62)], ids=["V8", "V9"]
)
def test_table_10s_asymmetry_under_equal_relative_errors(
    lift_pct: float, below: float, above: float
) -> None:
    """One number, the relative error common to both arms, gives both printed half-widths."""
    ratio = 1 + lift_pct / 100

    def bounds(relative_error: float) -> tuple[float, float]:
        found = fieller_set(ratio, ratio * relative_error, 1.0, relative_error)
        assert found.lower is not None
        assert found.upper is not None
        return 100 * (ratio - found.lower), 100 * (found.upper - ratio)

    error = brentq(lambda one: sum(bounds(one)) - (below + above), 1e-4, 0.1)
    # Both halves were rounded to 0.01, so their sum, from which the error is found, to 0.01.
    assert bounds(error) == pytest.approx((below, above), abs=0.01)


def test_the_edge_of_significance_leaves_a_half_line() -> None:
    found = fieller_set(5.0, 1.0, 2.0, 1.0, critical=2.0)
    assert (found.kind, found.lower) == ("complement", None)
    assert found.contains(1e9)
    assert not found.contains(-1e9)


def test_no_variance_is_a_point_and_a_control_of_zero_has_no_estimate() -> None:
    point = lift_of(
        ArmMean(mean=3.0, standard_error=0.0, num_users=2),
        ArmMean(mean=2.0, standard_error=0.0, num_users=2),
    )
    assert (point.estimate_pct, point.lower_pct, point.significant) == (50.0, 50.0, True)
    zero = lift_of(
        ArmMean(mean=3.0, standard_error=0.1, num_users=2),
        ArmMean(mean=0.0, standard_error=0.1, num_users=2),
    )
    assert (zero.estimate_pct, zero.kind, zero.significant) == (None, "complement", True)


def test_a_ratio_that_no_number_holds() -> None:
    tiny = ArmMean(mean=2e-309, standard_error=1.0, num_users=2)
    assert lift_of(ArmMean(mean=1.0, standard_error=1.0, num_users=2), tiny).estimate_pct is None
    with pytest.raises(ConfigError, match="check the units"):
        fieller_set(1.0, 0.1, 1e-309, 0.0)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((math.nan, 1.0, 1.0, 1.0), "test mean nan"),
        ((1.0, -1.0, 1.0, 1.0), "test standard error -1.0"),
        ((1.0, 1.0, math.inf, 1.0), "control mean inf"),
    ],
)
def test_numbers_no_data_have_are_refused(
    numbers: tuple[float, float, float, float], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        fieller_set(*numbers)


def test_a_covariance_beyond_the_errors_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"covariance 2\.0"):
        fieller_set(1.0, 1.0, 1.0, 1.0, covariance=2.0)


def test_a_set_checks_itself() -> None:
    with pytest.raises(ValueError, match="no bounds"):
        RatioSet(kind="whole", lower=1.0, upper=2.0)
    with pytest.raises(ValueError, match="above upper"):
        RatioSet(kind="bounded", lower=3.0, upper=2.0)


def test_with_covariance_it_covers_what_it_should() -> None:
    rng = np.random.default_rng(6)
    covariance = np.array([[0.04, 0.018], [0.018, 0.01]])
    draws = rng.multivariate_normal([2.0, 1.0], covariance, 20_000)
    covered = np.mean([not is_rejected(2.0, a, 0.2, b, 0.1, covariance=0.018) for a, b in draws])
    ignored = np.mean([not is_rejected(2.0, a, 0.2, b, 0.1) for a, b in draws])
    assert covered == pytest.approx(0.95, abs=0.005)
    assert ignored > 0.999


def test_delta_and_bootstrap_agree_with_fieller_where_all_three_hold() -> None:
    rng = np.random.default_rng(7)
    arms, means = [], []
    for scale in (1.05, 1.0):
        sends = rng.poisson(5 * scale, 20_000)
        values, users = np.unique(sends, return_counts=True)
        arms.append((values, np.ones_like(values), users))
        means.append(
            ArmMean(
                mean=sends.mean(),
                standard_error=sends.std(ddof=1) / math.sqrt(len(sends)),
                num_users=len(sends),
            )
        )
    exact = lift_of(*means)
    delta = delta_interval(*means)
    bootstrap = bootstrap_interval(*arms, seed=1)
    assert exact.lower_pct is not None
    for interval in (delta, bootstrap):
        assert interval.estimate == pytest.approx(exact.estimate_pct)
        assert interval.lower == pytest.approx(exact.lower_pct, abs=0.06)
        assert interval.upper == pytest.approx(exact.upper_pct, abs=0.06)


def run_lift(*arguments: str) -> dict:
    done = CliRunner().invoke(app, ["ab", "lift", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_command_line_gives_the_five_keys_of_each_kind() -> None:
    same = ("--test-mean", "1", "--control-mean", "1")
    bounded = run_lift(*same, "--test-se", ".2", "--control-se", ".2")
    assert bounded == {
        "estimate_pct": 0.0,
        "kind": "bounded",
        "lower_pct": pytest.approx(-44.77885115648209),
        "upper_pct": pytest.approx(81.0900390416967),
        "significant": False,
    }
    complement = run_lift(*same, "--test-se", ".7", "--control-se", ".7")
    assert complement["kind"] == "complement"
    assert complement["lower_pct"] == pytest.approx(100 * (-1.666819670953237 - 1))
    whole = run_lift(*same, "--test-se", ".75", "--control-se", ".75")
    assert (whole["kind"], whole["lower_pct"], whole["upper_pct"]) == ("whole", None, None)


def test_the_command_line_takes_a_covariance_and_a_critical_value() -> None:
    common = ("--test-mean", "14", "--test-se", "3", "--control-mean", "7", "--control-se", "2")
    narrow = run_lift(*common, "--cov", "5.9", "--critical", "2.228139")
    wide = run_lift(*common, "--critical", "2.228139")
    assert wide["upper_pct"] == pytest.approx(483.6049746828989)
    assert narrow["upper_pct"] < wide["upper_pct"]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (("nan", "1", "1", "1"), "test mean nan"),
        (("1", "1", "0", "0"), "control arm has no engagement at all"),
    ],
)
def test_the_command_line_says_what_is_wrong(numbers: tuple[str, ...], said: str) -> None:
    names = ("--test-mean", "--test-se", "--control-mean", "--control-se")
    given = [word for pair in zip(names, numbers, strict=True) for word in pair]
    done = CliRunner().invoke(app, ["ab", "lift", *given, "--json"])
    assert done.exit_code == 1
    assert said in " ".join(done.output.split())
