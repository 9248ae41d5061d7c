"""DPO as a small patch, with TRL's `DPOTrainer` (§2.4.2)."""

from pathlib import Path
from typing import Any

from flywheel_core.training.config import DpoConfig, LaunchConfig
from flywheel_core.training.launcher import launch
from flywheel_core.training.results import RESULT, TrainResult, read_result


def run_dpo(
    config: DpoConfig,
    *,
    model_dir: Path,
    dataset_path: Path,
    output_dir: Path,
    launch_config: LaunchConfig,
) -> TrainResult:
    """Train from `model_dir` on pairs; `target` says which response is better (see `data`)."""
    output_dir = output_dir.resolve()
    if not (output_dir / RESULT).exists():
        arguments = {
            "config": config.model_dump(),
            "model": str(model_dir.resolve()),
            "dataset": str(dataset_path.resolve()),
            "output": str(output_dir),
        }
        launch(train_dpo, arguments, launch_config, output_dir)
    return read_result(output_dir)


def train_dpo(arguments: dict[str, Any]) -> None:
    """One rank's training."""
    from flywheel_core.training.common import final_metrics, finish, is_rank_zero, train_to_end

    config = DpoConfig.model_validate(arguments["config"])
    launch_config = LaunchConfig.model_validate(arguments["launch"])
    output = Path(arguments["output"])
    trainer, counts = make_trainer(config, launch_config, arguments)
    train_to_end(trainer, launch_config, output)
    if is_rank_zero():
        finish(trainer, [trainer.state.max_steps], output, final_metrics(trainer) | counts)


def make_trainer(
    config: DpoConfig, launch_config: LaunchConfig, arguments: dict[str, Any]
) -> tuple[Any, dict[str, int]]:
    """TRL's trainer with a frozen copy of the model as reference, and the row counts."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from flywheel_core.training.common import Watch, num_steps, quiet_libraries, training_arguments
    from flywheel_core.training.data import preference_rows, require_rows

    quiet_libraries()
    tokenizer = AutoTokenizer.from_pretrained(arguments["model"])
    path = Path(arguments["dataset"])
    found = require_rows(
        path, preference_rows(path, tokenizer, config.max_length_tokens), config.max_length_tokens
    )
    last = num_steps(config, len(found.rows))

    class Trainer(DPOTrainer):
        """`DPOTrainer` over rows that are tokenised already, without model cards."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def create_model_card(self, *_: Any, **__: Any) -> None:
            return

    args = training_arguments(
        DPOConfig,
        config,
        launch_config,
        Path(arguments["output"]),
        num_rows=len(found.rows),
        max_length=None,
        beta=config.beta,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = Trainer(
        model=arguments["model"],
        ref_model=AutoModelForCausalLM.from_pretrained(arguments["model"], dtype="float32"),
        args=args,
        train_dataset=Dataset.from_list([dict(row) for row in found.rows]),
        processing_class=tokenizer,
        data_collator=eot_masking_collator(tokenizer, config),
        callbacks=[Watch("dpo steps", launch_config, [last])],
    )
    return trainer, found.counts() | {"rows_tied": found.num_ties}


def eot_masking_collator(tokenizer: Any, config: DpoConfig) -> Any:
    """TRL's preference collator, with the end-of-turn token out of the loss (Table 7)."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    from flywheel_core.training.data import end_of_turn_id

    end_of_turn = end_of_turn_id(tokenizer)

    class Collator(DataCollatorForPreference):
        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            batch: dict[str, Any] = super().torch_call(examples)
            if config.mask_eot:
                batch["completion_mask"][batch["input_ids"] == end_of_turn] = 0
            return batch

    return Collator(pad_token_id=tokenizer.pad_token_id)
