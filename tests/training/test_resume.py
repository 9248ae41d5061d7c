"""Whole trainings in this process: what they leave, and what a killed one does when it starts
again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flywheel_core.training import common, dpo, rewards, sft
from flywheel_core.training.config import LaunchConfig
from flywheel_core.training.results import RESULT, TrainResult
from flywheel_core.training.rewards import RewardModelSpec, run_reward_models
from tests.training.toy import DPO, INLINE, SFT, Toy, largest_gap, reward_config

EVERY_STEP = INLINE.model_copy(update={"checkpoint_every_steps": 1})


def run_sft(toy: Toy, output: Path, launch: LaunchConfig = INLINE, **changes: Any) -> TrainResult:
    return sft.run_sft(
        SFT.model_copy(update={"num_epochs": 2} | changes),
        model_dir=toy.model,
        dataset_path=toy.sft,
        output_dir=output,
        launch_config=launch,
    )


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Make the training named `what` die when it has taken `step` steps, before it saves."""

    def arm(what: str, step: int) -> None:
        original = common.Watch.on_step_end

        def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.what == what and state.global_step == step:
                monkeypatch.setattr(common.Watch, "on_step_end", original)
                raise Killed
            original(self, args, state, control, **kwargs)

        monkeypatch.setattr(common.Watch, "on_step_end", on_step_end)

    return arm


def test_sft_leaves_plain_models(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_sft(toy, tmp_path)
    assert [(saved.step, saved.epoch) for saved in result.checkpoints] == [(3, 1.0), (6, 2.0)]
    assert result.model_dir == result.checkpoints[-1].path
    files = {path.name for path in result.model_dir.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= files
    assert not [name for name in files if "optimizer" in name or name == "trainer_state.json"]
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    assert result.metrics["rows"] == 12
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split("/")[0] for line in lines] == [
        f"progress: sft steps {n}" for n in range(1, 7)
    ]


def test_a_killed_training_ends_as_if_nothing_had_been(
    toy: Toy, tmp_path: Path, kill_after: Callable[[str, int], None]
) -> None:
    whole = run_sft(toy, tmp_path / "whole", EVERY_STEP)
    kill_after("sft steps", 5)
    with pytest.raises(Killed):
        run_sft(toy, tmp_path / "killed", EVERY_STEP)
    assert not (tmp_path / "killed" / RESULT).exists()
    half = tmp_path / "killed" / "checkpoint-5"  # newer, but without its mark
    half.mkdir()
    (half / "model.safetensors").write_text("torn")
    again = run_sft(toy, tmp_path / "killed", EVERY_STEP)
    assert largest_gap(whole.model_dir, again.model_dir) == 0
    assert largest_gap(whole.checkpoints[0].path, again.checkpoints[0].path) == 0
    assert again.metrics["last_loss"] == whole.metrics["last_loss"]
    kept = sorted(path.name for path in (tmp_path / "killed").glob("checkpoint-*"))
    assert kept == ["checkpoint-5", "checkpoint-6"]


def test_killed_between_the_last_step_and_the_result(toy: Toy, tmp_path: Path) -> None:
    first = run_sft(toy, tmp_path)
    before = (first.model_dir / "model.safetensors").read_bytes()
    (tmp_path / RESULT).unlink()
    again = run_sft(toy, tmp_path)
    assert (again.model_dir / "model.safetensors").read_bytes() == before
    assert again.checkpoints == first.checkpoints


def test_a_finished_training_is_not_repeated(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_sft(toy, tmp_path)
    monkeypatch.setattr(sft, "launch", lambda *_: pytest.fail("trained again"))
    assert run_sft(toy, tmp_path) == first


def test_dpo_moves_towards_the_chosen(toy: Toy, tmp_path: Path) -> None:
    result = dpo.run_dpo(
        DPO.model_copy(update={"num_epochs": 4}),
        model_dir=toy.model,
        dataset_path=toy.pairs,
        output_dir=tmp_path,
        launch_config=INLINE,
    )
    assert result.metrics["first_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    assert result.metrics["rows_tied"] == 3
    assert largest_gap(toy.model, result.model_dir) > 0


def specs(toy: Toy) -> list[RewardModelSpec]:
    return [
        RewardModelSpec("pairs", reward_config("pointwise"), toy.pairs, toy.pairs),
        RewardModelSpec("cross", reward_config("pairwise"), toy.pairs, toy.pairs),
        RewardModelSpec("thumb", reward_config("signal"), toy.signals, toy.signals),
    ]


def test_reward_models_in_one_launch_and_after_a_kill(
    toy: Toy,
    tmp_path: Path,
    kill_after: Callable[[str, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(output: Path) -> rewards.RewardTrainingResult:
        return run_reward_models(
            specs(toy), model_dir=toy.model, output_dir=output, launch_config=EVERY_STEP
        )

    whole = run(tmp_path / "whole")
    assert {"accuracy", "accuracy_unanimous", "log_loss"} <= whole.reports["pairs"].keys()
    assert whole.reports["cross"]["held_out_rows"] == 24
    assert whole.reports["cross"]["decided_rows"] == 9
    assert {"auc", "ece", "log_loss", "base_rate"} <= whole.reports["thumb"].keys()

    kill_after("cross", 4)
    with pytest.raises(Killed):
        run(tmp_path / "killed")
    finished = tmp_path / "killed" / "pairs" / RESULT
    written_ns = finished.stat().st_mtime_ns
    again = run(tmp_path / "killed")
    assert finished.stat().st_mtime_ns == written_ns
    for name in whole.model_dirs:
        assert largest_gap(whole.model_dirs[name], again.model_dirs[name]) == 0

    monkeypatch.setattr(rewards, "launch", lambda *_: pytest.fail("trained again"))
    assert run(tmp_path / "killed") == again


def test_every_row_is_taken_once_an_epoch_in_an_order_of_seed_and_epoch() -> None:
    from flywheel_core.training.reward_trainer import ByLength

    lengths = [(7 * n) % 31 for n in range(103)]
    order = ByLength(lengths, 8, seed=1)
    first = list(order)
    assert sorted(first) == list(range(103))
    assert first == list(ByLength(lengths, 8, seed=1))
    order.set_epoch(1)
    assert list(order) != first
    waste = [
        max(lengths[i] for i in batch) - min(lengths[i] for i in batch)
        for batch in (first[start : start + 8] for start in range(0, 96, 8))
    ]
    assert sum(waste) / len(waste) < 6  # of 31
