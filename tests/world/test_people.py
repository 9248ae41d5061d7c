"""Annotators reach the stated ceilings; thumbs are biased as §3.5.5 has it, and not without."""

from itertools import islice

import numpy as np
import numpy.typing as npt
import pytest

from flywheel_core.errors import ConfigError
from flywheel_core.records import SIGNALS
from flywheel_core.world.answers import sample_response
from flywheel_core.world.contexts import ChatContext, context_of
from flywheel_core.world.corpus import documents
from flywheel_core.world.people import (
    SIGNAL_MODELS,
    Annotators,
    annotate_pairs,
    signal_probability,
    user_signals,
)
from flywheel_core.world.product import sample_contexts
from flywheel_core.world.utility import COLUMN, feature_matrix, utility, utility_of_features

NUM_PAIRS = 8_000


@pytest.fixture(scope="module")
def pairs() -> tuple[list[ChatContext], list[str], list[str]]:
    rng = np.random.default_rng(5)
    corpus = list(islice(documents(seed=5), NUM_PAIRS))
    contexts = [document.context for document in corpus]
    others = [sample_response(context, rng) for context in contexts]
    return contexts, [document.response for document in corpus], others


def test_annotator_ceilings(pairs: tuple[list[ChatContext], list[str], list[str]]) -> None:
    contexts, first, second = pairs
    votes = annotate_pairs(contexts, first, second, np.random.default_rng(0)).votes
    truth = utility(contexts, first) > utility(contexts, second)
    total = votes.sum(axis=1)
    unanimous = (total == 0) | (total == 3)
    assert (votes == truth[:, None]).mean() == pytest.approx(0.77, abs=0.02)
    assert ((total >= 2) == truth).mean() == pytest.approx(0.83, abs=0.02)
    assert ((total >= 2) == truth)[unanimous].mean() == pytest.approx(0.945, abs=0.02)
    assert unanimous.mean() == pytest.approx(0.53, abs=0.05)


def test_perfect_annotators_vote_the_truth(
    pairs: tuple[list[ChatContext], list[str], list[str]],
) -> None:
    contexts, first, second = pairs
    perfect = Annotators(beta=1e6, lapse_share=0.0, tag_error_share=0.0)
    answers = annotate_pairs(contexts, first, second, np.random.default_rng(0), perfect)
    difference = utility(contexts, first) - utility(contexts, second)
    clear = np.abs(difference) > 1e-3
    assert (answers.target[clear] == (difference > 0)[clear]).all()
    refused = feature_matrix(contexts, second)[:, COLUMN["false_refusal"]] > 0
    assert (answers.tags["false_refusal_1"] == refused).all()


def test_tags_are_noisy_copies(pairs: tuple[list[ChatContext], list[str], list[str]]) -> None:
    contexts, first, second = pairs
    answers = annotate_pairs(contexts, first, second, np.random.default_rng(0))
    assert set(answers.tags) == {
        f"{tag}_{position}"
        for tag in ("false_refusal", "templated", "violates_character")
        for position in (0, 1)
    }
    templated = feature_matrix(contexts, first)[:, COLUMN["templated"]] > 0
    assert (answers.tags["templated_0"] != templated).mean() == pytest.approx(0.03, abs=0.01)


def _thumb_model(signal_bias: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    corpus = list(islice(documents(seed=6), 6_000))
    contexts = [document.context for document in corpus]
    features = feature_matrix(contexts, [document.response for document in corpus])
    true = utility_of_features(contexts, features)
    chance = signal_probability(
        SIGNAL_MODELS["thumb_up"], contexts, features, true, signal_bias=signal_bias
    )
    return chance, features


def test_thumbs_reward_flattery_and_emoji_only_with_the_bias() -> None:
    biased, features = _thumb_model(1.0)
    fair, _ = _thumb_model(0.0)
    for feature in ("flattery", "emoji"):
        column = features[:, COLUMN[feature]]
        gain = [chance[column >= 1].mean() / chance[column < 1].mean() for chance in (fair, biased)]
        assert gain[1] > 1.5 * gain[0]
        assert gain[0] < 1.3


def test_thumbs_know_the_job_better_than_the_answer() -> None:
    corpus = list(islice(documents(seed=6), 6_000))
    goodbye = np.array([document.context.jtbd == "goodbye" for document in corpus])
    chance, _ = _thumb_model(0.0)
    assert chance[goodbye].mean() > 1.7 * chance[~goodbye].mean()


def test_signals_have_sensible_rates_and_exclude_each_other() -> None:
    corpus = list(islice(documents(seed=6), 6_000))
    contexts = [document.context for document in corpus]
    responses = [document.response for document in corpus]
    signals = user_signals(contexts, responses, np.random.default_rng(2))
    rates = {name: float(values.mean()) for name, values in signals.items()}
    assert 0.4 < rates["continue_10min"] < 0.7
    assert 0.2 < rates["thumb_up"] < 0.45
    assert 0.01 < rates["feedback"] < rates["thumb_down"] < rates["love"] < 0.25
    assert not (signals["thumb_up"] & signals["thumb_down"]).any()


def test_the_same_seed_gives_the_same_reactions() -> None:
    drafts = sample_contexts("user", 50, seed=3)
    contexts = [context_of(draft.messages, draft.character_id) for draft in drafts]
    first, again, other = (
        user_signals(contexts, ["Sleep well."] * 50, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert set(first) == set(SIGNALS)
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_a_negative_bias_is_refused() -> None:
    with pytest.raises(ConfigError, match="signal_bias"):
        user_signals([], [], np.random.default_rng(0), signal_bias=-1)
