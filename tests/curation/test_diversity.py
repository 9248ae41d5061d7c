"""Phase II: exact duplicates go, then the most alike within a cluster, until p is left."""

from typing import Any

import numpy as np
import pytest
from curation_samples import traffic_rows

from flywheel_core.curation.clusters import Cluster, Work, clusters
from flywheel_core.curation.diversity import (
    EQUAL,
    PIVOTS,
    Pruned,
    first_of_each,
    nearest_before,
    prune,
)
from flywheel_core.errors import InputDataError

Array = np.ndarray[Any, Any]


def unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


def directions(count: int, dimension: int, seed: int) -> Array:
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)))


def crowded(count: int, share: float, spread: float, seed: int, dimension: int = 16) -> Array:
    """`share` of the vectors within `spread` of one direction, at random among the others."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, dimension))
    crowd = rng.random(count) < share
    vectors[crowd] = vectors[0] + spread * rng.normal(size=(int(crowd.sum()), dimension))
    return unit(vectors)


def ranks(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(count)


def keep(vectors: Array, keep_share: float, rows_max: int = 64, seed: int = 0) -> Pruned:
    return prune(vectors, ranks(len(vectors)), keep_share, rows_max, seed)


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
    assert nearest_before(vectors) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("keep_share", [0.0, 0.25, 0.6, 0.95])
@pytest.mark.parametrize("wording", ["each its own", "shared"])
def test_the_rule_in_float64_on_one_cluster(keep_share: float, wording: str) -> None:
    """SemDeDup's rule written out anew: by rank, a row's nearness is its largest cosine to one
    before it (an equal wording is nearer than any), and the nearest go."""
    count = 60
    vectors = crowded(count, 0.3, 0.2, seed=2)
    numbers = np.arange(count) if wording == "each its own" else np.arange(count) // 2
    found = prune(vectors, ranks(count), keep_share, 64, seed=5, wording=numbers)

    order = sorted(range(count), key=ranks(count).__getitem__)
    exact = vectors.astype(np.float64)[numbers]
    nearness = {}
    for place, i in enumerate(order):
        before = order[:place]
        cosines = [sum(x * y for x, y in zip(exact[i], exact[j], strict=True)) for j in before]
        twins = [j for j in before if numbers[j] == numbers[i]]
        nearness[i] = EQUAL if twins else max(cosines, default=-1.0)
    places = {i: place for place, i in enumerate(order)}
    by_nearness = sorted(range(count), key=lambda i: (nearness[i], places[i]))
    wanted = round(keep_share * count)
    assert found.kept == sorted(by_nearness[:wanted])
    gone = by_nearness[wanted:]
    assert found.num_equal_turn == sum(nearness[i] == EQUAL for i in gone)
    assert found.num_equal_turn + found.num_similar_turn == count - wanted
    lowest = min((nearness[i] for i in gone if nearness[i] < EQUAL), default=None)
    assert found.nearness_min == (None if lowest is None else pytest.approx(lowest, abs=1e-6))


@pytest.mark.parametrize("keep_share", [0.0, 0.3, 0.333, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 2, 199, 1000])
def test_exactly_the_share_asked_for_is_kept(keep_share: float, count: int) -> None:
    found = keep(directions(count, 16, 2), keep_share)
    assert len(found.kept) == round(count * keep_share)
    assert found.kept == sorted(set(found.kept))
    assert found.num_equal_turn + found.num_similar_turn == count - len(found.kept)


def test_no_rows_are_no_trouble() -> None:
    found = prune(np.zeros((0, 4), np.float32), ranks(0), 0.5, 64, seed=0)
    assert (found.kept, found.nearness_min) == ([], None)


def test_planted_near_duplicates_go_first() -> None:
    originals = directions(900, 32, 3)
    near = unit(originals[:100] + np.float32(1e-3) * directions(100, 32, 4))
    found = keep(np.concatenate([originals, near]), 0.9)
    kept = set(found.kept)
    pairs = [(i, 900 + i) for i in range(100)]
    assert sum((i in kept) != (j in kept) for i, j in pairs) >= 99
    assert found.nearness_min is not None
    assert found.work.num_clusters > 10


def test_neither_the_order_of_the_rows_nor_the_number_of_threads_shows() -> None:
    from threadpoolctl import threadpool_limits

    vectors, places = crowded(3000, 0.5, 0.3, seed=6), ranks(3000)
    expected = prune(vectors, places, 0.8, 128, seed=7).kept
    for seed in (1, 2):
        order = np.random.default_rng(seed).permutation(3000)
        with threadpool_limits(limits=seed):
            found = prune(vectors[order], places[order], 0.8, 128, seed=7)
        assert sorted(order[found.kept].tolist()) == expected
    assert prune(vectors, ranks(3000, 1), 0.8, 128, seed=7).kept != expected


@pytest.mark.parametrize("fault", ["nan", "zero", "infinite", "long"])
def test_vectors_that_are_not_of_unit_length_are_refused(fault: str) -> None:
    vectors = directions(5000, 8, 1)
    value = {"nan": np.nan, "zero": 0.0, "infinite": np.inf, "long": 2 * vectors[4321]}[fault]
    vectors[4321] = value
    with pytest.raises(InputDataError, match=r"embedding 4321 has length .* of length 1"):
        keep(vectors, 0.9)


def leaves(vectors: Array, rows_max: int) -> tuple[list[Cluster], Work]:
    from threadpoolctl import threadpool_limits

    work = Work()
    with threadpool_limits(limits=1):
        found = list(clusters(vectors, rows_max, 0, work))
    return [one for one in found if one.is_leaf], work


@pytest.mark.parametrize("spread", [0.5, 1e-3, 0.0])
def test_a_cluster_of_nine_tenths_of_the_rows_is_split_until_it_is_small(spread: float) -> None:
    vectors = crowded(6000, 0.9, spread, seed=9)
    found, work = leaves(vectors, 100)
    assert sorted(np.concatenate([one.members for one in found])) == list(range(6000))
    assert work.largest_cluster == max(len(one.members) for one in found) <= 100
    assert work.num_clusters == len(found) >= 60
    if spread == 0.0:
        assert work.num_sliced >= 1


@pytest.mark.parametrize("spread", [1e-4, 0.0])
def test_of_a_crowd_of_equal_vectors_a_handful_stays(spread: float) -> None:
    """Each cluster alone would keep one of them; the pivots of what was split see further."""
    vectors = crowded(6000, 0.9, spread, seed=9)
    crowd = np.flatnonzero(vectors @ vectors[0] > 0.99)
    assert len(crowd) > 5000
    found = keep(vectors, (6000 - len(crowd) + 1) / 6000, rows_max=100)
    assert len(set(found.kept) & set(crowd.tolist())) <= 1 + PIVOTS


@pytest.mark.parametrize(
    ("share", "spread"), [(0.0, 1.0), (0.9, 0.3), (0.9, 0.0)], ids=["even", "crowd", "equal crowd"]
)
def test_the_work_grows_like_the_rows(share: float, spread: float) -> None:
    """Dot products counted, not seconds: the slope of log(work) over log(rows)."""
    sizes = [25_000, 50_000, 100_000, 200_000]
    done = []
    for count in sizes:
        found = keep(crowded(count, share, spread, seed=1, dimension=8), 0.9, rows_max=1024)
        done.append(found.work.num_dots)
        assert found.work.largest_cluster <= 1024
    exponent = float(np.polyfit(np.log(sizes), np.log(done), 1)[0])
    print(f"\n{share:.0%} in a crowd of spread {spread}: exponent {exponent:.3f}")
    assert exponent <= 1.1
    assert done[-1] < 1_500 * sizes[-1]
