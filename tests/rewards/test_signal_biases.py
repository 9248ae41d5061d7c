"""The biases of §3.5.5 are seen where they are, and not where they are not."""

from typing import Any

import numpy as np
import pytest

from flywheel_core.evaluation.features import FEATURES
from flywheel_core.rewards.cues import clarifies, flatters, is_ending, prior_sentiment
from flywheel_core.rewards.signal_biases import auc_within, measure_biases
from flywheel_core.rewards.signal_report import base_rates, report_signal
from flywheel_core.world.answers import sample_response
from flywheel_core.world.contexts import ChatContext, context_of
from flywheel_core.world.people import SIGNAL_MODELS, signal_probability, user_signals
from flywheel_core.world.product import sample_contexts
from flywheel_core.world.utility import COLUMN, feature_matrix, utility, utility_of_features

NUM_ROWS = 6000


@pytest.fixture(scope="module")
def logged() -> tuple[list[dict[str, Any]], list[ChatContext]]:
    """User turns with an untuned answer each."""
    rng = np.random.default_rng(7)
    drafts = sample_contexts("user", NUM_ROWS, 11)
    contexts = [context_of(draft.messages, draft.character_id) for draft in drafts]
    rows = [
        {
            "messages": draft.messages,
            "response": sample_response(context, rng),
            "jtbd": draft.jtbd,
        }
        for draft, context in zip(drafts, contexts, strict=True)
    ]
    return rows, contexts


PRAISES = (
    "You're so incredible!",
    "You are great.",
    "I admire you.",
    "You have excellent taste.",
    "Eres lo máximo.",
    "Tum bahut acche ho.",
)


def test_the_feature_and_the_cue_read_praise_alike_and_courtesies_are_the_cues_own() -> None:
    feature = FEATURES["flattery_share"]
    assert [feature(text) for text in PRAISES] == [1.0] * len(PRAISES)
    assert flatters(PRAISES).all()
    assert flatters(["Thank you so much."]).tolist() == [True]
    assert feature("Thank you so much.") == 0.0


@pytest.mark.parametrize(
    ("said", "leaves"),
    [
        ("See you!", True),
        ("See you, we did talk music.", True),
        ("ok see you tomorrow", True),
        ("I see you like jazz", False),
        ("I see you.", False),
        ("Good to see you!", False),
        ("Did they see you?", False),
    ],
)
def test_who_is_seen_does_not_leave(said: str, leaves: bool) -> None:
    row = {"jtbd": None, "messages": [{"role": "user", "content": said}]}
    assert is_ending([row]).tolist() == [leaves]


def test_cues_are_the_worlds_features(
    logged: tuple[list[dict[str, Any]], list[ChatContext]],
) -> None:
    """Each word list against the world's own parser, in all three languages."""
    rows, contexts = logged
    responses = [row["response"] for row in rows]
    truth = feature_matrix(contexts, responses)
    praised = truth[:, COLUMN["flattery"]] > 0
    assert (flatters(responses) == praised).mean() > 0.99
    asked = truth[:, COLUMN["follow_up"]] > 0
    assert (clarifies(responses) == asked).mean() > 0.99
    sentiment = np.array([context.prior_sentiment for context in contexts])
    assert (prior_sentiment(rows) == sentiment).mean() > 0.99
    leaving = np.array([context.jtbd == "goodbye" for context in contexts])
    by_words = is_ending([row | {"jtbd": None} for row in rows])
    assert (by_words == leaving).mean() > 0.99


def test_the_worlds_thumbs_have_all_four_biases(
    logged: tuple[list[dict[str, Any]], list[ChatContext]],
) -> None:
    """Scored with the true chance of a thumb, labels and scores must agree on each bias."""
    rows, contexts = logged
    labels, logits = thumbs(rows, contexts, signal_bias=1.0)
    quality = utility(contexts, [row["response"] for row in rows])
    found = measure_biases("thumb_up", rows, logits, labels, {}, quality)
    asked = found.delayed  # asking back is liked, so the plain difference hides the bias
    assert (asked.in_labels_adjusted, asked.in_model_adjusted) == ("lower", "lower")
    assert (found.ending.in_labels, found.ending.in_model) == ("higher", "higher")
    assert (found.flattery.in_labels, found.flattery.in_model) == ("higher", "higher")
    assert found.prior_sentiment.in_labels == "higher"
    assert found.jtbd.p_value is not None
    assert found.jtbd.p_value < 1e-6
    assert {rate.jtbd for rate in found.jtbd.rates} == {
        "advice", "chat", "goodbye", "info", "roleplay",
    }  # fmt: skip


