"""One rank's RL: TRL's `GRPOTrainer` set to the paper's Eq. 8, and what happens after each step."""

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig as TrlGrpoConfig
from trl import GRPOTrainer

from flywheel_core.engines.rendering import TEMPLATE_VARIABLES
from flywheel_core.errors import ConfigError, TrainingError
from flywheel_core.training.checkpoints import done_checkpoints, mark_done
from flywheel_core.training.config import LaunchConfig
from flywheel_core.training.grpo_config import GrpoConfig
from flywheel_core.training.grpo_ema import EmaReference
from flywheel_core.training.grpo_engines import RlEngines
from flywheel_core.training.grpo_generation import EngineGeneration, generation_by
from flywheel_core.training.grpo_ranks import num_processes, on_main
from flywheel_core.training.grpo_records import PolicyCheckpoint, RlState, StepRecord
from flywheel_core.training.grpo_reward import RewardFunction
from flywheel_core.training.grpo_stop import StopRule
from flywheel_core.training.launcher import deepspeed_config, num_ranks

STATE_FILE = "rl_state.json"
NUM_RESUMABLE = 2


def eq8_settings(config: GrpoConfig) -> dict[str, Any]:
    """TRL's arguments that make its loss Eq. 8; several differ from its defaults.

    One update a batch, so ρ = π_θ/π_old; the mean over a sequence's tokens, then over sequences;
    π_old/π_gen per token, truncated (ours); the classic KL estimate. Nothing may reshape the
    sampler's distribution (top-p, top-k, min-p), or π_gen would not be what was sampled from.
    """
    return {
        "loss_type": "grpo",
        "beta": config.beta,
        "epsilon": config.epsilon,
        "num_iterations": 1,
        "importance_sampling_level": "token",
        "scale_rewards": "group",
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": config.importance_ratio_max,
        "use_bias_correction_kl": False,
        "temperature": config.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "sync_ref_model": False,  # EmaReference does it, piece by piece
    }


def trl_arguments(config: GrpoConfig, launch: LaunchConfig, output: Path) -> TrlGrpoConfig:
    """Eq. 8's settings, batch arithmetic and the launch's device."""
    ranks = num_ranks(launch)
    if config.completions_per_step % ranks:
        raise ConfigError(
            f"prompts_per_step x num_generations = {config.completions_per_step} cannot be split "
            f"over {ranks} ranks; make it a multiple of execution.launch.num_workers"
        )
    share = config.completions_per_step // ranks
    micro = config.micro_batch_completions or share
    if share % micro:
        raise ConfigError(
            f"micro_batch_completions {micro} does not divide a rank's {share} completions a "
            f"step; use a divisor of {share}"
        )
    if launch.mode == "ray_train":
        # accelerate 1.x drops DeepSpeed without a word where this is set; `use_cpu` is enough.
        os.environ.pop("ACCELERATE_USE_CPU", None)
    return TrlGrpoConfig(
        output_dir=str(output),
        max_steps=config.max_steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // micro,
        steps_per_generation=share // micro,
        num_generations=config.num_generations,
        max_completion_length=config.max_completion_tokens,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup_steps,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        bf16=launch.precision == "bf16",
        use_cpu=launch.device == "cpu",
        deepspeed=deepspeed_config(launch),
        gradient_checkpointing=launch.device == "cuda",
        save_strategy="steps",
        save_steps=config.checkpoint_every_steps,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=launch.device == "cuda",
        remove_unused_columns=False,
        model_init_kwargs={"dtype": "float32" if launch.precision == "fp32" else "bfloat16"},
        chat_template_kwargs=dict(TEMPLATE_VARIABLES),
        **eq8_settings(config),
    )


class FlywheelGrpoTrainer(GRPOTrainer):
    """`GRPOTrainer` without a model card in every checkpoint."""

    vllm_generation: EngineGeneration

    def create_model_card(self, *_: Any, **__: Any) -> None:
        return


