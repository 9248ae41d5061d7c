"""What every trainer shares: arguments from a config, progress lines, whole checkpoints."""

import json
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainerCallback, TrainingArguments

from flywheel_core.errors import ConfigError
from flywheel_core.training.checkpoints import done_checkpoints, mark_done, step_of
from flywheel_core.training.config import LaunchConfig, OptimiserSection
from flywheel_core.training.launcher import deepspeed_config, num_ranks

Arguments = TypeVar("Arguments", bound=TrainingArguments)
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja")
STATE_FILES = {"trainer_state.json"}
RESULT = "result.json"


@dataclass(frozen=True)
class SavedCheckpoint:
    """A plain model folder, servable by vLLM, and the step it was saved at."""

    step: int
    path: Path


@dataclass(frozen=True)
class TrainResult:
    """What a training left: the final model, the checkpoints on the way, and its last metrics."""

    model_dir: Path
    checkpoints: list[SavedCheckpoint]
    metrics: dict[str, Any] = field(default_factory=dict)


def training_arguments(
    kind: type[Arguments],
    config: OptimiserSection,
    launch: LaunchConfig,
    output: Path,
    *,
    num_rows: int,
    num_checkpoints: int,
    **extra: Any,
) -> Arguments:
    """`kind` of TRL or transformers with our settings; batches are split over the ranks."""
    ranks = num_ranks(launch)
    if config.global_batch_size % ranks:
        raise ConfigError(
            f"global_batch_size {config.global_batch_size} cannot be split over {ranks} ranks; "
            "use a multiple of execution.launch.num_workers"
        )
    steps_per_epoch = math.ceil(num_rows / config.global_batch_size)
    total_steps = max(1, math.ceil(steps_per_epoch * config.num_epochs))
    arguments: Arguments = kind(
        output_dir=str(output),
        max_steps=total_steps,
        per_device_train_batch_size=config.global_batch_size // ranks,
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
        save_steps=max(1, total_steps // num_checkpoints),
        save_total_limit=None,
        logging_steps=max(1, total_steps // 20),
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=launch.device == "cuda",
        remove_unused_columns=False,
        **extra,
    )
    return arguments


class Watch(TrainerCallback):
    """Progress lines on rank 0, and a DONE mark in each checkpoint once every rank has saved."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.started_s = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started_s = time.monotonic()
        self.first_step = state.global_step

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
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_done(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def export_model(checkpoint: Path, target: Path) -> None:
    """Copy a checkpoint's model and tokenizer, without optimiser state."""
    target.mkdir(parents=True, exist_ok=True)
    for pattern in MODEL_FILES:
        for file in sorted(checkpoint.glob(pattern)):
            if file.name not in STATE_FILES:
                shutil.copyfile(file, target / file.name)


def finish(output: Path, metrics: dict[str, Any]) -> None:
    """Export every whole checkpoint, then write the result: its presence means done."""
    for checkpoint in done_checkpoints(output):
        export_model(checkpoint, output / "models" / f"{step_of(checkpoint):06d}")
    (output / RESULT).write_text(json.dumps(metrics, indent=1, sort_keys=True))


def read_result(output: Path) -> TrainResult:
    """What `finish` left."""
    folders = sorted((output / "models").iterdir())
    saved = [SavedCheckpoint(int(folder.name), folder) for folder in folders]
    return TrainResult(saved[-1].path, saved, json.loads((output / RESULT).read_text()))


def final_metrics(trainer: Any) -> dict[str, Any]:
    """The last logged loss and the number of steps."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "steps": int(trainer.state.global_step),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
    }


def is_rank_zero() -> bool:
    """Whether this process writes what all ranks made together."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
