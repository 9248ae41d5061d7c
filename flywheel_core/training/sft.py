"""Supervised fine-tuning with TRL's `SFTTrainer` (§2.4.2); the loss is on the response only."""

from pathlib import Path
from typing import Any

from flywheel_core.training.checkpoints import latest_done
from flywheel_core.training.common import RESULT, TrainResult, read_result
from flywheel_core.training.config import LaunchConfig, SftConfig
from flywheel_core.training.launcher import launch


def run_sft(
    config: SftConfig,
    *,
    model_dir: Path,
    dataset_path: Path,
    output_dir: Path,
    launch_config: LaunchConfig,
) -> TrainResult:
    """Train from `model_dir` on Parquet rows of `records.TRAINING_ROWS`; resumes, never repeats."""
    if not (output_dir / RESULT).exists():
        arguments = {
            "config": config.model_dump(),
            "model": str(model_dir),
            "dataset": str(dataset_path),
            "output": str(output_dir),
        }
        launch(train_sft, arguments, launch_config, output_dir)
    return read_result(output_dir)


def train_sft(arguments: dict[str, Any]) -> None:
    """One rank's training."""
    from transformers import AutoTokenizer
    from trl import SFTConfig as TrlSftConfig
    from trl import SFTTrainer

    from flywheel_core.training.common import (
        Watch,
        final_metrics,
        finish,
        is_rank_zero,
        training_arguments,
    )
    from flywheel_core.training.data import supervised_dataset

    config = SftConfig.model_validate(arguments["config"])
    launch_config = LaunchConfig.model_validate(arguments["launch"])
    output = Path(arguments["output"])
    dataset = supervised_dataset(Path(arguments["dataset"]))
    trainer = SFTTrainer(
        model=arguments["model"],
        args=training_arguments(
            TrlSftConfig,
            config,
            launch_config,
            output,
            num_rows=len(dataset),
            num_checkpoints=config.num_checkpoints,
            max_length=config.max_length_tokens,
            completion_only_loss=True,
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(arguments["model"]),
        callbacks=[Watch("sft steps")],
    )
    newest = latest_done(output)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if is_rank_zero():
        finish(output, final_metrics(trainer))
