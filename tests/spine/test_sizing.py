"""The arithmetic of `flywheel plan` against published numbers."""

import pytest

from flywheel_core.sizing import GIB, LlamaShape, training_gpu_hours, training_rank

LLAMA_70B = LlamaShape(
    vocab_size=128256,
    hidden_size=8192,
    intermediate_size=28672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
)
LLAMA_8B = LlamaShape(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


def test_parameter_counts_are_the_published_ones() -> None:
    assert LLAMA_8B.num_parameters == 8_030_261_248
    assert LLAMA_70B.num_parameters == 70_553_706_496


def test_zero3_shards_every_state() -> None:
    options = {"tokens_per_rank": 4096, "precision": "bf16", "checkpointing": True}
    eight = training_rank(LLAMA_70B, num_ranks=8, **options)  # type: ignore[arg-type]
    sixtyfour = training_rank(LLAMA_70B, num_ranks=64, **options)  # type: ignore[arg-type]
    assert eight.states_gib == pytest.approx(70_553_706_496 * 16 / 8 / GIB)
    assert sixtyfour.states_gib == pytest.approx(eight.states_gib / 8)
    assert sixtyfour.activations_gib == eight.activations_gib


def test_key_value_cache_of_a_grouped_query_model() -> None:
    # 80 layers x 2 (key and value) x 8 heads x 128 wide x 2 bytes
    assert LLAMA_70B.key_value_bytes_per_token(2) == 80 * 2 * 8 * 128 * 2


def test_training_cost_is_six_flops_a_parameter_and_token() -> None:
    hours = training_gpu_hours(LLAMA_8B, num_tokens=10**9, peak_flops=1e15, utilisation=0.4)
    assert hours == pytest.approx(6 * 8.030261248e9 * 1e9 / 4e14 / 3600)


@pytest.mark.parametrize("shape", [LLAMA_8B, LLAMA_70B], ids=["8B", "70B"])
def test_the_count_is_that_of_the_model_itself(shape: LlamaShape) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**shape.model_dump(exclude_none=True)))
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.num_parameters
