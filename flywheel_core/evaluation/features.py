"""Artifact features (§2.4.4) and the rule-based metrics of Table 4.

A feature is a function of a response alone: binary ones return 0 or 1, counts return counts.
The same registry serves pairs, rejection samples, evaluation and the artifacts gate.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

EMOJI = re.compile("[\U0001f300-\U0001faff☀-➿⬀-⯿]")
LIST_LINE = re.compile(r"(?m)^\s*(?:[-*•]|\d+[.)])\s+")
INLINE_LIST = re.compile(r"(?:^|\s)1[.)]\s.+\s2[.)]\s", re.DOTALL)
TEMPLATED = re.compile(r"\b(?:omg|lol|mind blown|as an ai)\b", re.IGNORECASE)
WALL_OF_TEXT_WORDS = 60

Feature = Callable[[str], float]


def emoji_count(response: str) -> float:
    return float(len(EMOJI.findall(response)))


def has_emoji(response: str) -> float:
    return float(bool(EMOJI.search(response)))


def has_list(response: str) -> float:
    return float(bool(LIST_LINE.search(response) or INLINE_LIST.search(response)))


def is_templated(response: str) -> float:
    """Phrases of Table 7: OMG, LOL, "mind blown", templated refusals."""
    return float(bool(TEMPLATED.search(response)))


def is_wall_of_text(response: str) -> float:
    """Long and without structure. The length limit, in words, is ours."""
    return float(len(response.split()) > WALL_OF_TEXT_WORDS and "\n" not in response)


def asks_question(response: str) -> float:
    return float("?" in response)


FEATURES: Mapping[str, Feature] = {
    "list_share": has_list,
    "emoji_share": has_emoji,
    "emoji_count": emoji_count,
    "templated_share": is_templated,
    "wall_of_text_share": is_wall_of_text,
    "question_share": asks_question,
}
"""By the name of the feature's mean over responses: shares in 0..1, counts in their own unit."""


def feature_means(
    responses: Sequence[str], lengths_tokens: Sequence[int] | None = None
) -> dict[str, float]:
    """Mean of every feature; with `lengths_tokens`, the mean length beside them."""
    if not responses:
        return {}
    means = {
        name: float(np.mean([feature(response) for response in responses]))
        for name, feature in FEATURES.items()
    }
    if lengths_tokens is not None:
        means["length_tokens"] = float(np.mean(lengths_tokens))
    return means
