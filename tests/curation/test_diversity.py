"""Phase II: exact duplicates go, then the most alike within a cluster."""

import numpy as np
import pytest
from curation_samples import traffic_rows

from flywheel_core.curation.diversity import first_of_each, nearest_kept_similarity, prune


def directions(count: int, dimension: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_of_equal_prompts_the_first_stays() -> None:
    rows = traffic_rows(5)
    rows[3]["messages"] = rows[1]["messages"]
    rows[4]["messages"] = [*rows[1]["messages"]]
    assert first_of_each(rows) == [0, 1, 2]


def test_similarity_to_the_rows_before_by_a_plain_loop() -> None:
    vectors = directions(40, 8, 1)
    expected = [
        max((float(vectors[i] @ vectors[j]) for j in range(i)), default=-1.0) for i in range(40)
    ]
    assert nearest_kept_similarity(vectors) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("keep_share", [0.0, 0.3, 0.9, 1.0])
def test_the_share_asked_for_is_kept(keep_share: float) -> None:
    kept = prune(directions(200, 16, 2), keep_share, 8, seed=0)
    assert len(kept) == round(200 * keep_share)
    assert kept == sorted(set(kept))


def test_planted_near_duplicates_go_first() -> None:
    originals = directions(180, 32, 3)
    copies = originals[:20] + np.float32(1e-3) * directions(20, 32, 4)
    vectors = np.concatenate([originals, copies / np.linalg.norm(copies, axis=1, keepdims=True)])
    kept = prune(vectors.astype(np.float32), 0.9, 6, seed=0)
    assert len(set(kept) & set(range(180, 200))) <= 1
    assert len(set(kept) & set(range(180))) >= 179


def test_the_same_seed_keeps_the_same() -> None:
    vectors = directions(300, 16, 5)
    assert prune(vectors, 0.8, 10, seed=7) == prune(vectors, 0.8, 10, seed=7)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_rows_are_no_trouble(count: int) -> None:
    assert prune(directions(count, 4, 6), 0.5, 32, seed=0) == list(range(round(count * 0.5)))
