"""Online RL: GRPO with importance correction and an averaged reference (§2.4.3, Eq. 8).

The same code runs under Ray Train with DeepSpeed ZeRO-3 and engines in Ray actors, and inline with
one rank and engines in this process. Output folder:

    checkpoint-N/   resumable: model, optimiser, RNG, π_ref, records; DONE is written last
    models/000010/  plain model folders, one for each stop measurement; the last few are kept
    result.json     written last
"""

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywheel_core.engines.config import EngineConfig, SamplingConfig
from flywheel_core.engines.pool import EnginePool
from flywheel_core.errors import ConfigError, TrainingError
from flywheel_core.sampling.rejection import Standard
from flywheel_core.training import launcher
from flywheel_core.training.checkpoints import DONE, latest_done
from flywheel_core.training.config import LaunchConfig
from flywheel_core.training.grpo_config import GrpoConfig
from flywheel_core.training.grpo_engines import (
    LocalEngines,
    RayEngines,
    start_ray_engines,
    stop_ray_engines,
)
from flywheel_core.training.grpo_records import GrpoResult, RlState

RESULT = "result.json"


def run_grpo(
    config: GrpoConfig,
    *,
    model_dir: Path,
    reward_models: Mapping[str, Path],
    prompts_path: Path,
    stop_prompts_path: Path,
    output_dir: Path,
    launch_config: LaunchConfig,
    engine: EngineConfig | None = None,
    engines: EnginePool | None = None,
    standards: Mapping[str, Standard] | None = None,
    surface_of: Mapping[str, str] | None = None,
    stop_sampling: SamplingConfig | None = None,
) -> GrpoResult:
    """Train `model_dir` until a gated win rate reaches `stop_win_rate`, or for `max_steps`.

    `prompts_path`: Parquet with `prompt_id`, `messages`. `stop_prompts_path`: also
    `production_response` and perhaps `surface`, which `surface_of` (reward model → surface)
    matches. `standards` default to the reward models' scores on production's stopping responses.
    `engines` (inline only) lends engines that already run. A run that was killed resumes at its
    newest whole checkpoint; a finished one is returned as it is.
    """
    if not (output_dir / RESULT).exists():
        if not reward_models:
            raise ConfigError("reward_models is empty: RL needs at least one pointwise model")
        config_of_engine = engine or (engines.config if engines else EngineConfig())
        arguments: dict[str, Any] = {
            "config": config.model_dump(),
            "model": str(model_dir),
            "reward_models": {name: str(path) for name, path in reward_models.items()},
            "prompts": str(prompts_path),
            "stop_prompts": str(stop_prompts_path),
            "output": str(output_dir),
            "standards": {
                name: [value.mean, value.sd] for name, value in (standards or {}).items()
            },
            "surface_of": dict(surface_of or {}),
            "stop_sampling": _stop_sampling(config, stop_sampling).model_dump(),
        }
        if launch_config.mode == "inline":
            _run_inline(arguments, launch_config, config_of_engine, engines)
        else:
            _run_ray(arguments, launch_config, config_of_engine)
    return read_grpo_result(output_dir)


def read_grpo_result(output_dir: Path) -> GrpoResult:
    """What a finished run left."""
    path = output_dir / RESULT
    if not path.is_file():
        raise TrainingError(f"{output_dir}: no {RESULT}; the run has not finished, start it again")
    result = GrpoResult.model_validate_json(path.read_text())
    return result.model_copy(
        update={"model_dir": output_dir / "models" / result.checkpoints[-1].path}
    )


def _stop_sampling(config: GrpoConfig, given: SamplingConfig | None) -> SamplingConfig:
    if given is not None:
        return given.model_copy(update={"num_samples": 1})
    return SamplingConfig(
        temperature=config.temperature, max_tokens=config.max_completion_tokens, seed=config.seed
    )


