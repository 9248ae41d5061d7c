"""What a conversation says, as a set of hashes: its runs of three words.

The system turn does not count: a character's long instructions would make all its conversations
alike. A short conversation ("hi") is nobody's copy: below `WORDS_MIN` words its set is empty.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

WORDS_MIN = 10
SHINGLE_WORDS = 3

Shingles: TypeAlias = npt.NDArray[np.uint32]
"""Sorted, each once. Of two conversations of a hundred runs each, two different runs have one hash
in about one pair of 400,000; that moves their similarity by 0.005."""

_PLACES = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9][:SHINGLE_WORDS], np.uint64
)
"""Odd 64-bit numbers, one for each place in a run, so that the order of its words counts."""


def shingles(messages: Sequence[Mapping[str, Any]]) -> Shingles:
    """The runs of three words that these turns hold; none where there are few words."""
    spoken = " ".join(turn["content"] for turn in messages if turn["role"] != "system")
    words = re.findall(r"\w+", spoken.lower())
    if len(words) < WORDS_MIN:
        return np.empty(0, np.uint32)
    hashes = np.fromiter(map(_word_hash, words), np.uint64, len(words))
    num_runs = len(words) - SHINGLE_WORDS + 1
    runs = np.zeros(num_runs, np.uint64)
    for place, factor in enumerate(_PLACES):
        runs += hashes[place : place + num_runs] * factor
    return np.unique(mixed(runs) >> np.uint64(32)).astype(np.uint32)


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Every bit of each value spread over all of its bits (SplitMix64's finaliser)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1 << 17)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
