"""Algorithm 1 against a plain loop written from the paper's pseudo-code."""

import numpy as np
import pytest

from flywheel_core.sampling.rejection import Standard, accept_best, composite, route


def algorithm_1(scores: list[list[float]], threshold: float) -> list[tuple[int, int]]:
    """Lines 3–10 of Algorithm 1, written as a loop."""
    kept = []
    for i, row in enumerate(scores):
        best, best_j = row[0], 0
        for j, r in enumerate(row):
            if r > best:
                best, best_j = r, j
        if best >= threshold:
            kept.append((i, best_j))
    return kept


def test_accepts_what_the_pseudo_code_accepts() -> None:
    scores = np.random.default_rng(0).normal(size=(200, 4))
    accepted = accept_best(scores, 0.5)
    assert [(a.prompt_index, a.candidate_index) for a in accepted] == algorithm_1(
        scores.tolist(), 0.5
    )
    assert 0 < len(accepted) < 200


def test_a_score_at_the_threshold_is_kept() -> None:
    assert len(accept_best(np.array([[0.5, 0.1]]), 0.5)) == 1


@pytest.mark.parametrize("bad", [np.array([[np.nan, 1.0]]), np.array([1.0, 2.0])])
def test_scores_that_cannot_be_ranked_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite with shape"):
        accept_best(bad, 0.0)


def test_composite_ignores_each_models_scale() -> None:
    rng = np.random.default_rng(1)
    first, second, signal = rng.normal(size=(3, 50))
    standards = {"a": Standard(0.0, 1.0), "b": Standard(0.0, 1.0), "s": Standard(0.0, 1.0)}
    scaled = standards | {"b": Standard(3.0, 10.0)}
    plain = composite({"a": first, "b": second}, {"s": signal}, standards, 0.2)
    assert plain == pytest.approx((first + second) / 2 + 0.2 * signal)
    assert composite({"a": first, "b": second * 10 + 3}, {"s": signal}, scaled, 0.2) == (
        pytest.approx(plain)
    )


def test_routing_gives_production_its_share_and_repeats() -> None:
    routed = route(4000, ["production", "base", "large"], 0.2, seed=3)
    assert routed == route(4000, ["production", "base", "large"], 0.2, seed=3)
    assert routed.count("production") / 4000 == pytest.approx(0.8, abs=0.03)
    assert routed.count("base") / 4000 == pytest.approx(0.1, abs=0.03)
    assert set(route(10, ["production"], 0.5, seed=0)) == {"production"}
