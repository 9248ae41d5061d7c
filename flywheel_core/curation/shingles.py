"""What a conversation says, as a set of hashes: its runs of three words.

The system turn does not count: a character's long instructions would make all its conversations
alike. Below `WORDS_MIN` words one hash stands for all of them in their order: short conversations
are alike where their words are equal. One without words has no hash.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

WORDS_MIN = 10
SHINGLE_WORDS = 3
CHUNK_ROWS = 1_000
"""Conversations whose words are Python strings at a time."""

Shingles: TypeAlias = npt.NDArray[np.uint32]
"""Sorted, each once. Of two conversations of a hundred runs each, two different runs have one hash
in about one pair of 400,000; that moves their similarity by 0.005."""

_PLACES = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9][:SHINGLE_WORDS], np.uint64
)
"""Odd 64-bit numbers, one for each place in a run, so that the order of its words counts."""


@dataclass(frozen=True)
class ShingleSets:
    """The sets of many rows in one array: the `n`-th is `values[offsets[n]:offsets[n + 1]]`."""

    values: Shingles
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sets: Sequence[Shingles]) -> "ShingleSets":
        """Sets one after the other."""
        offsets = np.cumsum([0, *(one.size for one in sets)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.uint32), *sets]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> Shingles:
        return self.values[self.offsets[number] : self.offsets[number + 1]]


def shingles(conversations: Iterable[Sequence[Mapping[str, Any]]]) -> ShingleSets:
    """The runs of three words of each conversation's turns; one hash of all where they are few."""
    values, sizes = [np.empty(0, np.uint32)], [np.zeros(1, np.int64)]
    waiting = iter(conversations)
    while words := [_words(turns) for turns in islice(waiting, CHUNK_ROWS)]:
        runs, rows = _runs(words)
        short = [number for number, one in enumerate(words) if 0 < len(one) < WORDS_MIN]
        runs = np.concatenate([runs, _whole([words[number] for number in short])])
        rows = np.concatenate([rows, np.array(short, np.uint64)])
        # One sort orders the runs of all rows, and finds those that a row says twice.
        keys = np.unique(rows << np.uint64(32) | runs)
        values.append(keys.astype(np.uint32))
        sizes.append(np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(words)))
    return ShingleSets(np.concatenate(values), np.cumsum(np.concatenate(sizes), dtype=np.int64))


def _runs(words: Sequence[list[str]]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The 32-bit hash of each run of words within a row that is not short, and its row's number."""
    sizes = [len(one) if len(one) >= WORDS_MIN else 0 for one in words]
    rows = np.repeat(np.arange(len(words), dtype=np.uint64), sizes)
    long = (one for one, size in zip(words, sizes, strict=True) if size)
    hashes = np.fromiter(map(_word_hash, chain.from_iterable(long)), np.uint64, len(rows))
    num_runs = max(0, len(rows) - SHINGLE_WORDS + 1)
    sums = np.zeros(num_runs, np.uint64)
    for place, factor in enumerate(_PLACES):
        sums += hashes[place : place + num_runs] * factor
    inside = rows[:num_runs] == rows[len(rows) - num_runs :]
    return mixed(sums[inside]) >> np.uint64(32), rows[:num_runs][inside]


def _whole(conversations: Sequence[list[str]]) -> npt.NDArray[np.uint64]:
    """One 32-bit hash of all the words of each."""
    hashes = [_word_hash(" ".join(words)) >> 32 for words in conversations]
    return np.array(hashes, np.uint64)


def is_of_few_words(one: Shingles) -> bool:
    """Whether the set stands for a short conversation; also true of one that only repeats a word,
    as "ha ha ha" has a single run however long it is."""
    return one.size == 1


def _words(turns: Sequence[Mapping[str, Any]]) -> list[str]:
    spoken = " ".join(turn["content"] for turn in turns if turn["role"] != "system")
    return re.findall(r"\w+", spoken.lower())


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Every bit of each value spread over all of its bits (SplitMix64's finaliser)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1 << 17)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
