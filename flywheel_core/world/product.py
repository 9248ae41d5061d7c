"""The two surfaces of the product: who chats there, with whom, about what.

`internal` is testers: characters evenly, more rule-bearing and role-play chats, mild challenges.
`user` is the public: popular characters, a locale mix, a pool of pseudonymous users of whom few
send much. The final response is not made here: a model under test makes it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from flywheel_core.errors import ConfigError
from flywheel_core.records import SURFACES, Message, Surface
from flywheel_core.world.answers import pick, pick_weighted, sample_remark
from flywheel_core.world.characters import CHARACTERS, Character, popularity
from flywheel_core.world.contexts import ASKS, ChatContext, system_message
from flywheel_core.world.phrases import JTBDS, LANGUAGES, PHRASEBOOKS, TOPICS, Jtbd, Language

LOCALES: dict[Language, tuple[str, ...]] = {
    "en": ("en_US", "en_GB", "en_IN"),
    "es": ("es_MX", "es_ES"),
    "hi": ("hi_IN",),
}

NUM_USERS = 5_000
NUM_TESTERS = 600


@dataclass(frozen=True, slots=True)
class PromptMix:
    """What a surface's traffic consists of; every tuple of shares sums to 1.

    Languages are in the order of `LANGUAGES`, jobs of `JTBDS`, depths from the first turn on,
    characters of `CHARACTERS`.
    """

    surface: Surface
    language_shares: tuple[float, ...]
    jtbd_shares: tuple[float, ...]
    depth_shares: tuple[float, ...]
    sentiment_shares: tuple[float, ...]
    character_shares: npt.NDArray[np.float64]
    tail_share: float
    challenge_share: float


@dataclass(frozen=True, slots=True)
class Chat:
    """A partial conversation that ends with a user turn, and what it means."""

    messages: tuple[Message, ...]
    context: ChatContext


@dataclass(frozen=True, slots=True)
class PromptDraft:
    """A chat with its record fields, before a prompt id is given and a response is made."""

    messages: list[Message]
    surface: Surface
    conversation_id: str
    turn_index: int
    user_id: str
    character_id: str
    locale: str
    language: Language
    jtbd: Jtbd
    depth: int


@cache
def make_mix(surface: Surface) -> PromptMix:
    """The prompt mix of a surface; shares are ours, languages as the design has them."""
    if surface == "user":
        return PromptMix(
            surface="user",
            language_shares=(0.60, 0.22, 0.18),
            jtbd_shares=(0.38, 0.18, 0.20, 0.14, 0.10),
            depth_shares=(0.18, 0.54, 0.19, 0.06, 0.03),
            sentiment_shares=(0.15, 0.60, 0.25),
            character_shares=popularity(),
            tail_share=0.30,
            challenge_share=0.05,
        )
    if surface == "internal":
        rule_weights = np.array([0.5 if one.rule == "none" else 1.0 for one in CHARACTERS])
        return PromptMix(
            surface="internal",
            language_shares=(0.64, 0.20, 0.16),
            jtbd_shares=(0.32, 0.18, 0.28, 0.14, 0.08),
            depth_shares=(0.16, 0.55, 0.20, 0.06, 0.03),
            sentiment_shares=(0.12, 0.76, 0.12),
            character_shares=rule_weights / rule_weights.sum(),
            tail_share=0.25,
            challenge_share=0.30,
        )
    raise ConfigError(f"surface: got {surface!r}; choose one of {', '.join(SURFACES)}")


def _character(mix: PromptMix, rng: np.random.Generator) -> Character:
    bounds = np.cumsum(mix.character_shares)
    index = int(np.searchsorted(bounds, rng.random(), side="right"))
    return CHARACTERS[min(index, len(CHARACTERS) - 1)]


def _closer(mix: PromptMix, language: Language, rng: np.random.Generator) -> str:
    draw = rng.random()
    book = PHRASEBOOKS[language]
    if draw < mix.challenge_share:
        return pick(rng, book.challenges)
    return pick(rng, book.tails) if draw < mix.challenge_share + mix.tail_share else ""


def _opener(context: ChatContext, rng: np.random.Generator) -> str:
    book = PHRASEBOOKS[context.language]
    if context.prior_sentiment == 0:
        return ""
    return pick(rng, book.happy if context.prior_sentiment > 0 else book.unhappy)


def _history(context: ChatContext, rng: np.random.Generator) -> list[Message]:
    """Earlier turns, about this topic or another one, each of them small talk."""
    turns: list[Message] = []
    for _ in range(context.depth):
        topic = context.topic if rng.random() < 0.6 else pick(rng, TOPICS)
        earlier = ChatContext(context.character_id, context.language, "chat", topic, 0, 0)
        ask = pick(rng, ASKS[context.language, "chat", topic])
        turns.append(Message(role="user", content=ask.text))
        turns.append(Message(role="assistant", content=sample_remark(earlier, rng)))
    return turns


def draw_chat(mix: PromptMix, rng: np.random.Generator, language: Language | None = None) -> Chat:
    """One partial conversation; the language is drawn from the mix unless given."""
    language = language or LANGUAGES[pick_weighted(rng, mix.language_shares)]
    depth = pick_weighted(rng, mix.depth_shares)
    context = ChatContext(
        character_id=_character(mix, rng).character_id,
        language=language,
        jtbd=JTBDS[pick_weighted(rng, mix.jtbd_shares)],
        topic=pick(rng, TOPICS),
        depth=depth,
        prior_sentiment=pick_weighted(rng, mix.sentiment_shares) - 1 if depth else 0,
    )
    ask = pick(rng, ASKS[language, context.jtbd, context.topic])
    pieces = (_opener(context, rng), ask.text, _closer(mix, language, rng))
    messages = (
        system_message(context.character),
        *_history(context, rng),
        Message(role="user", content=" ".join(piece for piece in pieces if piece)),
    )
    return Chat(messages, context)


@dataclass(frozen=True, slots=True)
class _Person:
    user_id: str
    language: Language
    locale: str


@cache
def _people(surface: Surface) -> tuple[_Person, ...]:
    """The pool of a surface: the same people on every day, whatever the seed of the day."""
    mix = make_mix(surface)
    rng = np.random.default_rng([0x9E0, SURFACES.index(surface)])
    prefix, size = ("u", NUM_USERS) if surface == "user" else ("t", NUM_TESTERS)
    people = []
    for index in range(size):
        language = LANGUAGES[pick_weighted(rng, mix.language_shares)]
        people.append(_Person(f"{prefix}{index:05d}", language, pick(rng, LOCALES[language])))
    return tuple(people)


@cache
def _activity(surface: Surface) -> npt.NDArray[np.float64]:
    """Cumulative shares of traffic over the pool: on the user surface few people send much."""
    size = len(_people(surface))
    weights = np.random.default_rng(0xAC7).gamma(0.7, size=size) if surface == "user" else None
    bounds = np.cumsum(np.ones(size) if weights is None else weights)
    shares: npt.NDArray[np.float64] = bounds / bounds[-1]
    return shares


def sample_contexts(surface: Surface, num_rows: int, seed: int) -> list[PromptDraft]:
    """`num_rows` partial conversations of a surface; the same for the same seed.

    Conversation ids hold the seed, so days drawn with different seeds never share one.
    """
    mix = make_mix(surface)
    rng = np.random.default_rng([seed, SURFACES.index(surface)])
    people = _people(surface)
    owners = np.searchsorted(_activity(surface), rng.random(num_rows), side="right")
    drafts = []
    for index, owner in enumerate(owners):
        person = people[min(int(owner), len(people) - 1)]
        chat = draw_chat(mix, rng, person.language)
        drafts.append(
            PromptDraft(
                messages=list(chat.messages),
                surface=surface,
                conversation_id=f"{surface}-{seed}-{index:06d}",
                turn_index=chat.context.depth,
                user_id=person.user_id,
                character_id=chat.context.character_id,
                locale=person.locale,
                language=chat.context.language,
                jtbd=chat.context.jtbd,
                depth=chat.context.depth,
            )
        )
    return drafts
