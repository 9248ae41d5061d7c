"""The pre-training corpus: chats of both surfaces, answered as an untuned assistant does."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flywheel_core.records import Message
from flywheel_core.world.answers import sample_response
from flywheel_core.world.contexts import ChatContext
from flywheel_core.world.product import draw_chat, make_mix

INTERNAL_SHARE = 0.3
"""Share of documents with a tester's prompt; the rest are the public's."""


@dataclass(frozen=True, slots=True)
class Document:
    """One training conversation: the messages up to a user turn, and the answer."""

    messages: tuple[Message, ...]
    response: str
    context: ChatContext


def documents(seed: int) -> Iterator[Document]:
    """An endless corpus, the same for the same seed."""
    rng = np.random.default_rng([seed, 0xC0])
    while True:
        surface = "internal" if rng.random() < INTERNAL_SHARE else "user"
        chat = draw_chat(make_mix(surface), rng)
        yield Document(chat.messages, sample_response(chat.context, rng), chat.context)
