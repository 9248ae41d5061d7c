"""Pairs of responses to the same prompt: drafting, filtering, splitting, and the DPO patch."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flywheel_core.annotation.questions import TAGS, Workflow
from flywheel_core.errors import ConfigError
from flywheel_core.evaluation.features import Feature, feature_named
from flywheel_core.records import Message, vote_value


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
    """What the annotators of one pair said, votes as in `records.PAIRS`. `tags` maps
    `false_refusal_0` … to a majority answer; a question nobody was asked is absent."""

    votes: tuple[int, ...]
    tags: Mapping[str, bool] = field(default_factory=dict)
    adjudicated_vote: int | None = None

    @property
    def target(self) -> float:
        """The adjudicator's choice where there is one; else the mean vote, a tie one half."""
        if self.adjudicated_vote is not None:
            return vote_value(self.adjudicated_vote)
        return sum(map(vote_value, self.votes)) / len(self.votes)


def filter_pairs(
    pairs: Sequence[PairDraft], difference_max: Mapping[str, float]
) -> tuple[list[PairDraft], Counter[str]]:
    """Drop pairs that differ superficially (§2.2.2) or not at all; count what went and why.

    `difference_max` maps registered artifact features to the largest difference that is let
    through, in the feature's own unit; a binary feature with 0 must agree. A pair is counted
    under the first limit it breaks, in the order given.
    """
    limits = [(feature_named(name), limit) for name, limit in difference_max.items()]
    for feature, limit in limits:
        if limit < 0:
            raise ConfigError(
                f"difference_max.{feature.name}: got {limit}, must be 0 or more; 0 drops every "
                "pair that differs in it"
            )
    kept: list[PairDraft] = []
    dropped: Counter[str] = Counter()
    for pair in pairs:
        reason = _filter_reason(pair, limits)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(pair)
    return kept, dropped


def _filter_reason(pair: PairDraft, limits: Sequence[tuple[Feature, float]]) -> str:
    first, second = pair.response_0, pair.response_1
    if not first.strip() or not second.strip():
        return "empty"
    if first == second:
        return "identical"
    for feature, limit in limits:
        if abs(feature(first, pair.messages) - feature(second, pair.messages)) > limit:
            return f"{feature.name}_difference"
    return ""


def held_out_unit(row: Mapping[str, Any]) -> str:
    """What is held out as a whole: the user where the row has one, else the conversation. A user's
    other conversations would tell a reward model what this user likes."""
    return str(row["user_id"] or row["conversation_id"])


def is_held_out(unit: str, share: float) -> bool:
    """Whether the pairs of this `held_out_unit` are kept from training; stable under new data."""
    digest = hashlib.sha256(f"held-out:{unit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def pair_row(
    pair: PairDraft, judgement: Judgement, held_out_share: float, workflow: Workflow = "static"
) -> dict[str, Any]:
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
        "held_out": is_held_out(held_out_unit(pair.context), held_out_share),
        "workflow": workflow,
        "adjudicated": judgement.adjudicated_vote is not None,
        **tags,
    }


def patch_rows(
    rows: Sequence[Mapping[str, Any]], limit: int, rewrites: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """DPO's small patch for urgent faults (§2.4.2), at most `limit` pairs.

    Pairs in which annotators tagged exactly one response and the majority preferred the other;
    and `rewrites` (see `reviews.rewrite_rows`) over the failed response they replace, which may
    take up half of the patch. Held-out users and conversations give none.
    """
    rewritten = [
        _patch_row(row["messages"], row["response"], row["rejected"])
        for row in rewrites
        if not row["held_out"]
    ][: limit // 2]
    patch = []
    for row in rows:
        faulty = [any(row[f"{tag}_{side}"] for tag in TAGS) for side in (0, 1)]
        preferred = 0 if row["target"] > 0.5 else 1
        clear = row["target"] != 0.5 and faulty[1 - preferred] and not faulty[preferred]
        if clear and not row["held_out"]:
            chosen, rejected = row[f"response_{preferred}"], row[f"response_{1 - preferred}"]
            patch.append(_patch_row(row["messages"], chosen, rejected))
    return (rewritten + patch)[:limit]


def _patch_row(messages: Sequence[Message], chosen: str, rejected: str) -> dict[str, Any]:
    return {"messages": messages, "response_0": chosen, "response_1": rejected, "target": 1.0}
