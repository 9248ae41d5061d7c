"""Messages to model text: one definition for training, serving and scoring.

A reward model must see at scoring time exactly the tokens it was trained on, so both sides call
these functions and `encode`. The chat template writes the BOS token itself; adding special tokens
again would double it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from flywheel_core.engines.base import Messages, ScoreRow
from flywheel_core.errors import EngineError

TEMPLATE_VARIABLES: Mapping[str, Any] = {"date_string": "26 Jul 2024"}
"""Llama 3.1's template writes today's date into the prompt unless told one: rendering must give
the same tokens tomorrow. This is the template's own default. Other templates ignore it."""


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that rendering uses."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...

    def __call__(self, text: Any, **options: Any) -> Any: ...


def _render(tokenizer: ChatTokenizer, messages: Messages, *, answer_next: bool) -> str:
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in messages]
    text = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=answer_next, **TEMPLATE_VARIABLES
    )
    return str(text)


def render_prompt(tokenizer: ChatTokenizer, messages: Messages) -> str:
    """Context up to where the assistant begins to speak."""
    if not messages or messages[-1]["role"] != "user":
        last = messages[-1]["role"] if messages else "nothing"
        raise EngineError(
            f"messages must end with the user turn to be answered, but end with {last!r}; "
            "drop the trailing turns"
        )
    return _render(tokenizer, messages, answer_next=True)


def render_pointwise(tokenizer: ChatTokenizer, messages: Messages, response: str) -> str:
    """Context and one response as an assistant turn, closed by the end-of-turn token."""
    turn = {"role": "assistant", "content": response}
    return _render(tokenizer, [*messages, turn], answer_next=False)


def render_pairwise(
    tokenizer: ChatTokenizer, messages: Messages, response_0: str, response_1: str
) -> str:
    """Context and two consecutive assistant turns; position tells the responses apart (Eq. 2).

    The second turn is what the template adds for `response_1` alone, so no role beyond the
    template's own is needed.
    """
    context = _render(tokenizer, messages, answer_next=False)
    first = render_pointwise(tokenizer, messages, response_0)
    second = render_pointwise(tokenizer, messages, response_1)
    if not second.startswith(context):
        raise EngineError(
            "the tokenizer's chat template changes earlier turns when a turn is added, so two "
            "responses cannot share a context; use a template that only appends"
        )
    return first + second[len(context) :]


def render_row(tokenizer: ChatTokenizer, row: ScoreRow) -> str:
    """Pointwise for (messages, response), pairwise for (messages, response_0, response_1)."""
    if len(row) == 3:
        return render_pairwise(tokenizer, *row)
    return render_pointwise(tokenizer, *row)


def encode_rows(tokenizer: Any, rows: Sequence[ScoreRow]) -> list[list[int]]:
    """The token ids of `encode(render_row(row))`, each context encoded once.

    Candidates of one prompt share it, and it is most of their text. A tokenizer cuts text at its
    special tokens before it does anything else, so context and rest may be encoded apart exactly
    where one of these stands between them; elsewhere the whole text is encoded.
    """
    special = tuple(
        token.content for token in tokenizer.added_tokens_decoder.values() if token.special
    )
    contexts: dict[int, str] = {}  # by identity: `rows` keeps the objects alive
    heads, rests = [], []
    for row in rows:
        if id(row[0]) not in contexts:
            contexts[id(row[0])] = _render(tokenizer, row[0], answer_next=False)
        context, whole = contexts[id(row[0])], render_row(tokenizer, row)
        rest = whole[len(context) :] if whole.startswith(context) else ""
        apart = bool(rest) and (context.endswith(special) or rest.startswith(special))
        heads.append(context if apart else "")
        rests.append(rest if apart else whole)
    distinct = sorted({head for head in heads if head})
    ids_of = dict(zip(distinct, encode(tokenizer, distinct), strict=True))
    return [
        [*ids_of.get(head, ()), *ids]
        for head, ids in zip(heads, encode(tokenizer, rests), strict=True)
    ]


def encode(tokenizer: ChatTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered texts, with no special tokens added."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids
