"""Parquet rows to token ids, by the rendering that serving and scoring use too.

A row longer than `max_length_tokens` is dropped and counted: cut at the left it would lose the
character's instructions, cut at the right the response. The scorer refuses such rows as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NotRequired, TypedDict, TypeVar

from flywheel_core.engines.rendering import (
    encode,
    render_pairwise,
    render_pointwise,
    render_prompt,
)
from flywheel_core.errors import InputDataError
from flywheel_core.records import read_table
from flywheel_core.training.config import RewardModelConfig

IGNORED = -100
"""The label that takes a position out of the loss."""


class SftRow(TypedDict):
    """`labels` are `input_ids` where the assistant's last turn is, else `IGNORED`."""

    input_ids: list[int]
    labels: list[int]


class PreferenceRow(TypedDict):
    """What TRL's preference collator takes; both responses end with the end-of-turn token."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


class PairRow(TypedDict):
    """Two whole sequences; `target` is the share of votes for the first, `consensus` whether three
    annotators agree (§3.4.1), False where the file does not say."""

    chosen_ids: list[int]
    rejected_ids: list[int]
    target: float
    consensus: bool


class SequenceRow(TypedDict):
    """One whole sequence and the probability it should get; `consensus` as a `PairRow`'s."""

    input_ids: list[int]
    target: float
    consensus: NotRequired[bool]


RewardRow = PairRow | SequenceRow
SEQUENCES = ("input_ids", "chosen_ids", "rejected_ids")


RowT = TypeVar("RowT", SftRow, PreferenceRow, PairRow, SequenceRow, RewardRow)


@dataclass(frozen=True)
class Rows(Generic[RowT]):
    """Token rows that fit, and how many did not or said nothing."""

    rows: list[RowT]
    num_too_long: int = 0
    num_ties: int = 0

    def counts(self, prefix: str = "") -> dict[str, int]:
        """For a training's metrics."""
        return {f"{prefix}rows": len(self.rows), f"{prefix}rows_too_long": self.num_too_long}


