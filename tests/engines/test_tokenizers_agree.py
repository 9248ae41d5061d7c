"""A reward model must read the tokens that the policy writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flywheel_core.engines.checkpoint import require_same_tokenizer, tokenizer_digest
from flywheel_core.errors import EngineError
from flywheel_core.parents import BUILTIN_TINY


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


def test_what_saving_changes_is_no_difference(model: Path) -> None:
    edit(model, lambda content: content.update(padding={"strategy": "BatchLongest"}))
    require_same_tokenizer(BUILTIN_TINY, {"pointwise_user": model})


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["model"]["vocab"].update(zebra=len(content["model"]["vocab"])),
        lambda content: content["model"]["merges"].pop(),
        lambda content: content["added_tokens"].pop(),
    ],
    ids=["vocabulary", "merges", "special tokens"],
)
def test_other_tokens_are_refused_by_the_models_name(model: Path, change: Any) -> None:
    edit(model, change)
    with pytest.raises(EngineError, match="reward model pointwise_user: its tokenizer"):
        require_same_tokenizer(
            BUILTIN_TINY, {"pointwise_user": model, "pointwise_internal": BUILTIN_TINY}
        )


def test_a_torn_tokenizer_is_an_error_of_its_own(model: Path) -> None:
    (model / "tokenizer.json").write_text("{")
    with pytest.raises(EngineError, match="not a readable tokenizer"):
        tokenizer_digest(model)
