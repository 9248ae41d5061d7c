"""Near duplicates: conversations that share most of their wording (MinHash, Broder 1997).

Two conversations are near duplicates where their sets of `shingles` have a Jaccard similarity of at
least `JACCARD_MIN`. MinHash signatures (rensa) cut into bands find the candidates, and every
candidate is checked exactly, so there are no false ones; a pair at the threshold is missed about
once in 20,000. Whoever is linked by a chain of near duplicates forms a *group*.

The cost is linear in rows however many are alike: a band's bucket compares all its pairs up to
`BUCKET_MAX` members, and a larger one its members with the first `BUCKET_MAX` only; pairs that are
in one group already are not compared again. In such a crowded bucket a pair can be missed that has
no other bucket in common.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from flywheel_core.curation.shingles import (
    Shingles,
    ShingleSets,
    is_of_few_words,
    mixed,
    shingles,
)

JACCARD_MIN = 0.8
BANDS, BAND_ROWS = 25, 5
"""A pair of similarity s is a candidate with probability 1 − (1 − s⁵)²⁵: 0.99995 at 0.8. Ours."""
SIGNATURE_SEED = 1
BUCKET_MAX = 32
SIGNATURE_ROWS = 2_000
"""Rows whose signatures are made at a time: bounds the memory of Python's integers."""

Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Groups of two rows or more. `members` holds the row indices of each in ascending order, under
    the first of them; `shingles` what those rows say. `num_compared` pairs were checked exactly."""

    members: Mapping[int, tuple[int, ...]]
    shingles: Mapping[int, Shingles]
    num_compared: int = 0

    def by_row(self) -> dict[int, int]:
        """Each grouped row's group; rows that are nobody's duplicate are absent."""
        return {row: name for name, rows in self.members.items() for row in rows}


NO_GROUPS = Groups({}, {})
FindNear: TypeAlias = Callable[[Sequence[int]], Groups]
"""The near duplicates among the rows of these indices."""


def jaccard(first: Shingles, second: Shingles) -> float:
    """Shared runs over all runs, 0 where both are empty."""
    shared = np.intersect1d(first, second, assume_unique=True).size
    return float(shared / max(1, first.size + second.size - shared))


def near_duplicates(rows: Sequence[Mapping[str, Any]], indices: Sequence[int]) -> Groups:
    """The groups of near duplicates among the rows `indices`."""
    return group(shingles(rows[index]["messages"] for index in indices), indices)


def group(sets: ShingleSets, indices: Sequence[int]) -> Groups:
    """The groups among rows that say `sets`, and whose row indices are `indices`."""
    linking = _Linking(sets)
    keys = _band_keys(sets)
    for band in range(BANDS):
        for bucket in _runs_of_equals(keys[:, band]):
            linking.link(bucket)
    groups = [sorted((indices[one], one) for one in found) for found in linking.groups()]
    return Groups(
        {one[0][0]: tuple(index for index, _ in one) for one in sorted(groups)},
        {index: sets[number] for one in groups for index, number in one},
        linking.num_compared,
    )


def copies(
    rows: Sequence[Mapping[str, Any]], groups: Groups, ranks: Mapping[int, float]
) -> frozenset[int]:
    """Row indices to leave out so that no near duplicates remain (Phase II).

    Within a group, rows are taken by ascending rank; a row goes where it is a near duplicate of
    one that stayed. Two turns of one conversation share its history and are not copies of each
    other, and short conversations are not either: many people say "hi" to many characters (their
    groups only keep equal words on one side of the splits). Of more than `BUCKET_MAX` that stayed
    in a group, the first are compared with.
    """
    gone: set[int] = set()
    for members in groups.members.values():
        if is_of_few_words(groups.shingles[members[0]]):
            continue
        stayed: list[int] = []
        for index in sorted(members, key=ranks.__getitem__):
            if any(_is_copy(rows, groups, index, other) for other in stayed[:BUCKET_MAX]):
                gone.add(index)
            else:
                stayed.append(index)
    return frozenset(gone)


def _is_copy(rows: Sequence[Mapping[str, Any]], groups: Groups, index: int, other: int) -> bool:
    one, two = rows[index], rows[other]
    if one["conversation_id"] == two["conversation_id"] and one["turn_index"] != two["turn_index"]:
        return False
    return jaccard(groups.shingles[index], groups.shingles[other]) >= JACCARD_MIN


class _Linking:
    """Joins rows into groups (union-find over an array of parents)."""

    def __init__(self, sets: ShingleSets) -> None:
        self.sets = sets
        self.num_compared = 0
        self._parents = np.arange(len(sets))

    def link(self, bucket: Integers) -> None:
        """Compare a bucket's members with its first `BUCKET_MAX`, unless joined already."""
        for place, first in enumerate(bucket[:BUCKET_MAX]):
            later = bucket[place + 1 :]
            apart = later[self._roots(later) != self._root(first)]
            for second in apart:
                if self._root(second) != self._root(first):
                    self.num_compared += 1
                    if jaccard(self.sets[first], self.sets[second]) >= JACCARD_MIN:
                        self._join(first, second)

    def groups(self) -> list[Integers]:
        """Members of each group of two or more."""
        return list(_runs_of_equals(self._roots(np.arange(len(self._parents)))))

    def _roots(self, members: Integers) -> Integers:
        roots = self._parents[members]
        while not np.array_equal(above := self._parents[roots], roots):
            roots = above
        self._parents[members] = roots
        return roots

    def _root(self, member: int) -> int:
        root = member
        while (above := self._parents[root]) != root:
            root = above
        self._parents[member] = root
        return int(root)

    def _join(self, first: int, second: int) -> None:
        one, other = sorted((self._root(first), self._root(second)))
        self._parents[other] = one


def _band_keys(sets: ShingleSets) -> npt.NDArray[np.uint64]:
    """One number for each row and band [n, BANDS], equal where the signatures agree in the band.
    A row without shingles has numbers of its own."""
    from rensa import RMinHash

    keys = np.empty((len(sets), BANDS), np.uint64)
    for start in range(0, len(sets), SIGNATURE_ROWS):
        offsets = sets.offsets[start : start + SIGNATURE_ROWS + 1]
        values = sets.values[offsets[0] : offsets[-1]].astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            values, offsets - offsets[0], BANDS * BAND_ROWS, SIGNATURE_SEED
        )
        bands = np.array(matrix.to_rows(), np.uint64).reshape(-1, BANDS, BAND_ROWS)
        key = np.zeros(bands.shape[:2], np.uint64)
        for row in range(BAND_ROWS):
            key = mixed(key + bands[:, :, row] + np.uint64(row + 1))
        keys[start : start + len(offsets) - 1] = key
    empty = np.flatnonzero(np.diff(sets.offsets) == 0)
    keys[empty] = empty.astype(np.uint64)[:, None]
    return keys


def _runs_of_equals(values: npt.NDArray[Any]) -> Iterator[Integers]:
    """Positions of each value that occurs twice or more, ascending."""
    order = np.argsort(values, kind="stable")
    cuts = np.flatnonzero(np.diff(values[order])) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(order)], strict=True):
        if stop - start > 1:
            yield order[start:stop]
