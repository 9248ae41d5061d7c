"""The whole RL loop inline with fake engines: Eq. 8's numbers, resume, stop rule, versions."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from flywheel_core.errors import TrainingError
from flywheel_core.sampling.rejection import Standard
from flywheel_core.training.config import LaunchConfig
from flywheel_core.training.grpo import read_grpo_result, train_grpo
from flywheel_core.training.grpo_config import GrpoConfig
from flywheel_core.training.grpo_generation import EngineGeneration
from flywheel_core.training.grpo_records import GrpoResult
from flywheel_core.training.grpo_reward import RewardFunction
from flywheel_core.training.grpo_trainer import build_trainer
from tests.engines.tiny import TinyModels, make_tiny_models, messages
from tests.training.rl_fakes import FakeRlEngines, write_prompts

INLINE = LaunchConfig(mode="inline")
CONFIG = GrpoConfig(
    max_steps=6,
    prompts_per_step=2,
    num_generations=4,
    learning_rate=1e-3,
    warmup_steps=0,
    max_completion_tokens=6,
    long_response_start_tokens=5,
    stop_every_steps=2,
    checkpoint_every_steps=2,
    num_kept_checkpoints=2,
    ema_alpha=0.3,
    ema_sync_steps=1,
    importance_ratio_max=1.2,
    beta=0.3,
)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return make_tiny_models(tmp_path_factory.mktemp("rl"))


def train(
    folder: Path, models: TinyModels, engines: FakeRlEngines, config: GrpoConfig = CONFIG
) -> GrpoResult:
    folder.mkdir(exist_ok=True)
    prompts, stop = write_prompts(folder)
    train_grpo(
        {
            "config": config.model_dump(),
            "launch": INLINE.model_dump(),
            "model": str(models.policy),
            "reward_models": {"reward": str(models.reward_user)},
            "prompts": str(prompts),
            "stop_prompts": str(stop),
            "output": str(folder / "out"),
            "standards": {},
            "surface_of": {},
            "stop_sampling": {"max_tokens": 6},
            "engines": engines,
        }
    )
    return read_grpo_result(folder / "out")


def fake(models: TinyModels, **options: Any) -> FakeRlEngines:
    return FakeRlEngines(len(models.tokenizer), **options)


def weights(model_dir: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(model_dir).state_dict()
    return state


def reference_eq8(model: Any, batch: dict[str, Any], config: GrpoConfig) -> torch.Tensor:
    """Eq. 8 negated, in float64 and from the paper: −E[(π_old/π_gen) min(ρA, clip(ρ)A)] + β KL."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    size = batch["completion_ids"].shape[1]
    logits = model(ids, attention_mask=mask).logits[:, -size - 1 : -1] / config.temperature
    logps = logits.log_softmax(-1).gather(2, batch["completion_ids"][..., None])[..., 0]
    old, gen = batch["old_per_token_logps"].double(), batch["sampling_per_token_logps"].double()
    advantage = batch["advantages"].double()[:, None]
    rho = (logps - old).exp()
    clipped = rho.clamp(1 - config.epsilon, 1 + config.epsilon)
    correction = (old - gen).exp().clamp(max=config.importance_ratio_max)
    objective = correction * torch.minimum(rho * advantage, clipped * advantage)
    gap = batch["ref_per_token_logps"].double() - logps
    kl = gap.exp() - gap - 1
    kept = batch["completion_mask"].double()
    per_sequence = ((objective - config.beta * kl) * kept).sum(1) / kept.sum(1)
    return -per_sequence.mean()


def test_loss_and_gradient_are_eq8(models: TinyModels, tmp_path: Path) -> None:
    engines = fake(models)
    reward = RewardFunction(
        engines, {"reward": models.reward_user}, {"reward": Standard(0.0, 1.0)}, CONFIG
    )
    trainer = build_trainer(
        CONFIG,
        INLINE,
        engines,
        reward,
        model_dir=models.policy,
        prompts=[messages(number) for number in range(4)],
        output=tmp_path,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    rows = [{"prompt": messages(number)} for number in (0, 1) for _ in range(4)]
    batch = trainer._generate_and_score_completions(rows)

    scores = reward([row["prompt"] for row in rows], *decoded(trainer, batch))
    grouped = np.array(scores).reshape(2, 4)
    sd = grouped.std(axis=1, ddof=1, keepdims=True) + 1e-4
    expected = (grouped - grouped.mean(axis=1, keepdims=True)) / sd
    assert batch["advantages"].numpy() == pytest.approx(expected.reshape(-1), abs=1e-4)
    ratio = (batch["old_per_token_logps"] - batch["sampling_per_token_logps"]).exp()
    assert (ratio * batch["completion_mask"]).max() > 1.2, "the cap must matter in this test"

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # π_θ moves away from π_old, so that clipping matters
        for parameter in trainer.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    exact = AutoModelForCausalLM.from_pretrained(models.policy, dtype=torch.float64)
    exact.load_state_dict({k: v.double() for k, v in trainer.model.state_dict().items()})
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    wanted = reference_eq8(exact, batch, CONFIG)
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-6)
    for (name, mine), other in zip(
        trainer.model.named_parameters(), exact.parameters(), strict=True
    ):
        gap = (mine.grad.double() - other.grad).norm() / other.grad.norm()
        assert gap < 1e-4, f"{name}: gradient differs by {gap:.1e}"
    trainer.vllm_generation.close()


