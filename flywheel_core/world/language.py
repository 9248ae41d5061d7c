"""The closed language: a response is a plan of sentences; the parser is a look-up.

A response is a sequence of dictionary sentences in the fixed order of `Kind`, then at most one
run of emoji. Anything else does not parse: an unknown sentence, a wrong order, nothing at all.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from flywheel_core.world.phrases import (
    EMOJI,
    JTBDS,
    PHRASEBOOKS,
    TEMPLATED,
    TOPICS,
    TRAITS,
    Jtbd,
    Language,
    Phrasebook,
    Trait,
)


class Kind(IntEnum):
    """What a sentence does; the value is its place in a response."""

    TEMPLATED = 0
    FLATTERY = 1
    REFUSAL = 2
    TOPIC = 3
    BODY = 4
    PERSONA = 5
    LIST = 6
    PREACHY = 7
    UNSAFE = 8
    FOLLOW_UP = 9


@dataclass(frozen=True, slots=True)
class Sentence:
    """One dictionary entry. `language` is None for stock phrases, which belong to none."""

    text: str
    kind: Kind
    language: Language | None
    topic: str | None = None
    trait: Trait | None = None
    jtbd: Jtbd | None = None


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """Sentences in any order (rendering sorts them by kind) and a run of emoji."""

    sentences: tuple[Sentence, ...]
    emoji: str = ""


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """What the look-up found.

    `num_unknown` counts pieces that are not in the dictionary; `num_emoji` counts emoji anywhere,
    so that a broken text is still charged for them.
    """

    sentences: tuple[Sentence, ...]
    num_emoji: int
    num_unknown: int
    parses: bool


def _entries(language: Language, book: Phrasebook) -> Iterator[Sentence]:
    plain = (
        (Kind.FLATTERY, book.flattery),
        (Kind.REFUSAL, book.refusals),
        (Kind.LIST, book.lists),
        (Kind.PREACHY, book.preachy),
        (Kind.UNSAFE, book.unsafe),
        (Kind.FOLLOW_UP, book.follow_ups),
    )
    for kind, texts in plain:
        for text in texts:
            yield Sentence(text, kind, language)
    for topic, noun in zip(TOPICS, book.nouns, strict=True):
        for text in book.topics:
            yield Sentence(text.format(n=noun), Kind.TOPIC, language, topic=topic)
    for jtbd in JTBDS:
        for text in book.bodies[jtbd]:
            yield Sentence(text, Kind.BODY, language, jtbd=jtbd)
    for trait, texts in zip(TRAITS, book.personas, strict=True):
        for text in texts:
            yield Sentence(text, Kind.PERSONA, language, trait=trait)


def _dictionary() -> dict[str, Sentence]:
    sentences = [Sentence(text, Kind.TEMPLATED, None) for text in TEMPLATED]
    for language, book in PHRASEBOOKS.items():
        sentences.extend(_entries(language, book))
    by_text = {sentence.text: sentence for sentence in sentences}
    assert len(by_text) == len(sentences), "a sentence stands twice in the dictionary"
    return by_text


DICTIONARY: dict[str, Sentence] = _dictionary()
"""Every sentence a response may hold, by its text."""

_BOUNDARY = re.compile(r"(?<=[.!?])\s+")
_EMOJI_CHARS = frozenset(EMOJI)


def split_sentences(text: str) -> list[str]:
    """Split at white space after a closing mark; a trailing run of emoji is a piece of its own."""
    return [piece for piece in _BOUNDARY.split(text.strip()) if piece]


def sentences_of(
    kind: Kind,
    language: Language,
    *,
    topic: str | None = None,
    trait: Trait | None = None,
    jtbd: Jtbd | None = None,
) -> tuple[Sentence, ...]:
    """The dictionary's choices for one slot; stock phrases are offered in every language."""
    wanted = None if kind is Kind.TEMPLATED else language
    return _CHOICES[kind, wanted, topic or trait or jtbd]


def _choices() -> dict[tuple[Kind, Language | None, str | None], tuple[Sentence, ...]]:
    choices: dict[tuple[Kind, Language | None, str | None], tuple[Sentence, ...]] = {}
    for sentence in DICTIONARY.values():
        key = (
            sentence.kind,
            sentence.language,
            sentence.topic or sentence.trait or sentence.jtbd,
        )
        choices[key] = (*choices.get(key, ()), sentence)
    return choices


_CHOICES = _choices()


def render(plan: ResponsePlan) -> str:
    """The text of a plan: sentences by kind (stable within a kind), then the emoji."""
    ordered = sorted(plan.sentences, key=lambda sentence: sentence.kind)
    pieces = [sentence.text for sentence in ordered]
    return " ".join([*pieces, plan.emoji] if plan.emoji else pieces)


def parse(text: str) -> ParsedResponse:
    """Look every sentence up. Exact: `parse(render(plan))` gives the plan back, sorted."""
    pieces = split_sentences(text)
    num_emoji = sum(char in _EMOJI_CHARS for char in text)
    if pieces and all(char in _EMOJI_CHARS for char in pieces[-1]):
        pieces = pieces[:-1]
    found = [DICTIONARY.get(piece) for piece in pieces]
    sentences = tuple(sentence for sentence in found if sentence is not None)
    num_unknown = len(pieces) - len(sentences)
    in_order = all(first.kind <= second.kind for first, second in pairwise(sentences))
    parses = num_unknown == 0 and in_order and bool(sentences)
    return ParsedResponse(sentences, num_emoji, num_unknown, parses)
