"""The trainers behind `rewards`: TRL's for pairs, transformers' for single sequences."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from torch.utils.data import Sampler
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments
from trl import RewardConfig, RewardTrainer

from flywheel_core.errors import InputDataError
from flywheel_core.training.common import Watch, quiet_libraries, training_arguments
from flywheel_core.training.config import LaunchConfig, RewardModelConfig
from flywheel_core.training.data import RewardRow, length_tokens, padding_id
from flywheel_core.training.reward_metrics import (
    Floats,
    pair_report,
    signal_report,
    two_order_report,
)

EVALUATION_BATCH = 64
BATCHES_GROUPED = 16


def preference_loss(chosen: Tensor, rejected: Tensor, target: Tensor) -> Tensor:
    """−[t log σ(r₀ − r₁) + (1 − t) log σ(r₁ − r₀)], mean over pairs [n]; Eq. 1 where t = 1.

    A tie, t = ½, is both directions at half weight.
    """
    gap = chosen - rejected
    return -(target * logsigmoid(gap) + (1 - target) * logsigmoid(-gap)).mean()


class ByLength(Sampler[int]):
    """An order in which a batch's rows are of similar length, so that little of it is padding.

    Shuffled by (seed, epoch) alone: every rank and every resumed try see the same order. A loss is
    a mean over rows, so the grouping changes which rows meet, never what a row weighs.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        span = self.batch_size * BATCHES_GROUPED
        batches = []
        for start in range(0, len(order), span):
            part = order[start : start + span]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        short = [batch for batch in batches if len(batch) < self.batch_size]
        for index in [*random.permutation(len(whole))]:
            yield from whole[index].tolist()
        for batch in short:
            yield from batch.tolist()


class RowMeanTrainer(Trainer):
    """A trainer whose loss is a mean over rows, taken in `ByLength`'s order.

    transformers must scale accumulated parts by their number (`model_accepts_loss_kwargs` False):
    the parts are equal in rows, and the tokens that it would count are no unit of this loss.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        args = self.args
        step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return ByLength([length_tokens(row) for row in dataset], step, args.seed)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        return


class PairTrainer(RowMeanTrainer, RewardTrainer):
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


class SequenceTrainer(RowMeanTrainer):
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
    rows: Sequence[RewardRow],
    output: Path,
) -> Trainer:
    """The trainer of one model, from the language model at `model` with a new one-output head."""
    from datasets import Dataset

    quiet_libraries()
    pairs = config.kind == "pointwise"
    arguments: Any = training_arguments(
        RewardConfig if pairs else TrainingArguments,
        config,
        launch,
        output,
        num_rows=len(rows),
        **({"max_length": None, "disable_dropout": True} if pairs else {}),
    )
    torch.manual_seed(config.seed)  # the new head starts the same on every rank and every try
    network = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=1, dtype=torch.float32
    )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding_id(tokenizer))
    network.config.pad_token_id = tokenizer.pad_token_id
    kind = PairTrainer if pairs else SequenceTrainer
    trainer = kind(
        model=network,
        args=arguments,
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        processing_class=tokenizer,
        data_collator=Collator(tokenizer.pad_token_id),
        callbacks=[Watch(name, launch)],
    )
    trainer.model_accepts_loss_kwargs = False
    return trainer


def evaluate_rows(
    name: str, trainer: Trainer, rows: Sequence[RewardRow], config: RewardModelConfig
) -> dict[str, Any]:
    """Held-out figures of `reward_metrics`; every rank must call this, and all get the same.

    Raises `InputDataError` where a logit of the model `name` is no finite number: a comparison
    with NaN is false, so that figures of it would look like a model's.
    """
    logits = row_logits(trainer, rows)
    broken = int((~np.isfinite(logits)).sum())
    if broken:
        raise InputDataError(
            f"{name} gave no finite logit for {broken} of {len(logits)} held-out rows, so its "
            f"training diverged; lower its learning_rate ({config.learning_rate:g}) or raise its "
            "warmup_share, and look at the loss in the job's log"
        )
    targets = np.array([row["target"] for row in rows])
    if config.kind == "signal":
        return signal_report(logits, targets)
    report = pair_report if config.kind == "pointwise" else two_order_report
    return report(logits, targets, np.array([row.get("consensus", False) for row in rows]))


def row_logits(trainer: Any, rows: Sequence[RewardRow]) -> Floats:
    """One logit a row [n]: the score, or for pairs the difference of scores.

    The ranks share the batches, and each computes as many, as ZeRO-3's gathering needs.
    """
    order = sorted(range(len(rows)), key=lambda index: length_tokens(rows[index]))
    batches = [
        order[start : start + EVALUATION_BATCH] for start in range(0, len(order), EVALUATION_BATCH)
    ]
    rank, ranks = trainer.accelerator.process_index, trainer.accelerator.num_processes
    batches += batches[-1:] * (-len(batches) % ranks)
    trainer.model_wrapped.eval()
    found = np.zeros(len(rows))
    for batch, logits in _gathered(
        [
            (batch, _batch_logits(trainer, [rows[i] for i in batch]))
            for batch in batches[rank::ranks]
        ]
    ):
        found[batch] = logits
    return found


@torch.no_grad()
def _batch_logits(trainer: Any, rows: list[RewardRow]) -> Floats:
    device = trainer.args.device
    batch = {name: value.to(device) for name, value in trainer.data_collator(rows).items()}
    logits = trainer.model_wrapped(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).logits.squeeze(-1)
    if "chosen_ids" in rows[0]:
        first, second = torch.chunk(logits, chunks=2)
        logits = first - second
    values: Floats = logits.float().cpu().numpy().astype(np.float64)
    return values


def _gathered(mine: list[Any]) -> list[Any]:
    """Every rank's list, joined."""
    if not torch.distributed.is_initialized():
        return mine
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return [item for part in parts for item in part]
