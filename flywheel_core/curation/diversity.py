"""Phase II: exact duplicates go, then prompts that lie close in embedding space (§2.2.1).

Prompts are clustered, and within a cluster those most similar to one already kept are pruned,
until a proportion *p* is left (as SemDeDup does, Abbas et al. 2023).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


def prompt_text(row: Mapping[str, Any]) -> str:
    """One string a prompt, equal exactly where the prompts are."""
    return json.dumps([[turn["role"], turn["content"]] for turn in row["messages"]])


def first_of_each(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Indices of the first row of each distinct prompt."""
    seen: set[str] = set()
    kept = []
    for index, row in enumerate(rows):
        text = prompt_text(row)
        if text not in seen:
            seen.add(text)
            kept.append(index)
    return kept


def nearest_kept_similarity(vectors: Vectors) -> npt.NDArray[np.float64]:
    """For each vector [n, d], its largest cosine similarity to any vector before it [n]."""
    similarity = vectors @ vectors.T
    earlier = np.where(np.tri(len(vectors), k=-1, dtype=bool), similarity, -1.0)
    return np.asarray(earlier.max(axis=1, initial=-1.0), dtype=np.float64)


def prune(vectors: Vectors, keep_share: float, num_clusters: int, seed: int) -> list[int]:
    """Indices to keep: the share `keep_share` whose nearest earlier neighbour is least alike."""
    count = len(vectors)
    wanted = round(keep_share * count)
    if wanted >= count:
        return list(range(count))
    nearness = np.full(count, -1.0)
    for members in _clusters(vectors, min(num_clusters, count), seed):
        nearness[members] = nearest_kept_similarity(vectors[members])
    order = np.lexsort((np.arange(count), nearness))
    return sorted(int(index) for index in order[:wanted])


def _clusters(vectors: Vectors, num_clusters: int, seed: int) -> list[npt.NDArray[np.int64]]:
    from sklearn.cluster import MiniBatchKMeans

    if num_clusters < 2:
        return [np.arange(len(vectors))]
    labels = MiniBatchKMeans(num_clusters, random_state=seed, n_init=1).fit_predict(vectors)
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]
