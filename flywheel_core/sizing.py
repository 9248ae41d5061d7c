"""Does it fit? Memory and GPU-hours of each stage, from a model's `config.json` by arithmetic.

An estimate on paper, before anything is submitted. Parameters are counted exactly for the Llama
family; `tests/spine` holds the count against the meta-device model. Bytes and speeds are
stated where they stand.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from flywheel_core.errors import ConfigError

GIB = 2**30

MIXED_ADAM_BYTES = 16
"""bf16 weights and gradients (2 + 2), fp32 master weights and two Adam moments (4 + 4 + 4)."""
FP32_ADAM_BYTES = 16
"""fp32 weights, gradients and two Adam moments (4 each)."""
ACTIVATION_BYTES_PER_TOKEN_LAYER_WIDTH = 34
"""Korthikanti et al. 2022, Eq. 2, without the attention scores; with checkpointing 2 remain."""


class LlamaShape(BaseModel):
    """The fields of a Llama `config.json` that say how large it is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int | None = None
    tie_word_embeddings: bool = False

    @property
    def head_width(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def num_parameters(self) -> int:
        """Exact parameter count of `LlamaForCausalLM`."""
        query = self.hidden_size * self.num_attention_heads * self.head_width
        key_value = 2 * self.hidden_size * self.num_key_value_heads * self.head_width
        mlp = 3 * self.hidden_size * self.intermediate_size
        layer = 2 * query + key_value + mlp + 2 * self.hidden_size
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embeddings + self.hidden_size

    def key_value_bytes_per_token(self, bytes_per_value: int) -> int:
        width = 2 * self.num_key_value_heads * self.head_width
        return self.num_hidden_layers * width * bytes_per_value


@dataclass(frozen=True)
class RankMemory:
    """Memory of one training rank, GiB."""

    states_gib: float
    activations_gib: float

    @property
    def total_gib(self) -> float:
        return self.states_gib + self.activations_gib


def read_shape(config_path: Path) -> LlamaShape:
    """The shape in a `config.json`."""
    if not config_path.is_file():
        raise ConfigError(f"model config {config_path}: no such file; give a checkpoint folder")
    data = json.loads(config_path.read_text())
    data.setdefault("num_key_value_heads", data.get("num_attention_heads"))
    return LlamaShape.model_validate(data)


def training_rank(
    shape: LlamaShape,
    *,
    num_ranks: int,
    tokens_per_rank: int,
    precision: str,
    checkpointing: bool,
    num_reference_models: int = 0,
) -> RankMemory:
    """ZeRO-3: parameters, gradients and optimiser states are sharded over all ranks; so are the
    reference models' weights (DPO, GRPO). Activations are each rank's own."""
    weight_bytes = 2 if precision == "bf16" else 4
    state_bytes = MIXED_ADAM_BYTES if precision == "bf16" else FP32_ADAM_BYTES
    states = shape.num_parameters * (state_bytes + num_reference_models * weight_bytes) / num_ranks
    per_token = 2 if checkpointing else ACTIVATION_BYTES_PER_TOKEN_LAYER_WIDTH
    widths = shape.num_hidden_layers * shape.hidden_size * weight_bytes / 2
    activations = tokens_per_rank * per_token * widths
    logits = tokens_per_rank * shape.vocab_size * 4
    return RankMemory(states / GIB, (activations + logits) / GIB)


def serving_gib(
    shape: LlamaShape, *, max_model_len: int, max_num_seqs: int, bytes_per_value: int = 2
) -> float:
    """Weights and a full KV cache of one engine, over all its tensor-parallel ranks."""
    weights = shape.num_parameters * bytes_per_value
    cache = shape.key_value_bytes_per_token(bytes_per_value) * max_model_len * max_num_seqs
    return (weights + cache) / GIB


def training_gpu_hours(
    shape: LlamaShape, *, num_tokens: int, peak_flops: float, utilisation: float
) -> float:
    """6 N D floating-point operations at a share `utilisation` of `peak_flops` a GPU."""
    return 6 * shape.num_parameters * num_tokens / (peak_flops * utilisation) / 3600


def generation_gpu_hours(
    shape: LlamaShape, *, num_tokens: int, peak_flops: float, utilisation: float
) -> float:
    """2 N D floating-point operations; decoding reaches a small `utilisation`."""
    return 2 * shape.num_parameters * num_tokens / (peak_flops * utilisation) / 3600