def build_trainer(
    config: GrpoConfig,
    launch: LaunchConfig,
    engines: RlEngines,
    reward: RewardFunction,
    *,
    model_dir: Path,
    prompts: list[list[dict[str, str]]],
    output: Path,
) -> FlywheelGrpoTrainer:
    """The trainer, with our generation backend in place of TRL's."""
    transformers_logging.disable_progress_bar()
    with generation_by(engines, config, output):
        trainer = FlywheelGrpoTrainer(
            model=str(model_dir),
            args=trl_arguments(config, launch, output),
            reward_funcs=[reward],
            train_dataset=Dataset.from_list([{"prompt": messages} for messages in prompts]),
            processing_class=AutoTokenizer.from_pretrained(str(model_dir), padding_side="left"),
        )
    if launch.mode == "ray_train" and trainer.accelerator.state.deepspeed_plugin is None:
        raise TrainingError(
            "accelerate runs without DeepSpeed though the launch asks for ZeRO; unset "
            "ACCELERATE_USE_CPU and build no accelerate object before the trainer"
        )
    trainer.remove_callback(PrinterCallback)
    trainer.vllm_generation.step = lambda: int(trainer.state.global_step)
    return trainer


class RlControl(TrainerCallback):
    """After each step: the reference, the stop rule, the progress line; in each checkpoint: all
    that a resume needs beyond what the Trainer saves."""

    def __init__(
        self,
        trainer: FlywheelGrpoTrainer,
        ema: EmaReference,
        stop: StopRule,
        config: GrpoConfig,
        model_dir: Path,
        output: Path,
        state: RlState,
    ) -> None:
        self.trainer, self.ema, self.stop, self.config = trainer, ema, stop, config
        self.model_dir, self.output, self.state = model_dir, output, state
        self._began_s = time.monotonic()
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began_s, self._first_step = time.monotonic(), state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        self.ema.after_step(self.trainer.accelerator.unwrap_model(self.trainer.model), step)
        if step % self.config.stop_every_steps and step < self.config.max_steps:
            return
        checkpoint = self._measure(step)
        self.state = self.state.with_checkpoint(checkpoint)
        if max(checkpoint.win_rates.values()) >= self.config.stop_win_rate:
            self.state = self.state.model_copy(update={"stopped_by": "win_rate"})
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "reward" not in logs:
            return
        self.state = self.state.with_step(StepRecord.of(state.global_step, logs))
        if state.is_world_process_zero:
            print(self._progress_line(state.global_step), flush=True)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = self.output / f"checkpoint-{state.global_step}"
        self.ema.save(folder, self.trainer.accelerator.process_index)
        if state.is_world_process_zero:
            (folder / STATE_FILE).write_text(self.state.model_dump_json(indent=1))
        if num_processes() > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_done(folder)
            for old in done_checkpoints(self.output)[:-NUM_RESUMABLE]:
                shutil.rmtree(old)

    def _measure(self, step: int) -> PolicyCheckpoint:
        """Sync, answer, score; rank 0 keeps the synced weights as a model folder."""
        generation = self.trainer.vllm_generation
        generation.sync_once(self.trainer)

        def measure() -> PolicyCheckpoint:
            path = self._keep_policy(step)
            rates = self.stop.win_rates(generation.version, generation.ask)
            return PolicyCheckpoint(step=step, path=path.name, win_rates=rates)

        return on_main(measure)

    def _keep_policy(self, step: int) -> Path:
        folder = self.output / "models"
        target, partial = folder / f"{step:06d}", folder / f".{step:06d}.partial"
        for stale in (target, partial):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.copytree(self.trainer.vllm_generation.weights_dir, partial)
        for file in self.model_dir.iterdir():
            if file.suffix in (".json", ".jinja") and not file.name.endswith(".index.json"):
                shutil.copyfile(file, partial / file.name)
        partial.rename(target)
        for old in sorted(folder.glob("[0-9]*"))[: -self.config.num_kept_checkpoints]:
            shutil.rmtree(old)
        return target

    def _progress_line(self, step: int) -> str:
        record = self.state.history[-1]
        rate = (step - self._first_step) / max(time.monotonic() - self._began_s, 1e-9)
        eta_s = (self.config.max_steps - step) / rate if rate else math.inf
        rates = self.state.checkpoints[-1].win_rates if self.state.checkpoints else {}
        shown = " ".join(f"{name}={value:.3f}" for name, value in rates.items()) or "none yet"
        return (
            f"progress: rl steps {step}/{self.config.max_steps} {rate:.2f}/s eta {eta_s:.0f}s "
            f"reward {record.reward:+.3f} kl {record.kl:.4f} win_rate {shown}"
        )


def restore_state(folder: Path) -> RlState:
    """What `on_save` wrote beside the Trainer's own state."""
    return RlState.model_validate(json.loads((folder / STATE_FILE).read_text()))
