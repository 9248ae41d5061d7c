"""DPO as a small patch, with TRL's `DPOTrainer` (§2.4.2)."""

from pathlib import Path
from typing import Any

from flywheel_core.training.checkpoints import latest_done
from flywheel_core.training.common import RESULT, TrainResult, read_result
from flywheel_core.training.config import DpoConfig, LaunchConfig
from flywheel_core.training.launcher import launch


def run_dpo(
    config: DpoConfig,
    *,
    model_dir: Path,
    dataset_path: Path,
    output_dir: Path,
    launch_config: LaunchConfig,
) -> TrainResult:
    """Train from `model_dir` on pairs whose `response_0` is the better one."""
    if not (output_dir / RESULT).exists():
        arguments = {
            "config": config.model_dump(),
            "model": str(model_dir),
            "dataset": str(dataset_path),
            "output": str(output_dir),
        }
        launch(train_dpo, arguments, launch_config, output_dir)
    return read_result(output_dir)


def train_dpo(arguments: dict[str, Any]) -> None:
    """One rank's training."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from flywheel_core.training.common import (
        Watch,
        final_metrics,
        finish,
        is_rank_zero,
        training_arguments,
    )
    from flywheel_core.training.data import preference_dataset

    config = DpoConfig.model_validate(arguments["config"])
    launch_config = LaunchConfig.model_validate(arguments["launch"])
    output = Path(arguments["output"])
    dataset = preference_dataset(Path(arguments["dataset"]))
    tokenizer = AutoTokenizer.from_pretrained(arguments["model"])
    args = training_arguments(
        DPOConfig,
        config,
        launch_config,
        output,
        num_rows=len(dataset),
        num_checkpoints=1,
        max_length=config.max_length_tokens,
        beta=config.beta,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = DPOTrainer(
        model=arguments["model"],
        ref_model=AutoModelForCausalLM.from_pretrained(arguments["model"], dtype="float32"),
        args=args,
        train_dataset=dataset,
        processing_class=tokenizer,
        data_collator=eot_masking_collator(tokenizer, config),
        callbacks=[Watch("dpo steps")],
    )
    newest = latest_done(output)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if is_rank_zero():
        finish(output, final_metrics(trainer))


def eot_masking_collator(tokenizer: Any, config: DpoConfig) -> Any:
    """TRL's preference collator, with the end-of-turn token out of the loss (Table 7)."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    class Collator(DataCollatorForPreference):
        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            batch: dict[str, Any] = super().torch_call(examples)
            if config.mask_eot:
                batch["completion_mask"][batch["input_ids"] == tokenizer.eos_token_id] = 0
            return batch

    return Collator(pad_token_id=tokenizer.pad_token_id, max_length=config.max_length_tokens)
