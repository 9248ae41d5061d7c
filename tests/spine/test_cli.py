"""The command line as a person and a program meet it; no engine is started."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.pointers import Pointer
from flywheel_core.recipe import RECIPE_FOLDER
from flywheel_core.store import LocalStore

TABLES = Path(__file__).resolve().parents[3] / "shared" / "reference" / "paper_tables.json"
runner = CliRunner()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    monkeypatch.delenv("FLYWHEEL_POLICY", raising=False)
    return tmp_path


@pytest.mark.parametrize("recipe", ["tiny_cpu", "llama31_70b", "topical_chat"])
def test_every_recipe_plans_as_json(recipe: str, home: Path) -> None:
    done = runner.invoke(app, ["plan", "-r", recipe, "--json"])
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    names = [stage["name"] for stage in plan["stages"]]
    assert names[0] == "traffic"
    assert names[-1] == "evaluate"
    sizes = {stage["name"]: stage for stage in plan["stages"]}
    if recipe == "llama31_70b":
        assert plan["num_parameters"] == 70_553_706_496
        assert 0 < sizes["rl"]["rank_gib"] < 80
        assert sizes["sft"]["gpu_hours"] > 0


def test_a_wrong_recipe_is_one_clear_message() -> None:
    done = runner.invoke(app, ["plan", "-r", "no_such"])
    assert done.exit_code == 1
    assert "no_such" in done.stderr
    assert "tiny_cpu" in done.stderr
    assert "Traceback" not in done.output + done.stderr


def test_a_missing_model_path_is_named(home: Path) -> None:
    from flywheel_core.recipe import RECIPE_FOLDER

    recipe = home / "mine.yaml"
    text = (RECIPE_FOLDER / "tiny_cpu.yaml").read_text()
    recipe.write_text(text.replace("builtin:tiny ", "/no/such/model "))
    done = runner.invoke(app, ["climb", "--local", "-r", str(recipe)])
    assert done.exit_code == 1
    assert "/no/such/model" in done.stderr


@pytest.mark.skipif(not TABLES.is_file(), reason="../shared/reference is not beside this checkout")
def test_replay_blocks_exactly_what_the_paper_learned() -> None:
    done = runner.invoke(app, ["gate", "replay", str(TABLES), "--json"])
    assert done.exit_code == 0, done.output
    launches = json.loads(done.stdout)
    blocked = {
        gate: [one["version"] for one in launches if one["gates"][gate]["verdict"] == "block"]
        for gate in ("rm_win_rate", "rm_divergence")
    }
    assert blocked == {"rm_win_rate": ["V10", "V11", "V12", "V14"], "rm_divergence": ["V12"]}


def test_metrics_that_lack_evidence_do_not_pass(home: Path) -> None:
    metrics = home / "metrics.json"
    metrics.write_text(
        json.dumps({"candidate": "c", "parent": "p", "evidence_phase": "post_launch"})
    )
    done = runner.invoke(app, ["gate", "--metrics", str(metrics), "--json"])
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert said["outcome"] == "insufficient"
    assert {verdict["gate"] for verdict in said["verdicts"]} >= {"rm_win_rate", "safety", "data"}


def test_metrics_that_are_no_metrics_are_refused(home: Path) -> None:
    metrics = home / "metrics.json"
    metrics.write_text("{}")
    done = runner.invoke(app, ["gate", "--metrics", str(metrics)])
    assert done.exit_code == 1
    assert "candidate" in done.stderr


def test_freeze_and_rollback_work_without_airflow(home: Path) -> None:
    store = LocalStore(str(home / "store"))
    pointer = Pointer(store, "tiny", "production")
    for number in (1, 2):
        pointer.append(
            {
                "ref": {"flywheel": "tiny", "generation": number - 1, "stage": "s", "key": "k"},
                "digest": str(number),
            },
            by="test",
            reason="made for the test",
        )
    by = ["--by", "on_call", "--reason", "it swears"]
    assert runner.invoke(app, ["freeze", *by]).exit_code == 0
    frozen = Pointer(store, "tiny", "freeze").newest()
    assert frozen is not None
    assert frozen.value["frozen"] is True
    assert runner.invoke(app, ["rollback", *by]).exit_code == 0
    newest = pointer.newest()
    assert newest is not None
    assert (newest.number, newest.value["digest"], newest.by) == (3, "1", "on_call")
    status = json.loads(runner.invoke(app, ["status", "--json"]).stdout)
    assert status["flywheels"]["tiny"]["frozen"] is True


def test_a_dry_run_says_what_would_run_and_writes_nothing(home: Path) -> None:
    done = runner.invoke(app, ["climb", "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    seen = json.loads(done.stdout)
    assert (seen["generation"], len(seen["stages"])) == (1, 9)
    assert not any(stage["cached"] for stage in seen["stages"])
    assert LocalStore(str(home / "store")).list("") == []
    refused = runner.invoke(app, ["climb", "--dry-run", "--start-from", "rl"])
    assert refused.exit_code == 1
    assert "start_from: 'rl' was asked for" in refused.stderr
    assert "start from 'traffic' or earlier" in " ".join(refused.stderr.split())


def test_doctor_parses_every_recipe_and_policy() -> None:
    done = runner.invoke(app, ["doctor", "--recipes"])
    assert done.exit_code == 0, done.output
    assert "FAIL" not in done.output


def test_an_error_is_told_whole_with_what_stands_in_brackets(home: Path, tmp_path: Path) -> None:
    """Rich would take `[user_signals_in_rl]`, which the error says to write, for a style."""
    data = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data["rl"]["reward_weights"] = {"signal_love": 1.0}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    refused = runner.invoke(app, ["plan", "--recipe", str(tmp_path / "mine.yaml")])
    assert refused.exit_code == 1
    assert "allows: [user_signals_in_rl]})" in refused.stderr
