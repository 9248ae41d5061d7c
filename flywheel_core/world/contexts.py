"""What a user asks, and in which chat; recoverable from a traffic row's own text.

The hidden utility of a response depends on a `ChatContext`. Nothing in a traffic row carries it
as such: `context_of` reads it back from the messages by look-up, so that the truth of any record
can be computed later from the record alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel_core.errors import InputDataError
from flywheel_core.records import Message
from flywheel_core.world.characters import CHARACTER_BY_ID, Character
from flywheel_core.world.language import split_sentences
from flywheel_core.world.phrases import JTBDS, PHRASEBOOKS, TOPICS, Jtbd, Language

MAX_DEPTH = 4
"""User turns before the last one, at most: the prompt has to fit a 192-token model."""


@dataclass(frozen=True, slots=True)
class ChatContext:
    """Where a response is asked for.

    `depth` counts the user turns before the last one; `prior_sentiment` is what the user just
    said of the previous answer: -1 unhappy, 0 nothing, 1 happy.
    """

    character_id: str
    language: Language
    jtbd: Jtbd
    topic: str
    depth: int
    prior_sentiment: int

    @property
    def character(self) -> Character:
        """The character this chat is with."""
        return CHARACTER_BY_ID[self.character_id]


@dataclass(frozen=True, slots=True)
class Ask:
    """A user's request, as the dictionary has it."""

    text: str
    language: Language
    jtbd: Jtbd
    topic: str


def _asks() -> dict[tuple[Language, Jtbd, str], tuple[Ask, ...]]:
    return {
        (language, jtbd, topic): tuple(
            Ask(text.format(n=noun), language, jtbd, topic) for text in book.asks[jtbd]
        )
        for language, book in PHRASEBOOKS.items()
        for jtbd in JTBDS
        for topic, noun in zip(TOPICS, book.nouns, strict=True)
    }


ASKS: dict[tuple[Language, Jtbd, str], tuple[Ask, ...]] = _asks()
"""The wordings of a request by language, job and topic."""

_ASK_BY_TEXT: dict[str, Ask] = {ask.text: ask for asks in ASKS.values() for ask in asks}
assert len(_ASK_BY_TEXT) == sum(map(len, ASKS.values())), "two requests share a wording"

_SENTIMENT: dict[str, int] = {
    text: sentiment
    for book in PHRASEBOOKS.values()
    for sentiment, texts in ((1, book.happy), (-1, book.unhappy))
    for text in texts
}


def system_message(character: Character) -> Message:
    """The system turn: who the model is and what it must keep to."""
    return Message(role="system", content=character.instructions)


def context_of(messages: Sequence[Mapping[str, Any]], character_id: str | None) -> ChatContext:
    """Read the context back from a row's messages.

    Raises InputDataError when the last user turn, or the character, is not of this world: rows of
    a real product have no hidden utility.
    """
    if character_id not in CHARACTER_BY_ID:
        raise InputDataError(
            f"character_id: {character_id!r} is not one of the world's {len(CHARACTER_BY_ID)} "
            "characters; the hidden utility exists for simulated traffic only"
        )
    user_turns = [message["content"] for message in messages if message["role"] == "user"]
    if not user_turns or messages[-1]["role"] != "user":
        raise InputDataError("messages: the last turn must be the user's; cut the row there")
    pieces = split_sentences(user_turns[-1])
    asks = [_ASK_BY_TEXT[piece] for piece in pieces if piece in _ASK_BY_TEXT]
    if len(asks) != 1:
        raise InputDataError(
            f"messages: the last user turn {user_turns[-1]!r} holds {len(asks)} known requests, "
            "but must hold exactly one; only the world's own prompts have a hidden utility"
        )
    return ChatContext(
        character_id=character_id,
        language=asks[0].language,
        jtbd=asks[0].jtbd,
        topic=asks[0].topic,
        depth=len(user_turns) - 1,
        prior_sentiment=_SENTIMENT.get(pieces[0], 0),
    )