def _run_inline(
    arguments: dict[str, Any],
    launch_config: LaunchConfig,
    engine: EngineConfig,
    pool: EnginePool | None,
) -> None:
    model_dir = Path(arguments["model"])
    local = LocalEngines(
        engine,
        model_dir,
        generator=pool.generator(model_dir) if pool else None,
        scorer=pool.scorer() if pool else None,
    )
    launcher.launch(
        train_grpo, arguments | {"engines": local}, launch_config, Path(arguments["output"])
    )


def _run_ray(arguments: dict[str, Any], launch_config: LaunchConfig, engine: EngineConfig) -> None:
    launcher.join_ray(launch_config)
    run_name = f"rl-{uuid.uuid4().hex[:8]}"
    remote: RayEngines = start_ray_engines(engine, Path(arguments["model"]), run_name)
    try:
        launcher.launch(
            train_grpo, arguments | {"engines": remote}, launch_config, Path(arguments["output"])
        )
    finally:
        stop_ray_engines(remote)


def train_grpo(arguments: dict[str, Any]) -> None:
    """One rank's training."""
    from flywheel_core.training.common import is_rank_zero
    from flywheel_core.training.grpo_ema import EmaReference
    from flywheel_core.training.grpo_reward import RewardFunction, weights_of
    from flywheel_core.training.grpo_stop import StopRule, read_rl_prompts, read_stop_prompts
    from flywheel_core.training.grpo_trainer import RlControl, build_trainer, restore_state

    config = GrpoConfig.model_validate(arguments["config"])
    launch_config = LaunchConfig.model_validate(arguments["launch"])
    model_dir, output = Path(arguments["model"]), Path(arguments["output"])
    models = {name: Path(path) for name, path in arguments["reward_models"].items()}
    weights_of(list(models), config.reward_weights)
    engines = arguments["engines"]
    stop = StopRule(
        engines,
        models,
        read_stop_prompts(Path(arguments["stop_prompts"])),
        SamplingConfig.model_validate(arguments["stop_sampling"]),
        arguments["surface_of"],
    )
    given = {name: Standard(*values) for name, values in arguments["standards"].items()}
    trainer = build_trainer(
        config,
        launch_config,
        engines,
        RewardFunction(engines, models, stop.standards() | given, config),
        model_dir=model_dir,
        prompts=read_rl_prompts(Path(arguments["prompts"])),
        output=output,
    )
    ema = EmaReference(
        trainer.accelerator.unwrap_model(trainer.ref_model), config.ema_alpha, config.ema_sync_steps
    )
    newest = latest_done(output)
    state = RlState()
    if newest is not None:
        state = restore_state(newest)
        ema.restore(newest, trainer.accelerator.process_index)
        print(f"resuming rl at {newest.name}", flush=True)
    if is_rank_zero():
        _drop_half_written(output)
    control = RlControl(trainer, ema, stop, config, model_dir, output, state)
    trainer.add_callback(control)
    generation = trainer.vllm_generation
    try:
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    finally:
        generation.close()
    if is_rank_zero():
        _write_result(control.state, trainer.state.global_step, generation.num_nan_logprobs, output)


def _drop_half_written(output: Path) -> None:
    for folder in output.glob("checkpoint-*"):
        if not (folder / DONE).exists():
            shutil.rmtree(folder)


def _write_result(state: RlState, num_steps: int, num_nan: int, output: Path) -> None:
    kept = tuple(
        checkpoint
        for checkpoint in state.checkpoints
        if (output / "models" / checkpoint.path).is_dir()
    )
    result = GrpoResult(
        model_dir=output / "models" / kept[-1].path,
        num_steps=num_steps,
        stopped_by=state.stopped_by,
        checkpoints=kept,
        win_rate_history=state.checkpoints,
        history=state.history,
        num_nan_logprobs=num_nan,
    )
    partial = output / f".{RESULT}.partial"
    partial.write_text(result.model_dump_json(indent=1))
    partial.rename(output / RESULT)
