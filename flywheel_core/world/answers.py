"""What an untuned assistant says, faults included.

Three manners: most answers are sound, about a fifth refuse, some ramble. That mixture, and not
independent features, gives utility its spread: a flywheel needs something to select from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from flywheel_core.world.contexts import ChatContext
from flywheel_core.world.language import Kind, ResponsePlan, Sentence, render, sentences_of
from flywheel_core.world.phrases import EMOJI, JTBDS, TOPICS, TRAITS, Jtbd, Language

Item = TypeVar("Item")

ANSWERS_IN_ENGLISH: dict[Language, float] = {"en": 0.0, "es": 0.06, "hi": 0.20}
"""Share of answers in English to a chat in another language (the paper's Hindi fault)."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How often each kind of sentence appears; `topic` and `body` may come more than once."""

    templated: float
    topic: float
    on_topic: float
    extra_topic: float
    body: float
    persona: float
    persona_is_own: float
    preachy: float
    unsafe: float
    repeat: float
    more_emoji: float


SOUND = Manner(
    templated=0.11, topic=0.92, on_topic=0.95, extra_topic=0.08, body=0.18, persona=0.44,
    persona_is_own=0.96, preachy=0.10, unsafe=0.012, repeat=0.01, more_emoji=0.0,
)  # fmt: skip
REFUSING = Manner(
    templated=0.04, topic=0.15, on_topic=0.8, extra_topic=0.0, body=0.05, persona=0.08,
    persona_is_own=0.9, preachy=0.50, unsafe=0.0, repeat=0.03, more_emoji=0.0,
)  # fmt: skip
RAMBLING = Manner(
    templated=0.3, topic=0.95, on_topic=0.75, extra_topic=0.4, body=0.8, persona=0.5,
    persona_is_own=0.8, preachy=0.4, unsafe=0.04, repeat=0.4, more_emoji=0.4,
)  # fmt: skip

REFUSING_SHARE, RAMBLING_SHARE = 0.21, 0.12

FOLLOW_UP: dict[Jtbd, float] = {
    "chat": 0.46, "advice": 0.42, "roleplay": 0.42, "info": 0.34, "goodbye": 0.24,
}  # fmt: skip
FLATTERY: dict[Jtbd, float] = {
    "chat": 0.19, "advice": 0.15, "roleplay": 0.18, "info": 0.12, "goodbye": 0.44,
}  # fmt: skip
LIST: dict[Jtbd, float] = {
    "chat": 0.09, "advice": 0.27, "roleplay": 0.07, "info": 0.27, "goodbye": 0.05,
}  # fmt: skip

EMOJI_COUNT_SHARES = (0.36, 0.25, 0.19, 0.12, 0.06, 0.02)
"""Share of answers with 0, 1, 2 … emoji: mean 1.33."""

RULE_KEPT_BY_INTENT = 0.25
"""Share of answers in which the base happens to heed the character's rule on emoji."""


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One item, uniformly; `Generator.choice` would turn items into arrays and is slow."""
    return items[int(rng.random() * len(items))]


def pick_weighted(rng: np.random.Generator, shares: Sequence[float]) -> int:
    """An index with the given shares, which sum to 1."""
    draw = rng.random()
    for index, share in enumerate(shares):
        draw -= share
        if draw < 0:
            return index
    return len(shares) - 1


def _manner(rng: np.random.Generator) -> Manner:
    shares = (REFUSING_SHARE, RAMBLING_SHARE, 1 - REFUSING_SHARE - RAMBLING_SHARE)
    return (REFUSING, RAMBLING, SOUND)[pick_weighted(rng, shares)]


def _topics(
    rng: np.random.Generator, manner: Manner, context: ChatContext, language: Language
) -> list[Sentence]:
    if rng.random() >= manner.topic:
        return []
    topic = context.topic if rng.random() < manner.on_topic else pick(rng, TOPICS)
    choices = sentences_of(Kind.TOPIC, language, topic=topic)
    sentences = [pick(rng, choices)]
    while rng.random() < manner.extra_topic and len(sentences) < 2:
        sentences.append(pick(rng, choices))
    return sentences


def _bodies(
    rng: np.random.Generator, manner: Manner, context: ChatContext, language: Language
) -> list[Sentence]:
    sentences: list[Sentence] = []
    while rng.random() < manner.body and len(sentences) < 2:
        jtbd = context.jtbd if rng.random() < 0.9 else pick(rng, JTBDS)
        sentences.append(pick(rng, sentences_of(Kind.BODY, language, jtbd=jtbd)))
    return sentences


def _persona(
    rng: np.random.Generator, manner: Manner, context: ChatContext, language: Language
) -> list[Sentence]:
    if rng.random() >= manner.persona:
        return []
    own = rng.random() < manner.persona_is_own
    trait = context.character.trait if own else pick(rng, TRAITS)
    return [pick(rng, sentences_of(Kind.PERSONA, language, trait=trait))]


def _emoji(rng: np.random.Generator, manner: Manner, context: ChatContext) -> str:
    if context.character.rule == "no_emoji" and rng.random() < RULE_KEPT_BY_INTENT:
        return ""
    count = pick_weighted(rng, EMOJI_COUNT_SHARES)
    if rng.random() < manner.more_emoji:
        count += 2
    return pick(rng, EMOJI) * count


def sample_plan(context: ChatContext, rng: np.random.Generator) -> ResponsePlan:
    """One untuned answer in a context."""
    in_english = rng.random() < ANSWERS_IN_ENGLISH[context.language]
    language: Language = "en" if in_english else context.language
    manner = _manner(rng)
    refusing = manner is REFUSING
    damping = 0.4 if refusing else 1.0
    slots: tuple[tuple[Kind, float], ...] = (
        (Kind.TEMPLATED, manner.templated),
        (Kind.FLATTERY, damping * FLATTERY[context.jtbd]),
        (Kind.REFUSAL, float(refusing)),
        (Kind.LIST, damping * LIST[context.jtbd]),
        (Kind.PREACHY, manner.preachy),
        (Kind.UNSAFE, manner.unsafe),
        (Kind.FOLLOW_UP, damping * FOLLOW_UP[context.jtbd]),
    )
    sentences = [
        pick(rng, sentences_of(kind, language)) for kind, share in slots if rng.random() < share
    ]
    sentences += _topics(rng, manner, context, language)
    sentences += _bodies(rng, manner, context, language)
    sentences += _persona(rng, manner, context, language)
    if not sentences:
        sentences = [pick(rng, sentences_of(Kind.TOPIC, language, topic=context.topic))]
    if rng.random() < manner.repeat:
        sentences.append(pick(rng, sentences))
    return ResponsePlan(tuple(sentences), _emoji(rng, manner, context))


def sample_response(context: ChatContext, rng: np.random.Generator) -> str:
    """One untuned answer, as text."""
    return render(sample_plan(context, rng))


def sample_remark(context: ChatContext, rng: np.random.Generator) -> str:
    """An earlier assistant turn of a history: one sentence, which keeps prompts short."""
    plan = sample_plan(context, rng)
    emoji = plan.emoji[:1]
    return render(ResponsePlan((pick(rng, plan.sentences),), emoji))
