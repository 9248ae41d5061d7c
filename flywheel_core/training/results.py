"""What a training leaves: plain model folders, and a result whose presence means done. Light."""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULT = "result.json"
MODELS = "models"
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja")
STATE_FILES = {"trainer_state.json"}


@dataclass(frozen=True)
class SavedCheckpoint:
    """A plain model folder, servable by vLLM, and the step and epoch it was saved at."""

    step: int
    path: Path
    epoch: float = 0.0


@dataclass(frozen=True)
class TrainResult:
    """What a training left: the final model, the checkpoints on the way, and its last metrics."""

    model_dir: Path
    checkpoints: list[SavedCheckpoint]
    metrics: dict[str, Any] = field(default_factory=dict)


def export_model(checkpoint: Path, target: Path) -> None:
    """Copy a checkpoint's model and tokenizer, without optimiser state; all of it or nothing."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for pattern in MODEL_FILES:
        for file in sorted(checkpoint.glob(pattern)):
            if file.name not in STATE_FILES:
                shutil.copyfile(file, partial / file.name)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def write_result(output: Path, content: dict[str, Any]) -> None:
    """Write `result.json` in one move: a half-written one would count as done."""
    partial = output / f".{RESULT}.partial"
    partial.write_text(json.dumps(content, indent=1, sort_keys=True))
    os.replace(partial, output / RESULT)


def read_result(output: Path) -> TrainResult:
    """The result of a finished training."""
    content = json.loads((output / RESULT).read_text())
    saved = [
        SavedCheckpoint(step=int(step), path=output / MODELS / f"{int(step):06d}", epoch=epoch)
        for step, epoch in content["checkpoints"]
    ]
    return TrainResult(saved[-1].path, saved, content["metrics"])
