"""What every trainer shares: arguments from a config, progress lines, whole checkpoints."""

import math
import time
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from flywheel_core.errors import ConfigError, TrainingError
from flywheel_core.training.checkpoints import (
    drop_half_written,
    keep_newest,
    latest_done,
    mark_done,
)
from flywheel_core.training.config import LaunchConfig, OptimiserSection
from flywheel_core.training.launcher import deepspeed_config, num_ranks
from flywheel_core.training.results import MODELS, export_model, write_result

Arguments = TypeVar("Arguments", bound=TrainingArguments)
NUM_RESUMABLE = 2
"""Checkpoints kept with their optimiser state: the newest, and one more should it be damaged."""


def training_arguments(
    kind: type[Arguments],
    config: OptimiserSection,
    launch: LaunchConfig,
    output: Path,
    *,
    num_rows: int,
    **extra: Any,
) -> Arguments:
    """`kind` of TRL or transformers with our settings; batches are split over the ranks.

    `Watch` decides when to save; the trainer itself saves only after its last step.
    """
    rows, accumulation = rows_per_device(config.global_batch_size, launch)
    total_steps = num_steps(config, num_rows)
    arguments: Arguments = kind(
        output_dir=str(output),
        max_steps=total_steps,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=round(config.warmup_share * total_steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        data_seed=config.seed,
        bf16=launch.precision == "bf16",
        use_cpu=launch.device == "cpu",
        deepspeed=deepspeed_config(launch),
        gradient_checkpointing=launch.device == "cuda",
        save_strategy="steps",
        save_steps=total_steps,
        save_total_limit=None,
        logging_steps=max(1, total_steps // 20),
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        dataloader_num_workers=0,
        dataloader_pin_memory=launch.device == "cuda",
        remove_unused_columns=False,
        **extra,
    )
    return arguments


def num_steps(config: OptimiserSection, num_rows: int) -> int:
    """Optimiser steps in all; the last batch of an epoch may be short."""
    return max(1, math.ceil(math.ceil(num_rows / config.global_batch_size) * config.num_epochs))


def rows_per_device(global_batch_size: int, launch: LaunchConfig) -> tuple[int, int]:
    """Rows a rank takes at once, and how many times before one step of the optimiser."""
    ranks = num_ranks(launch)
    share, rest = divmod(global_batch_size, ranks)
    if rest:
        raise ConfigError(
            f"global_batch_size {global_batch_size} cannot be split over {ranks} ranks; "
            "use a multiple of execution.launch.num_workers"
        )
    rows = min(share, launch.rows_per_device_max or share)
    if share % rows:
        raise ConfigError(
            f"rows_per_device_max {rows} does not divide a rank's {share} rows a step; "
            f"use a divisor of {share}"
        )
    return rows, share // rows


def planned_steps(total_steps: int, num_checkpoints: int) -> list[int]:
    """The steps whose models are kept: evenly spaced, the last step among them."""
    count = min(num_checkpoints, total_steps)
    return [round(total_steps * (index + 1) / count) for index in range(count)]


class Watch(TrainerCallback):
    """Progress lines on rank 0, and checkpoints that are whole or do not count.

    A planned checkpoint's model is exported before the DONE mark: whoever resumes after the mark
    will not pass this step again.
    """

    def __init__(self, what: str, launch: LaunchConfig, planned: list[int] | None = None) -> None:
        self.what = what
        self.planned = planned or []
        self.every_steps = launch.checkpoint_every_steps
        self.started_s = 0.0
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started_s = time.monotonic()
        self.first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        if step in self.planned or (self.every_steps and step % self.every_steps == 0):
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        done, total = state.global_step, state.max_steps
        rate = (done - self.first_step) / max(time.monotonic() - self.started_s, 1e-9)
        left_s = (total - done) / rate if rate else 0.0
        loss = float(logs["loss"])
        print(
            f"progress: {self.what} {done}/{total} {rate:.2f}/s eta {left_s:.0f}s loss {loss:.4f}",
            flush=True,
        )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        barrier()
        if not state.is_world_process_zero:
            return
        output, step = Path(args.output_dir), state.global_step
        folder = output / f"checkpoint-{step}"
        if step in self.planned:
            export_model(folder, output / MODELS / f"{step:06d}")
        mark_done(folder)
        keep_newest(output, NUM_RESUMABLE)


def barrier() -> None:
    """Wait for every rank."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def quiet_libraries() -> None:
    """No progress bars of libraries between our progress lines."""
    import datasets

    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()


def train_to_end(trainer: Any, launch: LaunchConfig, output: Path) -> None:
    """Train from the newest whole checkpoint; a training that has ended is not continued."""
    trainer.remove_callback(PrinterCallback)
    if launch.mode == "ray_train" and not trainer.is_deepspeed_enabled:
        raise TrainingError(
            "DeepSpeed is not in use, so ZeRO would not be either; unset ACCELERATE_USE_CPU and "
            "build no accelerate object before the trainer"
        )
    newest = latest_done(output)
    barrier()  # every rank has looked before rank 0 tidies up
    if is_rank_zero():
        drop_half_written(output)
    if newest is not None:
        print(f"resuming at {newest.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)


def finish(trainer: Any, planned: list[int], output: Path, metrics: dict[str, Any]) -> None:
    """Write the result: its presence means done."""
    steps_per_epoch = trainer.state.max_steps / max(float(trainer.state.epoch or 0), 1e-9)
    checkpoints = [(step, round(step / steps_per_epoch, 4)) for step in planned]
    write_result(output, {"checkpoints": checkpoints, "metrics": metrics})


def final_metrics(trainer: Any) -> dict[str, Any]:
    """The first and last logged loss and the number of steps."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "steps": int(trainer.state.global_step),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
    }


def is_rank_zero() -> bool:
    """Whether this process writes what all ranks made together."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
