"""Pairs of responses to the same prompt: drafting, filtering, splitting, and the DPO patch.

A vote is 1 where the annotator preferred `response_0`.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flywheel_core.evaluation.features import emoji_count
from flywheel_core.records import Message

TAGS = ("false_refusal", "templated", "violates_character")
"""The two questions always asked (§2.2.2), and the steerability tag."""


@dataclass(frozen=True)
class PairDraft:
    """Two responses to one prompt, before anybody has judged them. `context` holds the
    prompt's fields of `records.CONTEXT_FIELDS` and its `prompt_id`."""

    context: Mapping[str, Any]
    response_0: str
    response_1: str
    policy_0: str
    policy_1: str

    @property
    def messages(self) -> list[Message]:
        return list(self.context["messages"])


@dataclass(frozen=True)
class Judgement:
    """What the annotators of one pair said. `tags` maps `false_refusal_0` … to a majority
    answer; a question nobody was asked is absent."""

    votes: tuple[int, ...]
    tags: Mapping[str, bool] = field(default_factory=dict)

    @property
    def target(self) -> float:
        """Share of votes for `response_0`; a tie is one half."""
        return sum(self.votes) / len(self.votes)


class AnnotationSource(Protocol):
    """Where labels come from."""

    def judge(self, pairs: Sequence[PairDraft], seed: int) -> list[Judgement]:
        """One judgement a pair, in order."""


def filter_pairs(
    pairs: Sequence[PairDraft], *, length_difference_words_max: int, emoji_difference_max: int
) -> tuple[list[PairDraft], Counter[str]]:
    """Drop pairs that differ superficially (§2.2.2) or not at all; count what went and why."""
    kept: list[PairDraft] = []
    dropped: Counter[str] = Counter()
    for pair in pairs:
        reason = _filter_reason(pair, length_difference_words_max, emoji_difference_max)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(pair)
    return kept, dropped


def _filter_reason(pair: PairDraft, length_max: int, emoji_max: int) -> str:
    first, second = pair.response_0, pair.response_1
    if not first.strip() or not second.strip():
        return "empty"
    if first == second:
        return "identical"
    if abs(len(first.split()) - len(second.split())) > length_max:
        return "length_difference"
    if abs(emoji_count(first) - emoji_count(second)) > emoji_max:
        return "emoji_difference"
    return ""


def is_held_out(conversation_id: str, share: float) -> bool:
    """Whether a conversation's pairs are kept from training; stable under new data."""
    digest = hashlib.sha256(f"held-out:{conversation_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def pair_row(pair: PairDraft, judgement: Judgement, held_out_share: float) -> dict[str, Any]:
    """A row of `records.PAIRS`."""
    tags = {f"{tag}_{side}": judgement.tags.get(f"{tag}_{side}") for tag in TAGS for side in (0, 1)}
    return {
        **pair.context,
        "response_0": pair.response_0,
        "response_1": pair.response_1,
        "policy_0": pair.policy_0,
        "policy_1": pair.policy_1,
        "votes": list(judgement.votes),
        "target": judgement.target,
        "held_out": is_held_out(pair.context["conversation_id"], held_out_share),
        **tags,
    }


def patch_rows(rows: Sequence[Mapping[str, Any]], limit: int) -> list[dict[str, Any]]:
    """DPO's small patch for urgent faults (§2.4.2): pairs in which annotators tagged exactly one
    response, and the majority preferred the other."""
    patch = []
    for row in rows:
        faulty = [any(row[f"{tag}_{side}"] for tag in TAGS) for side in (0, 1)]
        preferred = 0 if row["target"] > 0.5 else 1
        if faulty[1 - preferred] and not faulty[preferred] and not row["held_out"]:
            patch.append(
                {
                    "messages": row["messages"],
                    "response_0": row[f"response_{preferred}"],
                    "response_1": row[f"response_{1 - preferred}"],
                    "target": 1.0,
                }
            )
    return patch[:limit]
