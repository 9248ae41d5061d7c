"""Loss and gradient of Eq. 1, Eq. 2–3 and Eq. 6 in every parameter, against numbers that share
nothing with what trains: a Llama written out in float64 NumPy, the paper's equations over its
logits, and central differences of one parameter after the other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from flywheel_core.training.data import reward_rows
from flywheel_core.training.reward_trainer import make_trainer
from tests.training.toy import INLINE, Toy, reward_config

Doubles = NDArray[np.float64]
Weights = dict[str, Doubles]
NUM_HEADS, NUM_GROUPS, HEAD_DIM = 2, 1, 4
STEP = 1e-5
ROPE_BASE, NORM_EPS = 10_000.0, 1e-6


@pytest.fixture(scope="module")
def small(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one layer with grouped queries, small enough to step through all of it."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(toy.tokenizer),
        hidden_size=NUM_HEADS * HEAD_DIM,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_GROUPS,
        max_position_embeddings=512,
        initializer_range=0.5,
        rms_norm_eps=NORM_EPS,
        pad_token_id=toy.tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def logits(weights: Weights, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> Doubles:
    """The head's output [n] at each sequence's last token; `ids` [n, t], filled up at the right,
    where a causal model cannot see it."""

    def named(name: str) -> Doubles:
        return weights[f"model.layers.0.{name}.weight"]

    def norm(x: Doubles, gain: Doubles) -> Doubles:
        scaled: Doubles = gain * x / np.sqrt((x**2).mean(-1, keepdims=True) + NORM_EPS)
        return scaled

    def heads(x: Doubles, name: str, count: int) -> Doubles:
        projected = x @ named(f"self_attn.{name}").T
        return projected.reshape(*x.shape[:2], count, HEAD_DIM).transpose(0, 2, 1, 3)

    length = ids.shape[1]
    turn = np.arange(length)[:, None] * ROPE_BASE ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)

    def rotate(x: Doubles) -> Doubles:
        """RoPE: a head's halves are the real and the imaginary parts."""
        turned = (x[..., : HEAD_DIM // 2] + 1j * x[..., HEAD_DIM // 2 :]) * np.exp(1j * turn)
        return np.concatenate([turned.real, turned.imag], axis=-1)

    hidden = weights["model.embed_tokens.weight"][ids]
    x = norm(hidden, named("input_layernorm"))
    queries = rotate(heads(x, "q_proj", NUM_HEADS))
    keys, values = rotate(heads(x, "k_proj", NUM_GROUPS)), heads(x, "v_proj", NUM_GROUPS)
    attention = queries @ keys.transpose(0, 1, 3, 2) / np.sqrt(HEAD_DIM)
    attention = np.exp(np.where(np.tri(length, dtype=bool), attention, -np.inf))
    mixed = (attention / attention.sum(-1, keepdims=True) @ values).transpose(0, 2, 1, 3)
    hidden = hidden + mixed.reshape(hidden.shape) @ named("self_attn.o_proj").T
    x = norm(hidden, named("post_attention_layernorm"))
    gate = x @ named("mlp.gate_proj").T
    up = x @ named("mlp.up_proj").T
    hidden = hidden + (gate / (1 + np.exp(-gate)) * up) @ named("mlp.down_proj").T
    last = norm(hidden, weights["model.norm.weight"])[np.arange(len(ids)), lengths - 1]
    found: Doubles = last @ weights["score.weight"][0]
    return found


def loss_of(weights: Weights, rows: list[Any]) -> float:
    """The mean over rows of −[t log σ(z) + (1 − t) log(1 − σ(z))]. z is r(y₀) − r(y₁) in Eq. 1
    (whose t = 1 is "y₀ is chosen" and t = ½ a tie), s(y₀, y₁) in Eq. 2–3 and u(y) in Eq. 6."""
    names = ("chosen_ids", "rejected_ids") if "chosen_ids" in rows[0] else ("input_ids",)
    sequences = [row[name] for name in names for row in rows]
    lengths = np.array([len(one) for one in sequences])
    ids = np.zeros((len(sequences), lengths.max()), dtype=np.int64)
    for filled, one in zip(ids, sequences, strict=True):
        filled[: len(one)] = one
    z = logits(weights, ids, lengths)
    if len(names) == 2:
        z = z[: len(rows)] - z[len(rows) :]
    chance = 1 / (1 + np.exp(-z))
    target = np.array([row["target"] for row in rows])
    return float(-(target * np.log(chance) + (1 - target) * np.log(1 - chance)).mean())


def differences(weights: Weights, rows: list[Any], name: str, used: list[int]) -> Doubles:
    """d loss / d weight of every entry of the parameter `name`; of the embedding, the rows `used`
    (no other is read)."""
    parameter = weights[name]
    found = np.zeros_like(parameter)
    for index in np.ndindex(parameter.shape):
        if "embed" in name and index[0] not in used:
            continue
        kept = parameter[index]
        sides = []
        for step in (STEP, -STEP):
            parameter[index] = kept + step
            sides.append(loss_of(weights, rows))
        parameter[index] = kept
        found[index] = (sides[0] - sides[1]) / (2 * STEP)
    return found


@pytest.mark.parametrize("kind", ["pointwise", "pairwise", "signal"])
def test_every_parameters_gradient_is_the_equations(
    toy: Toy, small: Path, tmp_path: Path, kind: str
) -> None:
    config = reward_config(kind)
    path = toy.signals if kind == "signal" else toy.pairs
    rows: list[Any] = list(reward_rows(path, config, toy.tokenizer).rows)
    targets = {row["target"] for row in rows}
    assert targets >= ({0.0, 1.0} if kind == "signal" else {0.0, 0.5, 1.0})  # ½: a tie
    trainer = make_trainer(kind, config, INLINE, str(small), toy.tokenizer, rows, tmp_path)
    model: Any = trainer.model
    loss = trainer.compute_loss(model, trainer.data_collator([dict(row) for row in rows]))
    loss.backward()
    weights = {
        name: parameter.detach().double().numpy().copy()
        for name, parameter in model.named_parameters()
    }
    assert loss.item() == pytest.approx(loss_of(weights, rows), rel=1e-5)
    used = sorted({token for row in rows for name in row if "ids" in name for token in row[name]})
    assert len(weights) == 12
    for name, parameter in model.named_parameters():
        expected = differences(weights, rows, name, used)
        scale = np.abs(expected).max()
        assert scale > 1e-4, name
        gradient = parameter.grad.double().numpy()
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * scale, err_msg=name)
