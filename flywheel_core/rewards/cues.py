"""What §3.5.5's biases hang on, read from a row's own text.

Word lists for English, Spanish and romanised Hindi, the languages of the product; a language they
do not know reads as "no cue", which makes a bias look smaller, never larger.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.evaluation.features import PRAISE

BoolArray = npt.NDArray[np.bool_]

FLATTERY = re.compile(
    PRAISE + r"|\bthank you (?:so|very) much\b|\bhave a (?:good|great|lovely) (?:night|day)\b",
    re.IGNORECASE,
)
"""Praise of the user, and the courtesies of §3.5.5's ending bias."""

FAREWELL = re.compile(
    r"\b(?:bye|goodbye|good night|i have to go|talk (?:to you )?later)\b"
    r"|(?<!\bi )(?<!\bto )\bsee you(?=\s*(?:$|[,.!]|(?:later|soon|around|then|tomorrow|tonight)\b))"
    r"|\b(?:adiós|buenas noches|me voy|nos vemos|hasta (?:pronto|luego))\b"
    r"|\b(?:alvida|shubh raatri|main chala|phir milenge)\b",
    re.IGNORECASE,
)
"""The user takes leave; "I see you like jazz" and "good to see you" are none."""

HAPPY = re.compile(
    r"\b(?:loved? (?:that|this|it)|(?:that|this) was (?:great|awesome|amazing|fun)|perfect"
    r"|thanks? (?:a lot|so much))\b"
    r"|\bme encantó\b|\bestuvo genial\b|\bperfecto\b"
    r"|\bbahut accha laga\b|\bkamaal tha\b|\bsahi hai\b",
    re.IGNORECASE,
)
UNHAPPY = re.compile(
    r"\b(?:that was (?:boring|bad|wrong)|you (?:missed|miss) (?:my|the) point|not helpful"
    r"|(?:that|this) (?:is|was) not what i (?:asked|meant))\b"
    r"|\beso fue aburrido\b|\bno me entendiste\b|\bno ayuda\b"
    r"|\byeh boring tha\b|\btum samjhe nahi\b|\bkoi fayda nahi\b",
    re.IGNORECASE,
)
"""What the user's last turn says of the answer before it."""


def clarifies(responses: Sequence[str]) -> BoolArray:
    """Whether a response asks back [n]: the early, clarifying kind that gets no thumb."""
    return np.array(["?" in response for response in responses], dtype=bool)


def flatters(responses: Sequence[str]) -> BoolArray:
    """Whether a response praises the user [n]."""
    return np.array([bool(FLATTERY.search(response)) for response in responses], dtype=bool)


def is_ending(rows: Sequence[Mapping[str, Any]]) -> BoolArray:
    """Whether the user is leaving [n]: by the turn's job where it is known, else by the words."""
    return np.array(
        [row.get("jtbd") == "goodbye" or bool(FAREWELL.search(_last_turn(row))) for row in rows],
        dtype=bool,
    )


def prior_sentiment(rows: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.int8]:
    """1 where the user's last turn is pleased with the answer before it, −1 displeased, else 0."""
    turns = [_last_turn(row) for row in rows]
    happy = np.array([bool(HAPPY.search(turn)) for turn in turns], dtype=np.int8)
    unhappy = np.array([bool(UNHAPPY.search(turn)) for turn in turns], dtype=np.int8)
    found: npt.NDArray[np.int8] = happy - unhappy
    return found


def _last_turn(row: Mapping[str, Any]) -> str:
    return str(row["messages"][-1]["content"])
