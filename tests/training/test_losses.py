"""Losses and gradients of our trainers against float64 references that know neither padding nor
batches: each sequence goes alone through a double-precision copy of the model."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flywheel_core.training import dpo, sft
from flywheel_core.training.data import PreferenceRow, preference_rows, reward_rows, sft_rows
from flywheel_core.training.reward_trainer import make_trainer
from flywheel_core.training.rewards import RewardModelSpec, run_reward_models
from tests.training.toy import (
    DPO,
    INLINE,
    NUM_ROWS,
    SFT,
    Toy,
    largest_gap,
    reward_config,
)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def cross_entropy(logit: float, target: float) -> float:
    return -(target * math.log(sigmoid(logit)) + (1 - target) * math.log(1 - sigmoid(logit)))


def reference(model: Any, rows: list[Any]) -> tuple[float, torch.Tensor]:
    """Mean loss of Eq. 1 (pairs) or Eq. 2/6 (sequences) and its gradient on the head [1, d]:
    d loss / d logit = σ(logit) − t."""
    double = copy.deepcopy(model).double().eval()
    double.zero_grad()
    losses = []
    for row in rows:
        if "chosen_ids" in row:
            first, second = (
                double(torch.tensor([row[name]])).logits[0, 0]
                for name in ("chosen_ids", "rejected_ids")
            )
            logit = first - second
        else:
            logit = double(torch.tensor([row["input_ids"]])).logits[0, 0]
        losses.append(cross_entropy(float(logit), row["target"]))
        ((sigmoid(float(logit)) - row["target"]) / len(rows) * logit).backward()
    return float(np.mean(losses)), double.score.weight.grad


@pytest.mark.parametrize("kind", ["pointwise", "pairwise", "signal"])
def test_reward_losses_are_the_papers(toy: Toy, tmp_path: Path, kind: str) -> None:
    config = reward_config(kind)
    path = toy.signals if kind == "signal" else toy.pairs
    rows = reward_rows(path, config, toy.tokenizer).rows
    trainer = make_trainer(kind, config, INLINE, str(toy.model), toy.tokenizer, rows, tmp_path)
    model: Any = trainer.model
    expected, gradient = reference(model, list(rows))
    model.zero_grad()
    loss = trainer.compute_loss(model, trainer.data_collator([dict(row) for row in rows]))
    loss.backward()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(model.score.weight.grad.double(), gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["pointwise", "signal"])
def test_accumulated_parts_weigh_as_one_batch(toy: Toy, tmp_path: Path, kind: str) -> None:
    path = toy.signals if kind == "signal" else toy.pairs
    found = []
    for part in (None, 2):
        launch = INLINE.model_copy(update={"rows_per_device_max": part})
        spec = RewardModelSpec("m", reward_config(kind), path, path)
        result = run_reward_models(
            [spec], model_dir=toy.model, output_dir=tmp_path / f"{part}", launch_config=launch
        )
        found.append(result.model_dirs["m"])
    assert largest_gap(*found) < 2e-5


def test_sft_loss_is_the_mean_over_response_tokens(toy: Toy, tmp_path: Path) -> None:
    """The first step takes all rows at once; its logged loss is the mean of the negative log
    likelihood over every response token, whatever the row it stands in."""
    config = SFT.model_copy(update={"global_batch_size": NUM_ROWS, "num_checkpoints": 1})
    expected = token_mean(toy)
    found = []
    for part in (None, 3):
        launch = INLINE.model_copy(update={"rows_per_device_max": part})
        result = sft.run_sft(
            config,
            model_dir=toy.model,
            dataset_path=toy.sft,
            output_dir=tmp_path / f"{part}",
            launch_config=launch,
        )
        assert result.metrics["first_loss"] == pytest.approx(expected, rel=1e-5)
        found.append(result.model_dir)
    assert largest_gap(*found) < 2e-4  # Adam's first step is the sign of a gradient


def token_mean(toy: Toy) -> float:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(toy.model).double().eval()
    total, count = 0.0, 0
    for row in sft_rows(toy.sft, toy.tokenizer, 200).rows:
        with torch.no_grad():
            chances = model(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        for position, label in enumerate(row["labels"]):
            if label >= 0:
                total -= float(chances[position - 1, label])
                count += 1
    return total / count


@pytest.mark.parametrize("mask_eot", [True, False])
def test_dpo_loss_and_its_end_of_turn_mask(toy: Toy, tmp_path: Path, mask_eot: bool) -> None:
    config = DPO.model_copy(update={"mask_eot": mask_eot})
    arguments = {"model": str(toy.model), "dataset": str(toy.pairs), "output": str(tmp_path)}
    trainer, counts = dpo.make_trainer(config, INLINE, arguments)
    assert counts["rows_tied"] == 3
    rows = preference_rows(toy.pairs, toy.tokenizer, 200).rows
    with torch.no_grad():  # away from the reference, where the loss is log 2 whatever the mask
        for index, weight in enumerate(trainer.model.parameters()):
            weight += 0.05 * torch.randn(weight.shape, generator=torch.manual_seed(index))
    batch = trainer.data_collator([dict(row) for row in rows])
    learned = batch["completion_mask"].sum().item()
    tokens = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    assert learned == tokens - (2 * len(rows) if mask_eot else 0)
    loss = trainer.compute_loss(trainer.model.eval(), batch)
    expected = dpo_reference(trainer.model, trainer.ref_model, rows, config.beta, mask_eot)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(loss) != pytest.approx(math.log(2), abs=1e-3)


def dpo_reference(
    policy: Any, frozen: Any, rows: list[PreferenceRow], beta: float, mask_eot: bool
) -> float:
    """−log σ(β[(log π − log π_ref)(chosen) − (…)(rejected)]), mean over pairs."""

    def log_ratio(row: PreferenceRow, side: str) -> float:
        ids = row["prompt_ids"] + row[side]  # type: ignore[literal-required]
        end = len(ids) - (1 if mask_eot else 0)
        sums = []
        for model in (policy, frozen):
            with torch.no_grad():
                double = copy.deepcopy(model).double().eval()
                chances = double(torch.tensor([ids])).logits[0].log_softmax(-1)
            sums.append(
                sum(float(chances[i - 1, ids[i]]) for i in range(len(row["prompt_ids"]), end))
            )
        return sums[0] - sums[1]

    gaps = [log_ratio(row, "chosen_ids") - log_ratio(row, "rejected_ids") for row in rows]
    return float(np.mean([-math.log(sigmoid(beta * gap)) for gap in gaps]))
