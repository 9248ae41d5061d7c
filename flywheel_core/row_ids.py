"""Row ids of any number of rows, as 64-bit hashes: 8 bytes a row.

Two different ids share a hash with probability n²/2⁶⁵: one in a million for six million rows.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def hashes_of(row_ids: Iterable[str]) -> Hashes:
    digests = (
        hashlib.blake2b(one.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for one in row_ids
    )
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def are_in(hashes: Hashes, run: Hashes) -> npt.NDArray[np.bool_]:
    """Whether each hash is in the sorted `run`."""
    if not len(run):
        return np.zeros(len(hashes), dtype=np.bool_)
    places = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
    return np.asarray(run[places] == hashes)


class SeenIds:
    """Which ids came before, in sorted runs, each at least twice as long as the next: a batch is
    looked up in a few of them, and merging costs n log n in all."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def are_new(self, row_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each id is seen for the first time; from then on it is known."""
        hashes = hashes_of(row_ids)
        new = np.zeros(len(hashes), dtype=np.bool_)
        new[np.unique(hashes, return_index=True)[1]] = True
        for run in self._runs:
            new &= ~are_in(hashes, run)
        self._keep(np.sort(hashes[new]))
        return new

    def sorted_hashes(self) -> Hashes:
        """Of all ids seen."""
        empty = np.empty(0, dtype=np.uint64)
        self._runs = [np.sort(np.concatenate([empty, *self._runs]))]
        return self._runs[0]

    def _keep(self, run: Hashes) -> None:
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        self._runs.append(run)
