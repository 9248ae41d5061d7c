"""A reward model must read the tokens that the policy writes."""

import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flywheel_core.engines.checkpoint import require_same_tokenizer, tokenizer_digest
from flywheel_core.errors import EngineError
from flywheel_core.parents import BUILTIN_TINY
from flywheel_core.recipe import load_recipe
from flywheel_core.stages import stage_named


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(BUILTIN_TINY / "tokenizer.json", folder)
    return folder


def edit(folder: Path, change: Any) -> Path:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


SAVED_OTHERWISE = {
    "padding": lambda content: content.update(
        padding={
            "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<|begin_of_text|>",
        },
        truncation={
            "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
        },
    ),
    "merges as older files write them": lambda content: content["model"].update(
        merges=[" ".join(pair) for pair in content["model"]["merges"]]
    ),
    "a default left out": lambda content: content["model"].pop("ignore_merges"),
    "the decoder": lambda content: content["decoder"].update(trim_offsets=False),
}  # fmt: skip


@pytest.mark.parametrize("change", SAVED_OTHERWISE.values(), ids=SAVED_OTHERWISE)
def test_what_saving_changes_is_no_difference(model: Path, change: Any) -> None:
    edit(model, change)
    require_same_tokenizer([BUILTIN_TINY], {"pointwise_user": model})


def test_a_tokenizer_saved_by_transformers_is_the_same(tmp_path: Path) -> None:
    from flywheel_core.engines.vllm_engine import load_tokenizer

    load_tokenizer(BUILTIN_TINY).save_pretrained(tmp_path)
    require_same_tokenizer([BUILTIN_TINY], {"pointwise_user": tmp_path})


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["model"]["vocab"].update(zebra=len(content["model"]["vocab"])),
        lambda content: content["model"]["merges"].pop(),
        lambda content: content["added_tokens"].pop(),
        lambda content: content["pre_tokenizer"]["pretokenizers"].pop(0),
        lambda content: content["pre_tokenizer"]["pretokenizers"].insert(
            0, {"type": "Digits", "individual_digits": True}
        ),
        lambda content: content.update(normalizer={"type": "Lowercase"}),
        lambda content: content.update(normalizer={"type": "NFD"}),
    ],
    ids=[
        "vocabulary", "merges", "special tokens", "newlines", "digits", "capitals", "accents",
    ],
)  # fmt: skip
def test_other_tokens_are_refused_by_the_models_name(model: Path, change: Any) -> None:
    edit(model, change)
    with pytest.raises(EngineError, match="reward model pointwise_user: its tokenizer"):
        require_same_tokenizer(
            [BUILTIN_TINY], {"pointwise_user": model, "pointwise_internal": BUILTIN_TINY}
        )
    with pytest.raises(EngineError, match=r"differs from that of the policy .*/model; train"):
        require_same_tokenizer([BUILTIN_TINY, model], {"pointwise_user": BUILTIN_TINY})


def test_a_torn_tokenizer_is_an_error_of_its_own(model: Path) -> None:
    (model / "tokenizer.json").write_text("{")
    with pytest.raises(EngineError, match="not a readable tokenizer"):
        tokenizer_digest(model)


TRAINED_HERE = "base", "production", "signal_base", "sft", "dpo", "rl"


@pytest.mark.parametrize(
    ("stage", "differs"),
    [
        ("reward_models", "signal_base"),
        ("rejection_sampling", "pointwise_user"),
        ("rejection_sampling", "signal_thumb_up"),
        ("sft", "pointwise_user"),
        ("sft", "production"),
        ("rl", "pointwise_user"),
        ("rl", "production"),
        ("rl", "dpo"),
        ("evaluate", "pairwise_user"),
        ("evaluate", "production"),
        ("evaluate", "sft"),
        ("evaluate", "dpo"),
        ("evaluate", "rl"),
    ],
)
def test_every_job_that_scores_refuses_other_tokens_before_it_does_anything(
    tmp_path: Path, stage: str, differs: str
) -> None:
    """The context is of no use, so that a job that goes on fails otherwise."""
    rewards = tmp_path / "reward_models"
    folders = {name: tmp_path / name / "model" for name in TRAINED_HERE} | {
        name: rewards / name for name in ("pointwise_user", "pairwise_user", "signal_thumb_up")
    }
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        shutil.copy(BUILTIN_TINY / "tokenizer.json", folder)
        if name == differs:
            edit(folder, lambda content: content.update(normalizer={"type": "Lowercase"}))
    (rewards / "standards.json").write_text('{"pointwise_user": {"mean": 0, "sd": 1}}')
    inputs = {name: tmp_path / name for name in TRAINED_HERE} | {"reward_models": rewards}
    job = importlib.import_module(f"flywheel_core.jobs.{stage}")
    config = stage_named(stage).config(load_recipe("tiny_cpu"))
    context: Any = SimpleNamespace(launch=SimpleNamespace(mode="inline"))
    with pytest.raises(EngineError, match=r"its tokenizer .* differs from that of the policy"):
        job.run(job.Config.model_validate(config), inputs, context)
