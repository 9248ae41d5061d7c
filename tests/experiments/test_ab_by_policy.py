"""`flywheel ab analyze --policy` reads as the flow of that policy does."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ab_samples import clean_logs
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.errors import ConfigError
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.command import readout_config
from flywheel_core.experiments.config import ExperimentRule, GuardrailConfig, ReadoutConfig
from flywheel_core.release.policy import load_policy
from flywheel_core.release.ramping import run_day
from tests.experiments.ab_store import EXPERIMENT, FLYWHEEL, day, log_days, open_store

RULE: dict[str, Any] = {
    "num_days": 6,
    "test_share": 0.2,
    "control_share": 0.15,
    "alpha": 0.01,
    "target_power": 0.9,
    "clock_skew_s": 5.0,
    "max_sends_per_day": 400,
    "max_programs_share": 0.2,
    "max_in_both_arms_share": 0.02,
    "breakdowns": ["locale"],
    "guardrails": [{"column": "reports", "harm": "down"}],
    "metric_guardrails": ["depth"],
    "expected_lifts_pct": {"breadth": 1.0, "depth": 2.0, "depth_per_assigned_user": 3.0},
    "expected_guardrail_lift_pct": 7.0,
    "eligibility": {"min_days_since_joined": 3},
}
DEFAULT = ExperimentRule().model_dump(mode="json")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"release_managers": ["rm"], "experiment": RULE}))
    return path


def told(folders: tuple[Path, Path], *more: str) -> dict[str, Any]:
    where = ["--exposures", str(folders[0]), "--events", str(folders[1]), "--json"]
    done = CliRunner().invoke(app, ["ab", "analyze", *where, *more])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_configuration_is_the_flows(policy: Path) -> None:
    assert RULE.keys() == ExperimentRule.model_fields.keys()
    assert all(RULE[name] != DEFAULT[name] for name in RULE)
    assert readout_config(policy) == ReadoutConfig.under(load_policy(policy).experiment)
    assert readout_config(None) == ReadoutConfig()


def test_the_reading_is_the_flows(policy: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    config = ReadoutConfig.under(load_policy(policy).experiment)
    shares = {name: RULE[name] for name in ("test_share", "control_share")}
    log_days(store, 0.6, Allocation(experiment_id=EXPERIMENT.experiment_id, **shares), day(0), 6)
    for number in range(6):
        run = run_day(store, FLYWHEEL, EXPERIMENT, day(number), config)
    assert run.readout is not None
    flow = run.readout.model_dump(mode="json")
    assert flow["days"][-1]["is_last_day"]
    assert flow["days"][-1]["status"] == "ok"
    logs = tmp_path / "store" / FLYWHEEL / "experiments" / EXPERIMENT.experiment_id
    folders = logs / "exposures", logs / "events"
    read = told(folders, "--policy", str(policy))
    for part in ("first_day", "num_days", "days", "exploratory", "left_out"):
        assert read[part] == flow[part]
    assert told(folders, "--num-days", "6")["days"] != flow["days"]


def test_explicit_options_take_the_place_of_the_policys(policy: Path, tmp_path: Path) -> None:
    given = readout_config(
        policy,
        num_days=3,
        test_share=None,
        guardrails=[{"column": "sends", "harm": "up"}],
        max_sends_per_day=50,
    )
    expected = {
        "num_days": 3,
        "guardrails": (GuardrailConfig(column="sends"),),
        "max_sends_per_day": 50,
    }
    assert given == readout_config(policy).model_copy(update=expected)
    folders = clean_logs(400).write(tmp_path / "logs")
    read = told(folders, "--policy", str(policy), "--num-days", "3", "--test-share", "0.15")
    assert read["num_days"] == 3
    assert read["days"][-1]["status"] == "ok"
    assert "reports" in read["days"][-1]["guardrails"]


def test_what_is_wrong_with_the_two_together_is_said(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test_share 0\.9 and control_share 0\.15: together"):
        readout_config(policy, test_share=0.9)
    with pytest.raises(ConfigError, match="cannot be read"):
        readout_config(tmp_path / "nowhere.yaml")
