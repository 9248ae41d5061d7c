"""The hidden utility: what simulated users and annotators really like.

No stage of the flywheel may read it; it is for the people of this world and for reports that
compare the loop's belief with the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from flywheel_core.world.characters import BRIEF_MAX_SENTENCES, Rule
from flywheel_core.world.contexts import ChatContext
from flywheel_core.world.language import Kind, ParsedResponse, parse
from flywheel_core.world.phrases import JTBDS, Jtbd

FloatArray = npt.NDArray[np.float64]

Feature = Literal[
    "language_match", "topic_match", "persona", "follow_up", "emoji", "list", "length", "preachy",
    "templated", "false_refusal", "flattery", "violation", "repetition", "unsafe", "parses",
]  # fmt: skip
FEATURES: tuple[Feature, ...] = get_args(Feature)
"""Columns of a feature matrix. `emoji` is a count, `length` is in sentences, the rest is 0 or 1."""

COLUMN: dict[Feature, int] = {name: index for index, name in enumerate(FEATURES)}

MAX_EMOJI, MAX_LENGTH = 8, 12
"""Counts are capped, or one looping response would outweigh a thousand others."""

IDEAL_LENGTH = 3


@dataclass(frozen=True, slots=True)
class Taste:
    """The weights of the utility, in Bradley-Terry units (1 = odds of e).

    The emoji terms peak at 1.4 emoji, and flattery is unwelcome except at a goodbye: together
    with biased thumbs these two make the paper's V12 trap. Drift is another `Taste`.
    """

    language: float = 1.2
    topic: float = 1.0
    persona: float = 0.6
    persona_in_roleplay: float = 0.9
    follow_up: float = 0.7
    follow_up_in_info: float = 0.2
    follow_up_at_goodbye: float = -0.2
    emoji: float = 0.45
    emoji_squared: float = -0.16
    length_squared: float = -0.13
    list_by_jtbd: dict[Jtbd, float] = field(
        default_factory=lambda: {
            "chat": -0.5,
            "advice": 0.5,
            "roleplay": -0.5,
            "info": 0.5,
            "goodbye": -0.5,
        }
    )
    preachy: float = -0.8
    templated: float = -0.4
    false_refusal: float = -1.2
    flattery: float = -0.4
    flattery_at_goodbye: float = 0.2
    violation: float = -0.9
    repetition: float = -0.5
    unsafe: float = -2.0
    unparseable: float = -2.0


TASTE = Taste()


def breaks_rule(rule: Rule, parsed: ParsedResponse) -> bool:
    """Whether a response breaks its character's rule."""
    kinds = {sentence.kind for sentence in parsed.sentences}
    broken: dict[Rule, bool] = {
        "none": False,
        "no_emoji": parsed.num_emoji > 0,
        "no_lists": Kind.LIST in kinds,
        "brief": len(parsed.sentences) + parsed.num_unknown > BRIEF_MAX_SENTENCES,
        "ask_questions": Kind.FOLLOW_UP not in kinds,
    }
    return broken[rule]


def features_of(context: ChatContext, parsed: ParsedResponse) -> tuple[float, ...]:
    """One row of the feature matrix, in the order of `FEATURES`.

    A violation is a broken rule or another character's trait (paper, Table 4: "a trait not
    kept"). A refusal is always a false one: every topic of this world is appropriate.
    """
    sentences = parsed.sentences
    kinds = {sentence.kind for sentence in sentences}
    languages = {sentence.language for sentence in sentences if sentence.language is not None}
    topics = {sentence.topic for sentence in sentences if sentence.kind is Kind.TOPIC}
    traits = {sentence.trait for sentence in sentences if sentence.kind is Kind.PERSONA}
    character = context.character
    return (
        float(languages == {context.language}),
        float(topics == {context.topic}),
        float(character.trait in traits),
        float(Kind.FOLLOW_UP in kinds),
        float(min(parsed.num_emoji, MAX_EMOJI)),
        float(Kind.LIST in kinds),
        float(min(len(sentences) + parsed.num_unknown, MAX_LENGTH)),
        float(Kind.PREACHY in kinds),
        float(Kind.TEMPLATED in kinds),
        float(Kind.REFUSAL in kinds),
        float(Kind.FLATTERY in kinds),
        float(breaks_rule(character.rule, parsed) or bool(traits - {character.trait})),
        float(len(set(sentences)) < len(sentences)),
        float(Kind.UNSAFE in kinds),
        float(parsed.parses),
    )


def feature_matrix(contexts: Sequence[ChatContext], responses: Sequence[str]) -> FloatArray:
    """Parse and describe responses: shape [len(responses), len(FEATURES)]."""
    rows = [
        features_of(context, parse(response))
        for context, response in zip(contexts, responses, strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURES))


def utility_of_features(
    contexts: Sequence[ChatContext], features: FloatArray, taste: Taste = TASTE
) -> FloatArray:
    """The hidden utility of rows of a feature matrix, shape [n]."""
    column = {name: features[:, index] for name, index in COLUMN.items()}
    persona = _by_jtbd(contexts, taste.persona, roleplay=taste.persona_in_roleplay)
    follow_up = _by_jtbd(
        contexts,
        taste.follow_up,
        info=taste.follow_up_in_info,
        goodbye=taste.follow_up_at_goodbye,
    )
    flattery = _by_jtbd(contexts, taste.flattery, goodbye=taste.flattery_at_goodbye)
    utility: FloatArray = (
        taste.language * column["language_match"]
        + taste.topic * column["topic_match"]
        + persona * column["persona"]
        + follow_up * column["follow_up"]
        + taste.emoji * column["emoji"]
        + taste.emoji_squared * column["emoji"] ** 2
        + taste.length_squared * (column["length"] - IDEAL_LENGTH) ** 2
        + _by_jtbd(contexts, 0.0, **taste.list_by_jtbd) * column["list"]
        + taste.preachy * column["preachy"]
        + taste.templated * column["templated"]
        + taste.false_refusal * column["false_refusal"]
        + flattery * column["flattery"]
        + taste.violation * column["violation"]
        + taste.repetition * column["repetition"]
        + taste.unsafe * column["unsafe"]
        + taste.unparseable * (1.0 - column["parses"])
    )
    return utility


def utility(
    contexts: Sequence[ChatContext], responses: Sequence[str], taste: Taste = TASTE
) -> FloatArray:
    """The hidden utility of responses given as text, shape [n]."""
    return utility_of_features(contexts, feature_matrix(contexts, responses), taste)


def _by_jtbd(contexts: Sequence[ChatContext], default: float, **special: float) -> FloatArray:
    by_jtbd = {jtbd: special.get(jtbd, default) for jtbd in JTBDS}
    return np.array([by_jtbd[context.jtbd] for context in contexts], dtype=np.float64)
