"""Clusters of vectors that lie close, none larger than a bound, at a cost near-linear in rows.

A set that is too large is split by k-means (k at most `BRANCHES`), and its parts again until they
are small enough; so the number of clusters grows with the rows, a crowded region becomes many of
them, and a row is compared with `BRANCHES` centres a level, of which there are log(rows). Where
k-means cannot tell rows apart (thousands that are nearly equal) they are cut into equal slices
along the direction in which they differ most, so that every split gets somewhere.

Vectors are read a block at a time: they may lie in files.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from flywheel_core.engines.base import VectorRows, Vectors

BRANCHES = 64
"""Parts of one split at most."""
FILL = 0.5
"""Parts are meant to be this full, because k-means makes some larger than others."""
SAMPLE_PER_BRANCH = 64
"""Rows a part on which its centre is trained: more moves a centre of unit vectors hardly."""
TRAINING_STEPS = 10
STALLED_SHARE = 0.9
"""A part that holds more than this of what was split came from a split that got nowhere; at the
second in a row it is sliced. So the work shrinks by a constant factor every two levels."""
BLOCK_ROWS = 4_096

Members: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cluster:
    """Rows that lie close, ascending. `is_leaf` where it is small enough; otherwise it was split,
    and its parts follow."""

    members: Members
    is_leaf: bool


@dataclass
class Work:
    """What was done: dot products of two vectors, clusters, the largest one, splits by slices."""

    num_dots: int = 0
    num_clusters: int = 0
    largest_cluster: int = 0
    num_sliced: int = 0


def clusters(vectors: VectorRows, rows_max: int, seed: int, work: Work) -> Iterator[Cluster]:
    """Every cluster that was split, then its parts; leaves hold each row exactly once."""
    waiting = [(np.arange(len(vectors)), 0)]
    while waiting:
        members, num_stalled = waiting.pop()
        if len(members) <= rows_max:
            work.num_clusters += len(members) > 0
            work.largest_cluster = max(work.largest_cluster, len(members))
            yield Cluster(members, is_leaf=True)
            continue
        yield Cluster(members, is_leaf=False)
        if num_stalled < 2:
            parts = _by_k_means(vectors, members, rows_max, seed, work)
        else:
            parts = _by_slices(vectors, members, rows_max, work)
        for part in reversed(parts):
            stalled = len(part) > STALLED_SHARE * len(members)
            waiting.append((part, num_stalled + 1 if stalled else 0))


def _by_k_means(
    vectors: VectorRows, members: Members, rows_max: int, seed: int, work: Work
) -> list[Members]:
    """Parts around centres that are trained on the first rows; empty parts are left out."""
    from sklearn.cluster import MiniBatchKMeans

    count = min(BRANCHES, math.ceil(len(members) / (FILL * rows_max)))
    sample = vectors[members[: count * SAMPLE_PER_BRANCH]]
    model = MiniBatchKMeans(
        count, random_state=seed, n_init=1, max_iter=TRAINING_STEPS, batch_size=len(sample)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        model.fit(sample)
    # Each step and the k-means++ start compare the sample with the centres.
    work.num_dots += (model.n_iter_ + 1) * len(sample) * count
    centres = model.cluster_centers_
    offsets = 0.5 * np.einsum("ij,ij->i", centres, centres)
    labels = np.concatenate(
        [np.argmax(block @ centres.T - offsets, axis=1) for block in blocks(vectors, members)]
    )
    work.num_dots += len(members) * count
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    return [members[part] for part in np.split(order, cuts)]


def _by_slices(vectors: VectorRows, members: Members, rows_max: int, work: Work) -> list[Members]:
    """Slices of at most `rows_max` along the first principal direction of the first rows."""
    sample = vectors[members[:BLOCK_ROWS]].astype(np.float64)
    centred = sample - sample.mean(axis=0)
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1].astype(np.float32)
    place = np.concatenate([block @ direction for block in blocks(vectors, members)])
    work.num_dots += len(members) + len(sample) * len(direction)
    work.num_sliced += 1
    slices = np.array_split(np.argsort(place, kind="stable"), math.ceil(len(members) / rows_max))
    return [members[np.sort(part)] for part in slices]


def blocks(vectors: VectorRows, members: Members) -> Iterator[Vectors]:
    """The vectors of these rows, `BLOCK_ROWS` at a time."""
    for start in range(0, len(members), BLOCK_ROWS):
        yield vectors[members[start : start + BLOCK_ROWS]]
