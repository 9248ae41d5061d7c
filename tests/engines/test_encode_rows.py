"""Encoding a context once gives the very tokens that training saw."""

from typing import Any

import numpy as np
import pytest

from flywheel_core.engines.rendering import encode, encode_rows, render_row
from flywheel_core.parents import BUILTIN_TINY
from flywheel_core.world.answers import sample_response
from flywheel_core.world.contexts import context_of
from flywheel_core.world.product import sample_contexts
from tests.engines.tiny import make_tokenizer

NO_MARKS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def rows() -> list[Any]:
    rng = np.random.default_rng(0)
    found: list[Any] = []
    for draft in sample_contexts("user", 40, 3):
        context = context_of(draft.messages, draft.character_id)
        said = [sample_response(context, rng) for _ in range(3)]
        found += [(draft.messages, text) for text in said]
        found.append((draft.messages, said[0], said[1]))
    odd = [{"role": "user", "content": " ends in spaces  \n"}]
    return [*found, (odd, ""), (odd, "\n  leading"), (odd, "<|eot_id|>", "😂")]


def base_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BUILTIN_TINY)


def plain_tokenizer() -> Any:
    """A template without special tokens between turns: pieces may not be encoded apart."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template = NO_MARKS
    return tokenizer


@pytest.mark.parametrize("make", [base_tokenizer, make_tokenizer, plain_tokenizer])
def test_the_ids_are_those_of_the_whole_text(rows: list[Any], make: Any) -> None:
    tokenizer = make()
    whole = encode(tokenizer, [render_row(tokenizer, row) for row in rows])
    assert encode_rows(tokenizer, rows) == whole
    assert encode_rows(tokenizer, []) == []


def test_a_context_is_encoded_once(rows: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from flywheel_core.engines import rendering

    encoded: list[str] = []

    def counting(tokenizer: Any, texts: Any) -> Any:
        encoded.extend(texts)
        return encode(tokenizer, texts)

    monkeypatch.setattr(rendering, "encode", counting)
    encode_rows(base_tokenizer(), rows)
    contexts = len({str(row[0]) for row in rows})
    assert len(encoded) == contexts + len(rows)