def decoded(trainer: Any, batch: dict[str, Any]) -> tuple[list[Any], list[list[int]]]:
    ids = [
        [int(token) for token, kept in zip(row, mask, strict=True) if kept]
        for row, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    texts = trainer.processing_class.batch_decode(ids, skip_special_tokens=True)
    return [[{"role": "assistant", "content": text}] for text in texts], ids


def test_micro_batches_leave_the_result_alone(models: TinyModels, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"max_steps": 2})
    whole = train(tmp_path / "whole", models, fake(models), config)
    halves = train(
        tmp_path / "halves",
        models,
        fake(models),
        config.model_copy(update={"micro_batch_completions": 4}),
    )
    assert halves.history[-1].reward == pytest.approx(whole.history[-1].reward)
    first, second = weights(whole.model_dir), weights(halves.model_dir)
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=2e-4), name


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def test_killed_run_resumes_at_its_checkpoint_bit_for_bit(
    models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(tmp_path / "straight", models, fake(models))
    sample = EngineGeneration._sample

    def dies(self: Any, *args: Any) -> Any:
        if self.step() == 5:
            raise Killed
        return sample(self, *args)

    monkeypatch.setattr(EngineGeneration, "_sample", dies)
    with pytest.raises(Killed):
        train(tmp_path / "killed", models, fake(models))
    out = tmp_path / "killed" / "out"
    assert not (out / "result.json").exists()
    (out / "checkpoint-6").mkdir()  # half-written: no DONE
    monkeypatch.setattr(EngineGeneration, "_sample", sample)
    engines = fake(models)
    resumed = train(tmp_path / "killed", models, engines)
    assert engines.num_samples_calls == 2, "steps 5 and 6 only"
    assert resumed.history == straight.history
    assert resumed.win_rate_history == straight.win_rate_history
    first, second = weights(straight.model_dir), weights(resumed.model_dir)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_training_stops_at_the_win_rate(models: TinyModels, tmp_path: Path) -> None:
    result = train(tmp_path, models, fake(models, win=0.7))
    assert (result.num_steps, result.stopped_by) == (2, "win_rate")
    assert result.checkpoints[-1].win_rates == {"reward": 0.7}


def test_last_checkpoints_are_kept_as_models(models: TinyModels, tmp_path: Path) -> None:
    result = train(tmp_path, models, fake(models, win=0.4))
    assert (result.num_steps, result.stopped_by) == (6, "max_steps")
    assert [checkpoint.step for checkpoint in result.checkpoints] == [4, 6]
    assert [checkpoint.step for checkpoint in result.win_rate_history] == [2, 4, 6]
    moved = weights(result.model_dir)
    assert any(not torch.equal(value, moved[n]) for n, value in weights(models.policy).items())
    assert (result.model_dir / "tokenizer.json").is_file()
    assert len(list((tmp_path / "out").glob("checkpoint-*"))) == 2


def test_restarted_engine_is_given_its_weights_again(models: TinyModels, tmp_path: Path) -> None:
    engines = fake(models)
    engines.restart_before_sample = 1
    config = CONFIG.model_copy(update={"max_steps": 2})
    result = train(tmp_path, models, engines, config)
    straight = train(tmp_path / "straight", models, fake(models), config)
    assert result.history == straight.history
    assert len(engines.reloaded) == 4, "three syncs, one repeated"
    assert len(set(engines.reloaded)) == 3


def test_engine_that_keeps_other_weights_is_refused(models: TinyModels, tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Stubborn(FakeRlEngines):
        def __init__(self) -> None:
            super().__init__(len(models.tokenizer))

        def reload(self, weights_dir: Path, version: str) -> None:
            self.version = "base"

    with pytest.raises(Exception, match="was asked for, serving 'base'"):
        train(tmp_path, models, Stubborn())


def test_nan_sampling_logprobs_stop_the_run(models: TinyModels, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="have no log-probability"):
        train(tmp_path / "strict", models, fake(models, nan_every=1))
    lenient = copy.copy(CONFIG).model_copy(update={"nan_logprobs_max": 0.5, "max_steps": 2})
    result = train(tmp_path / "lenient", models, fake(models, nan_every=1), lenient)
    assert result.num_nan_logprobs == 2
