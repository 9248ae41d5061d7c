"""The trainers behind `rewards`: TRL's for pairs, transformers' for single sequences."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments
from trl import RewardConfig, RewardTrainer

from flywheel_core.training.common import Watch, training_arguments
from flywheel_core.training.config import LaunchConfig, RewardModelConfig


def preference_loss(chosen: Tensor, rejected: Tensor, target: Tensor) -> Tensor:
    """−[t log σ(r₀ − r₁) + (1 − t) log σ(r₁ − r₀)], mean over pairs [n]; Eq. 1 where t = 1."""
    gap = chosen - rejected
    return -(target * logsigmoid(gap) + (1 - target) * logsigmoid(-gap)).mean()


class PairTrainer(RewardTrainer):
    """TRL's `RewardTrainer`, with Eq. 1's target allowed to be a share of votes."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        outputs = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        )
        chosen, rejected = torch.chunk(outputs.logits.squeeze(-1), chunks=2)
        loss = preference_loss(chosen.float(), rejected.float(), inputs["target"])
        return (loss, outputs) if return_outputs else loss


class SequenceTrainer(Trainer):
    """Binary cross-entropy of one logit a sequence (Eq. 2, Eq. 6); targets may be shares."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        outputs = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        )
        loss = binary_cross_entropy_with_logits(
            outputs.logits.squeeze(-1).float(), inputs["target"]
        )
        return (loss, outputs) if return_outputs else loss


class Collator:
    """Pads on the right. For pairs the first half of the batch is `response_0`, as TRL has it."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        if "chosen_ids" in rows[0]:
            ids = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
        else:
            ids = [row["input_ids"] for row in rows]
        width = max(map(len, ids))
        input_ids = torch.full((len(ids), width), self.pad_token_id)
        attention_mask = torch.zeros((len(ids), width), dtype=torch.long)
        for index, sequence in enumerate(ids):
            input_ids[index, : len(sequence)] = torch.tensor(sequence)
            attention_mask[index, : len(sequence)] = 1
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "target": torch.tensor([row["target"] for row in rows], dtype=torch.float32),
        }


def make_trainer(
    name: str,
    config: RewardModelConfig,
    launch: LaunchConfig,
    model: str,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    output: Path,
) -> Trainer:
    """The trainer of one model, from the language model at `model` with a new one-output head."""
    from datasets import Dataset

    pairs = config.kind == "pointwise"
    arguments: Any = training_arguments(
        RewardConfig if pairs else TrainingArguments,
        config,
        launch,
        output,
        num_rows=len(rows),
        num_checkpoints=1,
        **({"max_length": config.max_length_tokens, "disable_dropout": True} if pairs else {}),
    )
    torch.manual_seed(config.seed)  # the new head starts the same on every rank and every try
    network = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=1, dtype=torch.float32
    )
    network.config.pad_token_id = tokenizer.pad_token_id
    kind = PairTrainer if pairs else SequenceTrainer
    return kind(
        model=network,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=Collator(tokenizer.pad_token_id),
        callbacks=[Watch(name)],
    )


def evaluate_rows(
    trainer: Trainer, rows: list[dict[str, Any]], config: RewardModelConfig
) -> dict[str, Any]:
    """Held-out figures. Pairs: accuracy on unanimous pairs (§3.4.1) and on all. Signals: area
    under the ROC curve and expected calibration error. Every rank computes, as ZeRO-3 needs."""
    logits = _logits(trainer, rows)
    targets = np.array([row["target"] for row in rows])
    if config.kind == "signal":
        return {"auc": _auc(logits, targets), "ece": _calibration_error(logits, targets)}
    unanimous = (targets < 1e-6) | (targets > 1 - 1e-6)
    right = (logits > 0) == (targets > 0.5)
    decided = targets != 0.5
    return {
        "accuracy": float(right[decided].mean()) if decided.any() else None,
        "accuracy_unanimous": float(right[unanimous].mean()) if unanimous.any() else None,
        "unanimous_rows": int(unanimous.sum()),
    }


def _logits(trainer: Any, rows: list[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One logit a row: the score, or for pairs the difference of scores."""
    model, device = trainer.model_wrapped, trainer.args.device
    model.eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            batch = {name: value.to(device) for name, value in trainer.data_collator(part).items()}
            scores = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).logits.squeeze(-1)
            if "chosen_ids" in part[0]:
                first, second = torch.chunk(scores, chunks=2)
                scores = first - second
            found.append(scores.float().cpu().numpy())
    logits: np.ndarray[Any, np.dtype[np.float64]] = np.concatenate(found).astype(np.float64)
    return logits


def _auc(logits: Any, labels: Any) -> float | None:
    """Area under the ROC curve; None where one class is absent."""
    from sklearn.metrics import roc_auc_score

    if len(set(labels.tolist())) < 2:
        return None
    return float(roc_auc_score(labels, logits))


def _calibration_error(logits: Any, labels: Any, num_bins: int = 10) -> float:
    """Expected calibration error over equal-width bins of the predicted probability."""
    chances = 1 / (1 + np.exp(-logits))
    bins = np.minimum((chances * num_bins).astype(int), num_bins - 1)
    gaps = [
        abs(chances[bins == b].mean() - labels[bins == b].mean()) * (bins == b).mean()
        for b in range(num_bins)
        if (bins == b).any()
    ]
    return float(sum(gaps))
