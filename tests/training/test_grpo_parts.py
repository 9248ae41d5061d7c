"""RL's parts that need no training: config, reward, stop rule, EMA, shards, rollout checks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open

from flywheel_core.engines.config import SamplingConfig
from flywheel_core.errors import ConfigError, InputDataError, TrainingError
from flywheel_core.sampling.rejection import Standard
from flywheel_core.training import grpo_generation
from flywheel_core.training.grpo_config import GrpoConfig
from flywheel_core.training.grpo_ema import EmaReference
from flywheel_core.training.grpo_engines import Rollout
from flywheel_core.training.grpo_generation import check_logprobs, write_shards
from flywheel_core.training.grpo_reward import combined_reward, length_penalty, weights_of
from flywheel_core.training.grpo_stop import StopRule, read_stop_prompts
from tests.training.rl_fakes import FakeRlEngines, write_prompts

CONFIG = GrpoConfig(max_completion_tokens=100, long_response_start_tokens=60)


def test_penalty_that_never_applies_is_refused() -> None:
    with pytest.raises(ValidationError, match="the penalty never applies"):
        GrpoConfig(max_completion_tokens=50, long_response_start_tokens=60)


def test_length_penalty_starts_rises_and_ends() -> None:
    assert length_penalty([10, 60, 80, 100, 130], CONFIG).tolist() == [0, 0, 0.5, 1, 1]


def test_reward_is_the_weighted_standardised_mean_minus_the_penalty() -> None:
    scores = {"a": np.float32([3.0, 5.0]), "b": np.float32([10.0, 40.0])}
    standards = {"a": Standard(3.0, 2.0), "b": Standard(20.0, 10.0)}
    config = CONFIG.model_copy(update={"reward_weights": {"a": 3.0}})
    reward = combined_reward(scores, standards, [10, 100], config)
    assert reward == pytest.approx([0.75 * 0 + 0.25 * -1, 0.75 * 1 + 0.25 * 2 - 1])


def test_unknown_reward_weights_and_bad_scores_are_refused() -> None:
    with pytest.raises(ConfigError, match="names typo"):
        weights_of(["a"], {"typo": 1.0})
    with pytest.raises(ConfigError, match="positive sum"):
        weights_of(["a"], {"a": 0.0})
    with pytest.raises(TrainingError, match="a gave 1 non-finite"):
        combined_reward({"a": np.float32([np.nan])}, {"a": Standard(0, 1)}, [1], CONFIG)


def test_win_rates_use_each_models_own_prompts(tmp_path: Path) -> None:
    prompts = read_stop_prompts(write_prompts(tmp_path)[1])
    engines = FakeRlEngines(100, win=0.3)
    engines.version = "v"
    models = {"internal_model": Path("i"), "user_model": Path("u"), "all": Path("a")}
    surface_of = {"internal_model": "internal", "user_model": "user"}
    stop = StopRule(engines, models, prompts, SamplingConfig(), surface_of)
    rates = stop.win_rates("v", lambda request: request())
    assert rates == pytest.approx({"internal_model": 0.4, "user_model": 0.2, "all": 0.3})
    assert stop.standards()["all"].sd > 0


def test_stop_prompts_must_be_there(tmp_path: Path) -> None:
    prompts_path, stop_path = write_prompts(tmp_path)
    with pytest.raises(InputDataError, match="no column production_response"):
        read_stop_prompts(prompts_path)
    with pytest.raises(InputDataError, match="surface of m"):
        StopRule(
            FakeRlEngines(9),
            {"m": Path("m")},
            read_stop_prompts(stop_path),
            SamplingConfig(),
            {"m": "elsewhere"},
        )


def two_models(dtype: torch.dtype) -> tuple[Any, Any]:
    torch.manual_seed(0)
    policy = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)).to(dtype)
    reference = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)).to(dtype)
    return policy, reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ema_goes_where_the_formula_says(dtype: torch.dtype) -> None:
    """In bf16 too: 100 steps of alpha 0.01 go 1 − 0.99^100 = 0.634 of the way."""
    policy, reference = two_models(dtype)
    start = [parameter.double().clone() for parameter in reference.parameters()]
    ema = EmaReference(reference, alpha=0.01, every_steps=2)
    taken = [ema.after_step(policy, step) for step in range(1, 201)]
    assert sum(taken) == 100
    tolerance = 1e-5 if dtype == torch.float32 else 5e-3
    for now, before, target in zip(reference.parameters(), start, policy.parameters(), strict=True):
        expected = before + (1 - 0.99**100) * (target.double() - before)
        assert torch.allclose(now.double(), expected, atol=tolerance)


def test_ema_is_saved_and_restored_exactly(tmp_path: Path) -> None:
    policy, reference = two_models(torch.bfloat16)
    ema = EmaReference(reference, alpha=0.01, every_steps=1)
    for step in range(1, 6):
        ema.after_step(policy, step)
    ema.save(tmp_path, rank=0)
    _, other = two_models(torch.bfloat16)
    restored = EmaReference(other, alpha=0.01, every_steps=1)
    restored.restore(tmp_path, rank=0)
    for step in range(6, 30):
        ema.after_step(policy, step)
        restored.after_step(policy, step)
    for left, right in zip(reference.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_ema_of_another_world_is_refused(tmp_path: Path) -> None:
    _, reference = two_models(torch.float32)
    with pytest.raises(TrainingError, match="no reference for rank 1"):
        EmaReference(reference, 0.1, 1).restore(tmp_path, rank=1)
    EmaReference(torch.nn.Linear(3, 3), 0.1, 1).save(tmp_path, rank=0)
    with pytest.raises(TrainingError, match="resume with as many workers"):
        EmaReference(torch.nn.Linear(2, 2), 0.1, 1).restore(tmp_path, rank=0)


def test_weights_are_written_in_bounded_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpo_generation, "SHARD_BYTES", 100)
    tensors = [(f"t{n}", torch.full((5, 3), float(n))) for n in range(4)]
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "stale.safetensors").touch()
    write_shards(iter(tensors), tmp_path / "w")
    files = sorted((tmp_path / "w").glob("*.safetensors"))
    assert len(files) == 4
    index = json.loads((tmp_path / "w" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in files}
    read = {}
    for file in files:
        with safe_open(file, "pt") as shard:
            read |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors)


def test_missing_sampling_logprobs_are_gated() -> None:
    rollout = Rollout([[1, 2], [3, 4]], [[-1.0, float("nan")], [-1.0, -1.0]], 1)
    check_logprobs(rollout, share_max=0.25)
    with pytest.raises(TrainingError, match="1 of 4 sampled tokens have no log-probability"):
        check_logprobs(rollout, share_max=0.0)
