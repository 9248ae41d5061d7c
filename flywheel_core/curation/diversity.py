"""Phase II: duplicates go, then prompts that lie close in embedding space (§2.2.1).

Prompts are clustered; within a cluster a prompt's *nearness* is its largest cosine similarity to
one of lower rank, and the nearest are pruned until the proportion *p* is left. This is SemDeDup
(Abbas et al. 2023), which prunes above a threshold, with the threshold that leaves exactly *p*.
SemDeDup ranks by the distance to the cluster's centre; we take ranks that are given, at random by
the rows' names, so that the result does not depend on the order of the input.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.curation.clusters import (
    BLOCK_ROWS,
    Members,
    Work,
    blocks,
    clusters,
)
from flywheel_core.engines.base import VectorRows, Vectors
from flywheel_core.errors import InputDataError

PIVOTS = 8
"""Rows of lowest rank in a cluster that is split: every row of it is compared with them, so that a
crowd does not keep one row for each part it is split into."""
UNIT_TOLERANCE = 1e-3
EQUAL = np.inf
"""Nearness of a row whose turn is worded like that of one of lower rank: it goes first."""


def prompt_text(row: Mapping[str, Any]) -> str:
    """One string a prompt, equal exactly where the prompts are."""
    return json.dumps([[turn["role"], turn["content"]] for turn in row["messages"]])


def prompt_key(row: Mapping[str, Any]) -> str | bytes:
    """Equal exactly where the prompts are: an index row's digest, which is short, or the text."""
    digest = row.get("prompt_digest")
    return prompt_text(row) if digest is None else digest


def first_of_each(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Indices of the first row of each distinct prompt."""
    seen: set[str | bytes] = set()
    kept = []
    for index, row in enumerate(rows):
        key = prompt_key(row)
        if key not in seen:
            seen.add(key)
            kept.append(index)
    return kept


@dataclass(frozen=True)
class Pruned:
    """Which rows stay, ascending, and why the others go.

    `num_equal_turn` rows had the same turn to answer as another row, `num_similar_turn` a similar
    one; of the latter, none had a nearness below `nearness_min` (None: there is none).
    """

    kept: list[int]
    num_equal_turn: int
    num_similar_turn: int
    nearness_min: float | None
    work: Work

    def report(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "kept": len(self.kept),
            "pruned": {"equal_turn": self.num_equal_turn, "similar_turn": self.num_similar_turn},
            "pruned_similarity_min": self.nearness_min,
            "clusters": self.work.num_clusters,
            "largest_cluster": self.work.largest_cluster,
            "clusters_sliced": self.work.num_sliced,
            "dot_products": self.work.num_dots,
        }


def prune(
    vectors: VectorRows,
    ranks: npt.NDArray[np.float64],
    keep_share: float,
    cluster_rows_max: int,
    seed: int,
    *,
    wording: Members | None = None,
) -> Pruned:
    """Keep exactly round(keep_share · rows): those least near to one of lower rank.

    `ranks` [rows] are all different. `wording` [rows] says which of the unit vectors [n, d] is a
    row's (the i-th the i-th's where it is None), so rows that say the same share one.
    """
    wording = np.arange(len(ranks)) if wording is None else wording
    refuse_unusable(vectors)
    order = np.argsort(ranks, kind="stable")
    worded = wording[order]
    firsts = np.sort(np.unique(worded, return_index=True)[1])
    nearness = np.full(len(ranks), EQUAL)
    work = Work()
    wanted = round(keep_share * len(ranks))
    if wanted < len(ranks):
        ordered = _Reordered(vectors, worded[firsts])
        nearness[firsts] = nearest_earlier(ordered, cluster_rows_max, seed, work)
    gone = np.argsort(nearness, kind="stable")[wanted:]
    similar = nearness[gone][nearness[gone] < EQUAL]
    kept = np.delete(order, gone)
    return Pruned(
        kept=sorted(kept.tolist()),
        num_equal_turn=len(gone) - len(similar),
        num_similar_turn=len(similar),
        nearness_min=float(similar.min()) if len(similar) else None,
        work=work,
    )


def nearest_earlier(
    vectors: VectorRows, cluster_rows_max: int, seed: int, work: Work
) -> npt.NDArray[np.float64]:
    """For each vector, its largest cosine similarity to an earlier one of its cluster, or to one of
    the first `PIVOTS` of a cluster that was split [n]; −1 where there is none."""
    from threadpoolctl import threadpool_limits

    nearness = np.full(len(vectors), -1.0)
    # One thread: sums come out the same on any number of cores, and the matrices are small.
    with threadpool_limits(limits=1):
        for cluster in clusters(vectors, cluster_rows_max, seed, work):
            members = cluster.members
            if cluster.is_leaf:
                found = nearest_before(vectors[members])
                work.num_dots += len(members) ** 2
            else:
                found = _nearest_pivot(vectors, members)
                work.num_dots += len(members) * PIVOTS
            nearness[members] = np.maximum(nearness[members], found)
    return nearness


def nearest_before(vectors: Vectors) -> npt.NDArray[np.float64]:
    """For each vector [n, d], its largest cosine similarity to any vector before it [n]."""
    similarity = vectors @ vectors.T
    earlier = np.where(np.tri(len(vectors), k=-1, dtype=bool), similarity, -1.0)
    return np.asarray(earlier.max(axis=1, initial=-1.0), dtype=np.float64)


def _nearest_pivot(vectors: VectorRows, members: Members) -> npt.NDArray[np.float64]:
    pivots = vectors[members[:PIVOTS]]
    found = np.concatenate([(block @ pivots.T).max(axis=1) for block in blocks(vectors, members)])
    found[:PIVOTS] = nearest_before(pivots)
    return np.asarray(found, dtype=np.float64)


def refuse_unusable(vectors: VectorRows) -> None:
    """`InputDataError` where a vector is not finite or not of unit length."""
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[np.arange(start, min(start + BLOCK_ROWS, len(vectors)))]
        lengths = np.linalg.norm(block.astype(np.float64), axis=1)
        bad = np.flatnonzero(~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE))
        if len(bad):
            raise InputDataError(
                f"embedding {start + bad[0]} has length {lengths[bad[0]]:g} ({len(bad)} such among "
                f"{len(block)}); each must be finite and of length 1 for cosine similarity. A "
                "broken model gives zeros or NaN: try its `embed` on one text, or choose embedder "
                "'minilm'"
            )


class _Reordered:
    """Some of the vectors, in another order, without moving them."""

    def __init__(self, vectors: VectorRows, order: Members) -> None:
        self._vectors, self._order = vectors, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, rows: Members, /) -> Vectors:
        return np.asarray(self._vectors[self._order[rows]], dtype=np.float32)
