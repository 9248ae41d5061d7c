"""Algorithm 1 against a plain loop written from the paper's pseudo-code."""

from typing import get_args

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from flywheel_core.engines.config import SamplingConfig
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.recipe import RECIPE_FOLDER, parse_recipe
from flywheel_core.records import SIGNALS
from flywheel_core.sampling.rejection import (
    Standard,
    accept_best,
    composite,
    require_scored,
    route,
)
from flywheel_core.sections import RejectionSection, Signal


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


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        accept_best(np.array([1.0, 2.0]), 0.0)


@settings(deadline=None)
@given(
    scores=arrays(
        np.float64,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-5, 5) | st.sampled_from([np.nan, np.inf, -np.inf]),
    )
)
def test_only_a_finite_score_can_win(scores: np.ndarray) -> None:
    """Whatever is broken beside it, the winner is the best of the finite scores."""
    accepted = {one.prompt_index: one for one in accept_best(scores, -1.0)}
    for row, found in enumerate(scores):
        finite = found[np.isfinite(found)]
        if finite.size and finite.max() >= -1.0:
            assert accepted[row].score == finite.max()
            assert scores[row, accepted[row].candidate_index] == finite.max()
        else:
            assert row not in accepted


def test_unscored_candidates_are_counted_and_too_many_refused() -> None:
    scores = np.ones((50, 4))
    scores[0, :2] = np.nan
    assert require_scored(scores, 0.01) == 2
    with pytest.raises(InputDataError, match="2 of 200 candidates got no finite score"):
        require_scored(scores, 0.005)


def test_a_model_that_gives_nan_spoils_its_candidate_only() -> None:
    standards = {"a": Standard(0.0, 1.0), "s": Standard(0.0, 1.0)}
    total = composite({"a": [1.0, 2.0]}, {"s": [0.5, np.nan]}, standards, {"a": 1.0, "s": 0.1})
    assert total[0] == pytest.approx(1.05)
    assert np.isnan(total[1])
    assert accept_best(total[None, :], -10.0)[0].candidate_index == 0
    unweighed = composite({"a": [1.0, 2.0]}, {"s": [0.5, np.nan]}, standards, {"a": 1.0, "s": 0.0})
    assert unweighed.tolist() == [1.0, 2.0]


def test_composite_ignores_each_models_scale() -> None:
    rng = np.random.default_rng(1)
    first, second, signal = rng.normal(size=(3, 50))
    standards = {"a": Standard(0.0, 1.0), "b": Standard(0.0, 1.0), "s": Standard(0.0, 1.0)}
    scaled = standards | {"b": Standard(3.0, 10.0)}
    weights = {"a": 1.0, "b": 1.0, "s": 0.2}
    plain = composite({"a": first, "b": second}, {"s": signal}, standards, weights)
    assert plain == pytest.approx((first + second) / 2 + 0.2 * signal)
    assert composite({"a": first, "b": second * 10 + 3}, {"s": signal}, scaled, weights) == (
        pytest.approx(plain)
    )


def test_weights_are_the_recipes() -> None:
    rng = np.random.default_rng(2)
    first, second, down = rng.normal(size=(3, 20))
    standards = {name: Standard(0.0, 1.0) for name in "abd"}
    found = composite(
        {"a": first, "b": second}, {"d": down}, standards, {"a": 3.0, "b": 1.0, "d": -0.5}
    )
    assert found == pytest.approx(0.75 * first + 0.25 * second - 0.5 * down)
    with pytest.raises(ConfigError, match="sum above 0"):
        composite({"a": first}, {"d": down}, standards, {"a": 0.0, "d": 1.0})


def test_a_recipe_weighs_the_papers_two_signals_unless_told() -> None:
    section = RejectionSection(sampling=SamplingConfig(), signal_weight=0.2)
    weights = {name: section.weight_of(f"signal_{name}") for name in SIGNALS}
    assert weights == {
        "continue_10min": 0.2, "love": 0.0, "thumb_up": 0.2, "thumb_down": 0.0, "feedback": 0.0,
    }  # fmt: skip
    told = section.model_copy(update={"signal_weights": {"thumb_down": -0.1, "thumb_up": 0.0}})
    assert told.weight_of("signal_thumb_down") == -0.1
    assert told.weight_of("signal_thumb_up") == 0.0
    assert told.weight_of("pointwise_user") == 1.0
    assert get_args(Signal) == SIGNALS


def test_a_weight_for_a_signal_that_is_not_trained_is_refused() -> None:
    data = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data["rejection_sampling"]["signal_weights"] = {"love": 0.1}
    with pytest.raises(ConfigError, match=r"signal_weights names love, but .* trains continue_10"):
        parse_recipe(data, "test")
    data["reward_models"]["signals"] = ["love"]
    assert parse_recipe(data, "test").rejection_sampling.weight_of("signal_love") == 0.1
    data["rejection_sampling"]["signal_weights"] = {"kudos": 0.1}
    with pytest.raises(ConfigError, match="kudos"):
        parse_recipe(data, "test")


def test_routing_gives_production_its_share_and_repeats() -> None:
    routed = route(4000, ["production", "base", "large"], 0.2, seed=3)
    assert routed == route(4000, ["production", "base", "large"], 0.2, seed=3)
    assert routed.count("production") / 4000 == pytest.approx(0.8, abs=0.03)
    assert routed.count("base") / 4000 == pytest.approx(0.1, abs=0.03)
    assert set(route(10, ["production"], 0.5, seed=0)) == {"production"}
