"""A signal model may start from another checkpoint than the preference models (§2.3.2)."""

import json
from pathlib import Path

from flywheel_core.training.rewards import RewardModelSpec, run_reward_models
from tests.training.toy import INLINE, Toy, reward_config


def test_each_model_starts_from_its_own_checkpoint(toy: Toy, tmp_path: Path) -> None:
    other = toy.model.parent / "other_shape"
    specs = [
        RewardModelSpec("pointwise_user", reward_config("pointwise"), toy.pairs, toy.pairs),
        RewardModelSpec("signal_love", reward_config("signal"), toy.signals, toy.signals, other),
    ]
    result = run_reward_models(
        specs, model_dir=toy.model, output_dir=tmp_path, launch_config=INLINE
    )
    widths = {
        name: json.loads((folder / "config.json").read_text())["hidden_size"]
        for name, folder in result.model_dirs.items()
    }
    assert widths == {"pointwise_user": 64, "signal_love": 96}
    assert result.reports["signal_love"]["steps"] == 3