def test_without_bias_asking_back_is_liked(
    logged: tuple[list[dict[str, Any]], list[ChatContext]],
) -> None:
    """The control: utility rewards a question and dislikes flattery."""
    rows, contexts = logged
    labels, logits = thumbs(rows, contexts, signal_bias=0.0)
    found = measure_biases("thumb_up", rows, logits, labels, {})
    assert found.delayed.in_labels == "higher"
    assert found.delayed.in_model == "higher"
    quality = utility(contexts, [row["response"] for row in rows])
    adjusted = measure_biases("thumb_up", rows, logits, labels, {}, quality).delayed
    assert adjusted.in_labels_adjusted == "not shown"
    biased = measure_biases("thumb_up", rows, *thumbs(rows, contexts, 1.0)[::-1], {})
    assert found.flattery.observed is not None
    assert biased.flattery.observed is not None
    assert found.flattery.observed.upper < biased.flattery.observed.lower


def test_a_model_that_detects_jobs_is_blind_within_a_job() -> None:
    rng = np.random.default_rng(3)
    jobs = rng.choice(["chat", "goodbye"], size=4000).tolist()
    chance = np.array([0.6 if job == "goodbye" else 0.1 for job in jobs])
    labels = (rng.random(4000) < chance).astype(np.float64)
    logits = np.log(chance / (1 - chance)) + rng.normal(0, 1e-3, 4000)
    rows = [
        {"messages": [{"role": "user", "content": "hi"}], "response": "yes", "jtbd": job}
        for job in jobs
    ]
    found = measure_biases("thumb_up", rows, logits, labels, {"chat": 0.1, "goodbye": 0.6})
    assert found.jtbd.auc == pytest.approx(found.jtbd.auc_of_jtbd, abs=0.03)
    assert found.jtbd.auc is not None
    assert found.jtbd.auc > 0.7
    assert found.jtbd.auc_within == pytest.approx(0.5, abs=0.03)


def test_auc_within_compares_a_groups_own_rows() -> None:
    logits = np.array([1.0, 2.0, 11.0, 12.0, 5.0])
    labels = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    assert auc_within(logits, labels, ["a", "a", "b", "b", "c"]) == 0.5
    assert auc_within(logits, labels, ["a", "b", "c", "d", "e"]) is None


def test_few_rows_are_no_finding() -> None:
    rows = [{"messages": [{"role": "user", "content": "hi"}], "response": "?", "jtbd": None}] * 5
    report = report_signal(
        "love", [row | {"label": 0.0} for row in rows], np.array([0.0, 0, 0, 0, np.nan]), {}
    )
    assert report["num_unscored"] == 1
    assert report["auc"] is None
    assert report["summary"]["delayed"] == "too few rows (4 with the cue, 0 without)"
    assert report["biases"]["jtbd"]["p_value"] is None


def test_a_row_that_the_preference_model_cannot_score_is_left_out_and_counted() -> None:
    """Else one NaN makes every adjusted figure NaN. The row alone is scored wrongly."""
    labels = [1.0, 0.0] * 20
    row = {"messages": [{"role": "user", "content": "hi"}], "response": "yes", "jtbd": None}
    logits, quality = np.array([2.0, -2.0] * 20), np.linspace(-1, 1, 40)
    logits[6], quality[6] = -9.0, np.nan
    rows = [row | {"label": label} for label in labels]
    report = report_signal("love", rows, logits, {}, quality=quality)
    assert (report["num_rows"], report["num_unscored"], report["auc"]) == (39, 1, 1.0)


def test_base_rates_leave_out_rows_without_a_job() -> None:
    rows = [{"jtbd": "a", "label": 1.0}, {"jtbd": "a", "label": 0.0}, {"jtbd": None, "label": 1.0}]
    assert base_rates(rows) == {"a": 0.5}


def thumbs(
    rows: list[dict[str, Any]], contexts: list[ChatContext], signal_bias: float
) -> tuple[Any, Any]:
    """Labels, and the true log-odds as a perfect model would give them."""
    responses = [row["response"] for row in rows]
    features = feature_matrix(contexts, responses)
    liking = utility_of_features(contexts, features)
    chance = signal_probability(SIGNAL_MODELS["thumb_up"], contexts, features, liking, signal_bias)
    labels = user_signals(contexts, responses, np.random.default_rng(5), signal_bias)["thumb_up"]
    return labels.astype(np.float64), np.log(chance / (1 - chance))


def test_a_job_without_a_name_is_a_job() -> None:
    """An empty `jtbd` is known, and only None is not: logits, labels and jobs stay aligned."""
    jobs = ["", "", "", "", "chat", "chat", "chat", "chat", None]
    labels = np.array([1.0, 0, 1, 0, 1, 0, 1, 0, 1])
    rows = [
        {"messages": [{"role": "user", "content": "hi"}], "response": "yes", "jtbd": job}
        for job in jobs
    ]
    found = measure_biases("love", rows, labels, labels, {"": 0.5, "chat": 0.5})
    assert found.jtbd.auc_within == 1.0