def sft_rows(path: Path, tokenizer: Any, max_length_tokens: int) -> Rows[SftRow]:
    """Supervised rows in the order of the file; the loss is on the response and its end."""
    table = read_table(path).to_pylist()
    messages = [row["messages"] for row in table]
    prompts = encode(tokenizer, [render_prompt(tokenizer, turns) for turns in messages])
    answers = encode_responses(tokenizer, messages, [row["response"] for row in table])
    rows = [
        SftRow(input_ids=prompt + answer, labels=[IGNORED] * len(prompt) + answer)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    kept = [row for row in rows if len(row["input_ids"]) <= max_length_tokens]
    return Rows(kept, len(rows) - len(kept))


def preference_rows(path: Path, tokenizer: Any, max_length_tokens: int) -> Rows[PreferenceRow]:
    """Pairs for DPO, the better response (`target` above one half) as the chosen one.

    DPO has no soft targets here: ties are dropped and counted, a majority counts as a whole.
    A file without `target` has the better response as `response_0`.
    """
    table = read_table(path).to_pylist()
    decided = [row for row in table if row.get("target", 1.0) != 0.5]
    messages = [row["messages"] for row in decided]
    prompts = encode(tokenizer, [render_prompt(tokenizer, turns) for turns in messages])
    better = [0 if row.get("target", 1.0) > 0.5 else 1 for row in decided]
    chosen, rejected = (
        encode_responses(
            tokenizer,
            messages,
            [
                row[f"response_{abs(side - flip)}"]
                for row, side in zip(decided, better, strict=True)
            ],
        )
        for flip in (0, 1)
    )
    rows = [
        PreferenceRow(prompt_ids=prompt, chosen_ids=first, rejected_ids=second)
        for prompt, first, second in zip(prompts, chosen, rejected, strict=True)
    ]
    kept = [
        row
        for row in rows
        if len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        <= max_length_tokens
    ]
    return Rows(kept, len(rows) - len(kept), len(table) - len(decided))


def reward_rows(path: Path, config: RewardModelConfig, tokenizer: Any) -> Rows[RewardRow]:
    """Tokenised rows of one reward model.

    Pointwise: `chosen_ids` and `rejected_ids` are the ids of `response_0` and `response_1`,
    `target` the share of votes for the first. Pairwise: each pair in both orders, one after the
    other, which is Eq. 3's random position without its noise. Signal: one response, its label.
    """
    table = read_table(path).to_pylist()
    build = {"pointwise": _pointwise, "pairwise": _pairwise, "signal": _signal}[config.kind]
    rows = build(table, tokenizer)
    together = 2 if config.kind == "pairwise" else 1  # both orders stay, or neither does
    kept: list[RewardRow] = []
    for start in range(0, len(rows), together):
        group = rows[start : start + together]
        if max(map(length_tokens, group)) <= config.max_length_tokens:
            kept += group
    return Rows(kept, len(rows) - len(kept))


def require_rows(path: Path, found: Rows[RowT], max_length_tokens: int) -> Rows[RowT]:
    """The rows, or an error that says why there are none; a dropped row is worth a line."""
    if found.num_too_long:
        print(
            f"warning: {path.name}: {found.num_too_long} rows longer than max_length_tokens "
            f"{max_length_tokens} are left out",
            flush=True,
        )
    if not found.rows:
        why = f"all {found.num_too_long} are longer than max_length_tokens {max_length_tokens}"
        raise InputDataError(
            f"{path.name}: no rows to train on; "
            + (f"{why}; raise it" if found.num_too_long else "look at the stage that made it")
        )
    return found


def length_tokens(row: Mapping[str, Any]) -> int:
    """The longest sequence of a reward model's row, which its batch is padded to."""
    return max(len(row[name]) for name in SEQUENCES if name in row)


def encode_responses(
    tokenizer: Any, messages: Sequence[Any], responses: Sequence[str]
) -> list[list[int]]:
    """Token ids of each response as an assistant's turn, up to and with the end-of-turn token.

    Encoded apart from the prompt, because that is where the model begins to speak.
    """
    texts = []
    for turns, response in zip(messages, responses, strict=True):
        prompt, whole = (
            render_prompt(tokenizer, turns),
            render_pointwise(tokenizer, turns, response),
        )
        if not whole.startswith(prompt):
            raise InputDataError(
                "the tokenizer's chat template changes a prompt when it is answered; use one "
                "that only appends"
            )
        texts.append(whole[len(prompt) :])
    special = special_ids(tokenizer)
    return [_up_to_end_of_turn(ids, special) for ids in encode(tokenizer, texts)]


def end_of_turn_id(tokenizer: Any) -> int:
    """The token that the chat template closes an assistant's turn with."""
    last = encode_responses(tokenizer, [[{"role": "user", "content": "a"}]], ["b"])[0][-1]
    if last not in special_ids(tokenizer):
        raise InputDataError(
            f"the tokenizer's chat template closes a turn with {tokenizer.decode([last])!r}, "
            "which is no special token; use a template with an end-of-turn token"
        )
    return last


def special_ids(tokenizer: Any) -> set[int]:
    """Every special token, also those that no role of the tokenizer (bos, eos, …) names."""
    added = tokenizer.added_tokens_decoder.items()
    return {*tokenizer.all_special_ids, *(index for index, token in added if token.special)}


def padding_id(tokenizer: Any) -> int:
    """A padding token that no text contains.

    A sequence classifier reads the last token that is not padding: were the end of a turn the
    padding too (a tokenizer without one usually takes it), training would read the token before
    it, and vLLM the last one.
    """
    end_of_turn = end_of_turn_id(tokenizer)
    added = sorted(tokenizer.get_added_vocab().items())
    named = [index for token, index in added if "pad" in token.lower()]
    for index in [tokenizer.pad_token_id, *named]:
        if index is not None and index not in (end_of_turn, tokenizer.eos_token_id):
            return int(index)
    raise InputDataError(
        f"the tokenizer has no padding token of its own (pad_token is {tokenizer.pad_token!r}); "
        "set pad_token to a reserved special token"
    )


def _up_to_end_of_turn(ids: list[int], special: set[int]) -> list[int]:
    """Some templates put a line break after the end of a turn; nobody has to say it."""
    ends = [index for index, token in enumerate(ids) if token in special]
    return ids[: ends[-1] + 1] if ends else ids


def _pointwise(table: list[Any], tokenizer: Any) -> list[RewardRow]:
    first, second = (
        encode(
            tokenizer,
            [
                render_pointwise(tokenizer, row["messages"], row[f"response_{side}"])
                for row in table
            ],
        )
        for side in (0, 1)
    )
    return [
        PairRow(
            chosen_ids=ids_0,
            rejected_ids=ids_1,
            target=float(row["target"]),
            consensus=bool(row.get("consensus")),
        )
        for row, ids_0, ids_1 in zip(table, first, second, strict=True)
    ]


def _pairwise(table: list[Any], tokenizer: Any) -> list[RewardRow]:
    texts, targets, agreed = [], [], []
    for row in table:
        pair = (row["response_0"], row["response_1"])
        texts += [
            render_pairwise(tokenizer, row["messages"], *shown) for shown in (pair, pair[::-1])
        ]
        targets += [float(row["target"]), 1.0 - row["target"]]
        agreed += [bool(row.get("consensus"))] * 2
    return [
        SequenceRow(input_ids=ids, target=target, consensus=consensus)
        for ids, target, consensus in zip(encode(tokenizer, texts), targets, agreed, strict=True)
    ]


def _signal(table: list[Any], tokenizer: Any) -> list[RewardRow]:
    texts = [render_pointwise(tokenizer, row["messages"], row["response"]) for row in table]
    return [
        SequenceRow(input_ids=ids, target=float(row["label"]))
        for row, ids in zip(table, encode(tokenizer, texts), strict=True)
    ]
