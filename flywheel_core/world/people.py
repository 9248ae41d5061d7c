"""The people of the simulated product: annotators who compare, users who react.

Annotators answer on the hidden utility with human noise. Users do too, but their thumbs carry
the biases of the paper's §3.5.5, scaled by `signal_bias` so that a control without them exists.
All draws come from the generator given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from flywheel_core.errors import ConfigError
from flywheel_core.world.contexts import ChatContext
from flywheel_core.world.utility import (
    COLUMN,
    TASTE,
    Feature,
    FloatArray,
    Taste,
    feature_matrix,
    utility_of_features,
)

BoolArray = npt.NDArray[np.bool_]

Tag = Literal["false_refusal", "templated", "violates_character"]
TAG_FEATURE: dict[Tag, Feature] = {
    "false_refusal": "false_refusal",
    "templated": "templated",
    "violates_character": "violation",
}
"""The feature an annotator's tag reports."""

Signal = Literal["continue_10min", "love", "thumb_up", "thumb_down", "feedback"]


@dataclass(frozen=True, slots=True)
class Annotators:
    """How well annotators see: `beta` scales the utility difference (Bradley-Terry), `lapse_share`
    of votes are coin flips, `tag_error_share` of tags are wrong."""

    votes_per_pair: int = 3
    beta: float = 1.0
    lapse_share: float = 0.05
    tag_error_share: float = 0.03


@dataclass(frozen=True, slots=True)
class PairAnnotations:
    """Votes of shape [num_pairs, votes_per_pair], 1 where `response_0` was preferred, and tags by
    record column (`false_refusal_0`, …), each of shape [num_pairs]."""

    votes: npt.NDArray[np.int8]
    tags: dict[str, BoolArray]

    @property
    def target(self) -> FloatArray:
        """Share of votes for `response_0`, per pair."""
        share: FloatArray = self.votes.mean(axis=1, dtype=np.float64)
        return share


def vote_probability(utility_difference: FloatArray, annotators: Annotators) -> FloatArray:
    """P(a vote for the first response) given u(first) - u(second)."""
    clear = sigmoid(annotators.beta * utility_difference)
    lapse = annotators.lapse_share
    return (1 - lapse) * clear + 0.5 * lapse


def annotate_pairs(
    contexts: Sequence[ChatContext],
    responses_0: Sequence[str],
    responses_1: Sequence[str],
    rng: np.random.Generator,
    annotators: Annotators | None = None,
    taste: Taste = TASTE,
) -> PairAnnotations:
    """Independent votes on each pair, and each response's tags (two questions always asked,
    paper §2.2, and the character's)."""
    annotators = annotators or Annotators()
    features = [feature_matrix(contexts, texts) for texts in (responses_0, responses_1)]
    first, second = (utility_of_features(contexts, matrix, taste) for matrix in features)
    chance = vote_probability(first - second, annotators)
    draws = rng.random((len(chance), annotators.votes_per_pair))
    votes = (draws < chance[:, None]).astype(np.int8)
    tags = {
        f"{tag}_{position}": _tag(features[position], feature, annotators, rng)
        for tag, feature in TAG_FEATURE.items()
        for position in (0, 1)
    }
    return PairAnnotations(votes, tags)


def _tag(
    features: FloatArray, feature: Feature, annotators: Annotators, rng: np.random.Generator
) -> BoolArray:
    truth = features[:, COLUMN[feature]] > 0
    wrong = rng.random(len(truth)) < annotators.tag_error_share
    tagged: BoolArray = truth ^ wrong
    return tagged


@dataclass(frozen=True, slots=True)
class SignalModel:
    """Log-odds of one signal: `intercept + utility·u`, the context's part, and `signal_bias`
    times the response's part.

    `goodbye` is the ending and JTBD base-rate bias, `prior_sentiment` the confounding context:
    both depend on the prompt only, so they mislead a model across prompts, not within one.
    """

    intercept: float
    utility: float
    goodbye: float = 0.0
    prior_sentiment: float = 0.0
    flattery: float = 0.0
    emoji: float = 0.0
    follow_up: float = 0.0


SIGNAL_MODELS: dict[Signal, SignalModel] = {
    "continue_10min": SignalModel(intercept=-0.2, utility=0.6, goodbye=-1.5),
    "love": SignalModel(
        intercept=-3.4, utility=0.5, goodbye=0.6, prior_sentiment=0.4, flattery=1.2, emoji=0.45
    ),
    "thumb_up": SignalModel(
        intercept=-2.3,
        utility=0.5,
        goodbye=1.2,
        prior_sentiment=0.5,
        flattery=1.2,
        emoji=0.45,
        follow_up=-0.4,
    ),
    "thumb_down": SignalModel(intercept=-2.9, utility=-0.5, prior_sentiment=-0.5),
    "feedback": SignalModel(intercept=-3.6, utility=-0.3),
}
"""`thumb_up`'s negative `follow_up` is the delayed-feedback bias: no thumb on clarifying turns."""


def signal_probability(
    model: SignalModel,
    contexts: Sequence[ChatContext],
    features: FloatArray,
    utility: FloatArray,
    signal_bias: float,
) -> FloatArray:
    """P(signal) per response."""
    goodbye = np.array([context.jtbd == "goodbye" for context in contexts], dtype=np.float64)
    prior = np.array([context.prior_sentiment for context in contexts], dtype=np.float64)
    bias = (
        model.flattery * features[:, COLUMN["flattery"]]
        + model.emoji * features[:, COLUMN["emoji"]]
        + model.follow_up * features[:, COLUMN["follow_up"]]
    )
    return sigmoid(
        model.intercept
        + model.utility * utility
        + model.goodbye * goodbye
        + model.prior_sentiment * prior
        + signal_bias * bias
    )


def user_signals(
    contexts: Sequence[ChatContext],
    responses: Sequence[str],
    rng: np.random.Generator,
    signal_bias: float = 1.0,
    taste: Taste = TASTE,
) -> dict[Signal, BoolArray]:
    """One reaction per response, by the record columns of the paper's Table 2.

    `signal_bias` 1 is the product as it is, 0 the control. Thumbs exclude each other; up wins.
    """
    if signal_bias < 0:
        raise ConfigError(f"signal_bias: got {signal_bias}, must be 0 (no bias) or more")
    features = feature_matrix(contexts, responses)
    utility = utility_of_features(contexts, features, taste)
    signals: dict[Signal, BoolArray] = {
        name: rng.random(len(utility))
        < signal_probability(model, contexts, features, utility, signal_bias)
        for name, model in SIGNAL_MODELS.items()
    }
    signals["thumb_down"] &= ~signals["thumb_up"]
    return signals


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + exp(-logits)), without overflow at either end."""
    half: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return half
