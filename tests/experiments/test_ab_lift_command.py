"""What `flywheel ab lift` says where the numbers are no evidence."""

import json

import pytest
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.experiments.reading import NO_VARIANCE


def lift(*more: str, test_mean: str, test_se: str = "0", control_se: str = "0") -> str:
    means = ["--test-mean", test_mean, "--control-mean", "10"]
    errors = ["--test-se", test_se, "--control-se", control_se]
    done = CliRunner().invoke(app, ["ab", "lift", *means, *errors, *more])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("test_mean", ["10", "11"])
def test_no_variance_in_either_arm_is_no_evidence(test_mean: str) -> None:
    said = lift(test_mean=test_mean)
    assert NO_VARIANCE in said
    assert "significant" not in said
    assert "would have been found" not in said


def test_variance_in_one_arm_is_evidence() -> None:
    assert "significant" in lift(test_mean="11", test_se="0.1")
    assert "would have been found" in lift(test_mean="10", control_se="0.1")


def test_the_keys_of_a_lift_without_variance_are_those_of_any() -> None:
    flat = json.loads(lift("--json", test_mean="10"))
    assert flat.keys() == json.loads(lift("--json", test_mean="10", test_se="1")).keys()
