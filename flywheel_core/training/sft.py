"""Supervised fine-tuning with TRL's `SFTTrainer` (§2.4.2); the loss is on the response only."""

from pathlib import Path
from typing import Any

from flywheel_core.training.config import LaunchConfig, SftConfig
from flywheel_core.training.launcher import launch
from flywheel_core.training.results import RESULT, TrainResult, read_result


def run_sft(
    config: SftConfig,
    *,
    model_dir: Path,
    dataset_path: Path,
    output_dir: Path,
    launch_config: LaunchConfig,
) -> TrainResult:
    """Train from `model_dir` on Parquet rows of `records.TRAINING_ROWS`; resumes, never repeats."""
    output_dir = output_dir.resolve()
    if not (output_dir / RESULT).exists():
        arguments = {
            "config": config.model_dump(),
            "model": str(model_dir.resolve()),
            "dataset": str(dataset_path.resolve()),
            "output": str(output_dir),
        }
        launch(train_sft, arguments, launch_config, output_dir)
    return read_result(output_dir)


def train_sft(arguments: dict[str, Any]) -> None:
    """One rank's training."""
    from flywheel_core.training.common import (
        final_metrics,
        finish,
        is_rank_zero,
        planned_steps,
        train_to_end,
    )

    launch_config = LaunchConfig.model_validate(arguments["launch"])
    config = SftConfig.model_validate(arguments["config"])
    output = Path(arguments["output"])
    trainer, counts = make_trainer(config, launch_config, arguments)
    train_to_end(trainer, launch_config, output)
    if is_rank_zero():
        planned = planned_steps(trainer.state.max_steps, config.num_checkpoints)
        finish(trainer, planned, output, final_metrics(trainer) | counts)


def make_trainer(
    config: SftConfig, launch_config: LaunchConfig, arguments: dict[str, Any]
) -> tuple[Any, dict[str, int]]:
    """TRL's trainer over rows that are tokenised already, and the row counts.

    The loss of a step is the mean over the response tokens of the whole batch, all ranks and all
    accumulated parts together (`num_items_in_batch`), not the mean of the parts' means.
    """
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig as TrlSftConfig
    from trl import SFTTrainer

    from flywheel_core.training.common import (
        Watch,
        num_steps,
        planned_steps,
        quiet_libraries,
        training_arguments,
    )
    from flywheel_core.training.data import require_rows, sft_rows

    quiet_libraries()
    tokenizer = AutoTokenizer.from_pretrained(arguments["model"])
    path = Path(arguments["dataset"])
    found = require_rows(
        path, sft_rows(path, tokenizer, config.max_length_tokens), config.max_length_tokens
    )
    planned = planned_steps(num_steps(config, len(found.rows)), config.num_checkpoints)

    class Trainer(SFTTrainer):
        """`SFTTrainer` without a model card in every checkpoint."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            return

    trainer = Trainer(
        model=arguments["model"],
        args=training_arguments(
            TrlSftConfig,
            config,
            launch_config,
            Path(arguments["output"]),
            num_rows=len(found.rows),
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=Dataset.from_list([dict(row) for row in found.rows]),
        processing_class=tokenizer,
        callbacks=[Watch("sft steps", launch_config, planned)],
    )
    return trainer, found.counts()
