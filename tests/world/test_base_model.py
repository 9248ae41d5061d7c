"""The shipped base model is what its recipe makes, and what the loop needs to start from."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flywheel_core.training.pretrain import (
    BASE_MODEL_DIR,
    PretrainConfig,
    PretrainResult,
    pretrain,
    prompt_text,
)
from flywheel_core.world.product import sample_contexts

SHIPPED = PretrainResult.model_validate_json((BASE_MODEL_DIR / "pretrain.json").read_text())
TINY = PretrainConfig(
    num_tokenizer_documents=200,
    num_documents=96,
    num_eval_prompts=8,
    vocab_size=400,
    hidden_size=32,
    intermediate_size=32,
    num_heads=1,
    num_layers=1,
    max_new_tokens=8,
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE_MODEL_DIR)


def test_the_shipped_model_was_made_by_the_default_recipe() -> None:
    assert SHIPPED.config == PretrainConfig()


def test_the_shipped_model_speaks_with_room_to_climb() -> None:
    assert SHIPPED.features["parses"] >= 0.95
    assert SHIPPED.features["topic_match"] >= 0.6
    assert 0.6 <= SHIPPED.mean_utility <= 1.2
    assert 1.4 <= SHIPPED.sd_utility <= 1.9
    assert (BASE_MODEL_DIR / "model.safetensors").stat().st_size < 4e6


def test_prompts_fit_the_model(tokenizer: Any) -> None:
    drafts = sample_contexts("internal", 2_000, seed=1) + sample_contexts("user", 2_000, seed=1)
    texts = [prompt_text(draft.messages) for draft in drafts]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    assert sum(lengths) / len(lengths) < 65
    assert max(lengths) + SHIPPED.config.max_new_tokens <= SHIPPED.config.max_positions


def test_the_chat_template_is_llama_3_in_shape(tokenizer: Any) -> None:
    messages = sample_contexts("user", 20, seed=2)[7].messages
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == prompt_text(messages)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin_of_text|>", "<|eot_id|>")
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, None)
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids) == rendered


def test_assistant_tokens_can_be_told_apart_with_their_end_of_turn(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "Any tips for art?"},
        {"role": "assistant", "content": "Nothing beats art. 🔥"},
    ]
    encoded = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [
        token
        for token, mark in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if mark
    ]
    assert tokenizer.decode(marked) == "Nothing beats art. 🔥<|eot_id|>"


def test_a_tiny_training_repeats_byte_for_byte(tmp_path: Path) -> None:
    results = [pretrain(TINY, tmp_path / name) for name in ("first", "again")]
    assert results[0] == results[1]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again")]
    assert weights[0] == weights[1]
    other = pretrain(TINY.model_copy(update={"seed": 1}), tmp_path / "other")
    assert other.final_loss != results[0].final_loss


def test_training_leaves_the_callers_torch_state_alone(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    num_threads = torch.get_num_threads()
    pretrain(TINY, tmp_path)
    assert torch.rand(1) == expected
    assert torch.get_num_threads() == num_threads


@pytest.mark.heavy
@pytest.mark.timeout(3_600)
def test_a_rebuild_speaks_like_the_shipped_model(tmp_path: Path) -> None:
    """The command a user types, in a process of its own: about 250 CPU-seconds; the time limit
    allows for a crowded machine.

    Tolerances: four standard errors of 1,000 sampled answers, and what another CPU's rounding may
    change in training.
    """
    command = [sys.executable, "-m", "flywheel_core.training.pretrain", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rebuilt = PretrainResult.model_validate_json((tmp_path / "pretrain.json").read_text())
    assert rebuilt.num_parameters == SHIPPED.num_parameters
    assert rebuilt.num_train_tokens == SHIPPED.num_train_tokens
    assert rebuilt.features["parses"] == pytest.approx(SHIPPED.features["parses"], abs=0.03)
    assert rebuilt.features["topic_match"] == pytest.approx(
        SHIPPED.features["topic_match"], abs=0.08
    )
    assert rebuilt.mean_utility == pytest.approx(SHIPPED.mean_utility, abs=0.25)
    assert rebuilt.final_loss == pytest.approx(SHIPPED.final_loss, abs=0.02)
    for name in ("tokenizer.json", "config.json"):
        made, shipped = ((where / name).read_text() for where in (tmp_path, BASE_MODEL_DIR))
        assert json.loads(made) == json.loads(shipped)


@pytest.mark.heavy
def test_it_loads_as_a_reward_model() -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(BASE_MODEL_DIR, num_labels=1)
    assert model.score.out_features == 1
    assert model.config.pad_token_id is not None
