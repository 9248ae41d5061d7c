"""Near duplicates: conversations that share most of their wording (MinHash, Broder 1997).

A conversation is the set of its runs of three words; two are near duplicates where these sets'
Jaccard similarity is at least `JACCARD_MIN`. MinHash signatures (rensa) cut into bands find the
candidates, and every candidate is checked exactly, so there are no false ones; a pair at the
threshold is missed about once in 20,000. The system turn does not count: a character's long
instructions would make all its conversations alike. A short conversation ("hi") is nobody's copy:
below `WORDS_MIN` words only equal prompts are duplicates.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

JACCARD_MIN = 0.8
WORDS_MIN = 10
SHINGLE_WORDS = 3
BANDS, BAND_ROWS = 25, 5
"""A pair of similarity s is a candidate with probability 1 − (1 − s⁵)²⁵: 0.99995 at 0.8. Ours."""
SIGNATURE_SEED = 1

Shingles: TypeAlias = frozenset[str]
Neighbours: TypeAlias = Mapping[int, frozenset[int]]
"""By row index, the rows it is a near duplicate of; symmetrical."""
FindNear: TypeAlias = Callable[[Sequence[int]], Neighbours]
"""The near duplicates among the rows of these indices."""
Rows: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[int, Mapping[str, Any]]
"""Rows by index; a mapping where only some of them are at hand."""


def shingles(row: Mapping[str, Any]) -> Shingles:
    """The runs of three words a conversation holds; empty where it is short."""
    spoken = " ".join(turn["content"] for turn in row["messages"] if turn["role"] != "system")
    words = re.findall(r"\w+", spoken.lower())
    if len(words) < WORDS_MIN:
        return frozenset()
    starts = range(len(words) - SHINGLE_WORDS + 1)
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in starts)


def jaccard(first: Shingles, second: Shingles) -> float:
    """Shared runs over all runs, 0 where both are empty."""
    return len(first & second) / max(1, len(first | second))


def near_duplicates(rows: Rows, indices: Sequence[int]) -> Neighbours:
    """The near duplicates among the rows `indices`."""
    sets = {index: shingles(rows[index]) for index in indices}
    by_set: dict[Shingles, list[int]] = defaultdict(list)
    for index, found in sets.items():
        if found:
            by_set[found].append(index)
    neighbours: dict[int, set[int]] = defaultdict(set)
    for equal in by_set.values():
        for index in equal:
            neighbours[index].update(other for other in equal if other != index)
    distinct = list(by_set)
    for first, second in _candidates(distinct):
        if jaccard(distinct[first], distinct[second]) >= JACCARD_MIN:
            ones, others = by_set[distinct[first]], by_set[distinct[second]]
            for index in ones:
                neighbours[index].update(others)
            for index in others:
                neighbours[index].update(ones)
    return {index: frozenset(found) for index, found in neighbours.items() if found}


def _candidates(sets: Sequence[Shingles]) -> Iterator[tuple[int, int]]:
    """Pairs whose signatures agree in a band, each once."""
    from rensa import RMinHash

    sketches = RMinHash.from_token_sets(
        [sorted(one) for one in sets], num_perm=BANDS * BAND_ROWS, seed=SIGNATURE_SEED
    )
    buckets: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, sketch in enumerate(sketches):
        digest = sketch.digest()
        for band in range(BANDS):
            start = band * BAND_ROWS
            buckets[(band, *digest[start : start + BAND_ROWS])].append(index)
    seen: set[tuple[int, int]] = set()
    for members in buckets.values():
        for pair in combinations(members, 2):
            if pair not in seen:
                seen.add(pair)
                yield pair
