"""RL with the real engines: inline in this process, and under Ray Train with ZeRO-3."""

from pathlib import Path

import pytest

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.environment import prepare_environment
from flywheel_core.engines.pool import EnginePool
from flywheel_core.training.config import LaunchConfig
from flywheel_core.training.grpo import run_grpo
from flywheel_core.training.grpo_config import GrpoConfig
from flywheel_core.training.grpo_records import GrpoResult
from tests.engines.tiny import make_tiny_models
from tests.training.rl_fakes import write_prompts

pytestmark = [pytest.mark.heavy]

ENGINE = EngineConfig(num_threads=1, max_model_len=256)
CONFIG = GrpoConfig(
    max_steps=4,
    prompts_per_step=4,
    num_generations=4,
    learning_rate=1e-2,
    warmup_steps=0,
    max_completion_tokens=16,
    long_response_start_tokens=12,
    stop_every_steps=2,
    checkpoint_every_steps=2,
    stop_win_rate=1.0,
)


def train(folder: Path, launch: LaunchConfig, pool: EnginePool | None) -> GrpoResult:
    prepare_environment(ENGINE)
    models = make_tiny_models(folder)
    prompts, stop = write_prompts(folder)
    return run_grpo(
        CONFIG,
        model_dir=models.policy,
        reward_models={"internal": models.reward_internal, "user": models.reward_user},
        prompts_path=prompts,
        stop_prompts_path=stop,
        output_dir=folder / "out",
        launch_config=launch,
        engine=ENGINE,
        engines=pool,
        surface_of={"internal": "internal", "user": "user"},
    )


def check(result: GrpoResult) -> None:
    """The sampler serves the trainer's weights at every step, or the gap would be large."""
    assert result.history
    assert max(record.logprob_gap_max for record in result.history) < 1e-3
    assert all(abs(record.importance_ratio - 1) < 1e-3 for record in result.history)
    assert result.history[-1].kl > 0
    assert set(result.checkpoints[-1].win_rates) == {"internal", "user"}


def test_inline_shares_the_pools_engines(tmp_path: Path) -> None:
    pool = EnginePool(ENGINE)
    check(train(tmp_path, LaunchConfig(mode="inline"), pool))
    pool.close()


def test_ray_train_with_zero3(tmp_path: Path) -> None:
    import ray

    try:
        check(train(tmp_path, LaunchConfig(num_workers=2), None))
    finally:
        ray.shutdown()
