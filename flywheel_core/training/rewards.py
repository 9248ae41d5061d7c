"""Reward models (§2.3): several small trainings in one launch, because start-up dominates them.

Every model is a sequence classifier with one output, so one pooling engine scores them all:

- pointwise r(x, y): Bradley-Terry over pairs (Eq. 1), by TRL's `RewardTrainer`;
- pairwise s(x, y0, y1): a cross-encoder of both responses (Eq. 2–3);
- signal u(x, y): whether the user reacted (Eq. 6–7).

Soft targets: a pair on which two of three annotators agree has target ⅔, and a tie ½. That is
the expectation of training on every single vote (§3.4.1, "Single-Review (All)").
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_core.training.checkpoints import latest_done
from flywheel_core.training.config import LaunchConfig, RewardModelConfig
from flywheel_core.training.launcher import launch
from flywheel_core.training.results import RESULT, export_model, write_result


@dataclass(frozen=True)
class RewardModelSpec:
    """One model to train: its rows, and the rows kept from it, of the shape its kind needs.

    `model_dir` is what it starts from, where that is not what the others start from: signal models
    are mostly smaller (§2.3.2).
    """

    name: str
    config: RewardModelConfig
    train_path: Path
    held_out_path: Path
    model_dir: Path | None = None


@dataclass(frozen=True)
class RewardTrainingResult:
    """Where each model lies, and how it did on rows it has not seen."""

    model_dirs: dict[str, Path]
    reports: dict[str, dict[str, Any]]


def run_reward_models(
    specs: Sequence[RewardModelSpec],
    *,
    model_dir: Path,
    output_dir: Path,
    launch_config: LaunchConfig,
) -> RewardTrainingResult:
    """Train every model, from `model_dir` unless its spec says otherwise; a retry begins at the
    first unfinished one."""
    output_dir = output_dir.resolve()
    unfinished = [spec for spec in specs if not (output_dir / spec.name / RESULT).exists()]
    if unfinished:
        arguments = {
            "output": str(output_dir),
            "specs": [
                {
                    "name": spec.name,
                    "model": str((spec.model_dir or model_dir).resolve()),
                    "config": spec.config.model_dump(),
                    "train": str(spec.train_path.resolve()),
                    "held_out": str(spec.held_out_path.resolve()),
                }
                for spec in unfinished
            ],
        }
        launch(train_reward_models, arguments, launch_config, output_dir)
    folders = {spec.name: output_dir / spec.name for spec in specs}
    return RewardTrainingResult(
        model_dirs={name: folder / "model" for name, folder in folders.items()},
        reports={
            name: json.loads((folder / RESULT).read_text()) for name, folder in folders.items()
        },
    )


def train_reward_models(arguments: dict[str, Any]) -> None:
    """One rank's trainings, one after the other; a later try passes over the finished ones."""
    import gc

    for spec in arguments["specs"]:
        if not (Path(arguments["output"]) / spec["name"] / RESULT).exists():
            _train_one(spec, arguments)
            gc.collect()  # the engine and its optimiser are in reference cycles


def _train_one(spec: dict[str, Any], arguments: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    from flywheel_core.training.common import final_metrics, is_rank_zero, train_to_end
    from flywheel_core.training.data import require_rows, reward_rows
    from flywheel_core.training.reward_trainer import evaluate_rows, make_trainer

    config = RewardModelConfig.model_validate(spec["config"])
    launch_config = LaunchConfig.model_validate(arguments["launch"])
    output = Path(arguments["output"]) / spec["name"]
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    path = Path(spec["train"])
    train = require_rows(path, reward_rows(path, config, tokenizer), config.max_length_tokens)
    held_out = reward_rows(Path(spec["held_out"]), config, tokenizer)
    trainer = make_trainer(
        spec["name"], config, launch_config, spec["model"], tokenizer, train.rows, output
    )
    train_to_end(trainer, launch_config, output)
    report = final_metrics(trainer) | train.counts("train_") | held_out.counts("held_out_")
    report |= evaluate_rows(spec["name"], trainer, held_out.rows, config) if held_out.rows else {}
    if is_rank_zero():
        newest = latest_done(output)
        assert newest is not None, "a finished training has saved its last step"
        export_model(newest, output / "model")
        write_result(output, report)
