"""Configurations that cannot run, steps and checkpoints, and the one error that explains a
failed launch."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from flywheel_core.errors import ConfigError, InputDataError, TrainingError
from flywheel_core.training import checkpoints, launcher
from flywheel_core.training.config import DpoConfig, LaunchConfig, SftConfig
from flywheel_core.training.results import export_model, read_result, write_result

LIGHT = (
    *("checkpoints", "config", "data", "dpo", "launcher", "results"),
    *("reward_metrics", "rewards", "sft"),
)
HEAVY = ("torch", "ray", "transformers", "trl", "datasets")


def test_what_a_driver_imports_is_light() -> None:
    code = (
        "import sys\n"
        + "\n".join(f"import flywheel_core.training.{name}" for name in LIGHT)
        + f"\nprint([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "a rank on cuda needs a GPU"),
        ({"gpus_per_worker": 1}, "a rank on the cpu takes 0"),
        ({"num_workers": 0}, "greater than or equal to 1"),
        ({"workers": 2}, "Extra inputs are not permitted"),
        ({"zero_stage": 1}, "Input should be 2 or 3"),
    ],
)
def test_launch_configurations_that_cannot_run(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LaunchConfig.model_validate(changes)


def test_a_misspelt_hyper_parameter_is_an_error() -> None:
    good = {
        "learning_rate": 1e-5,
        "num_epochs": 1,
        "global_batch_size": 8,
        "max_length_tokens": 64,
    }
    SftConfig.model_validate(good)
    with pytest.raises(ValidationError, match="Extra inputs"):
        SftConfig.model_validate(good | {"learning_rat": 1})
    with pytest.raises(ValidationError, match="greater than 0"):
        DpoConfig.model_validate(good | {"beta": 0})


def test_batches_must_divide() -> None:
    from flywheel_core.training.common import rows_per_device

    two = LaunchConfig(num_workers=2)
    assert rows_per_device(32, two) == (16, 1)
    assert rows_per_device(32, two.model_copy(update={"rows_per_device_max": 4})) == (4, 4)
    with pytest.raises(ConfigError, match="global_batch_size 3 cannot be split over 2 ranks"):
        rows_per_device(3, two)
    with pytest.raises(ConfigError, match="rows_per_device_max 5 does not divide a rank's 16"):
        rows_per_device(32, two.model_copy(update={"rows_per_device_max": 5}))


def test_planned_checkpoints_are_evenly_spaced_and_end_with_the_last_step() -> None:
    from flywheel_core.training.common import planned_steps

    assert planned_steps(32, 4) == [8, 16, 24, 32]
    assert planned_steps(10, 3) == [3, 7, 10]
    assert planned_steps(2, 4) == [1, 2]


def group_error(**ranks: Exception) -> Exception:
    error = RuntimeError("Training failed due to worker errors")
    error.worker_failures = {int(rank[1:]): failure for rank, failure in ranks.items()}  # type: ignore[attr-defined]
    return error


class ActorDiedError(RuntimeError):
    """As Ray calls it."""


def test_the_cause_is_told_not_the_lost_connection() -> None:
    lost = RuntimeError("gloo: Connection closed by peer")
    failure = launcher.first_failure(group_error(r0=lost, r1=InputDataError("a.parquet: no rows")))
    assert str(failure) == "rank 1: InputDataError: a.parquet: no rows"
    assert failure.repeats
    failure = launcher.first_failure(group_error(r0=lost, r1=ActorDiedError("killed")))
    assert str(failure).startswith("rank 1: its process died without an error of its own")
    assert not failure.repeats


@pytest.mark.parametrize(
    ("error", "tries"), [(RuntimeError("connection lost"), 3), (ValueError("bad"), 1)]
)
def test_only_what_may_pass_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, tries: int
) -> None:
    counted = []
    monkeypatch.setattr(launcher, "join_ray", lambda config: None)
    monkeypatch.setattr(
        launcher, "_fit", lambda *_: counted.append(1) or launcher.Failure("rank 0", error)
    )
    with pytest.raises(TrainingError, match=f"failed on rank 0: {type(error).__name__}: {error}"):
        launcher.launch(print, {}, LaunchConfig(max_failures=2), tmp_path)
    assert len(counted) == tries


def test_only_marked_checkpoints_count(tmp_path: Path) -> None:
    for step in (2, 10, 4, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step != 12:
            checkpoints.mark_done(tmp_path / f"checkpoint-{step}")
    assert checkpoints.latest_done(tmp_path) == tmp_path / "checkpoint-10"
    checkpoints.drop_half_written(tmp_path)
    checkpoints.keep_newest(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-4"]


def test_an_export_leaves_optimiser_state_behind(tmp_path: Path) -> None:
    source = tmp_path / "checkpoint-3"
    source.mkdir()
    for name in ("model.safetensors", "config.json", "optimizer.pt", "trainer_state.json", "DONE"):
        (source / name).write_text(name)
    export_model(source, tmp_path / "models" / "000003")
    export_model(source, tmp_path / "models" / "000003")  # a second try replaces the first
    kept = sorted(path.name for path in (tmp_path / "models" / "000003").iterdir())
    assert kept == ["config.json", "model.safetensors"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["000003"]


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_result(tmp_path, {"checkpoints": [(3, 0.5), (6, 1.0)], "metrics": {"steps": 6}})
    result = read_result(tmp_path)
    assert [(saved.step, saved.epoch) for saved in result.checkpoints] == [(3, 0.5), (6, 1.0)]
    assert result.model_dir == tmp_path / "models" / "000006"
    assert result.metrics == {"steps": 6}
