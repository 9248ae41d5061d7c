"""Held-out figures on cases whose answers are known."""

import math
from typing import Any

import numpy as np
import pytest

from flywheel_core.errors import InputDataError
from flywheel_core.training import reward_trainer
from flywheel_core.training.reward_metrics import (
    area_under_curve,
    calibration_error,
    log_loss,
    pair_report,
    signal_report,
    two_order_report,
)
from tests.training.toy import reward_config


def array(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values, dtype=np.float64)


def test_accuracy_counts_decided_and_unanimous_pairs_apart() -> None:
    """The fifth pair has a target of 1 by one person alone, and is no consensus."""
    agreed = np.array([True, True, False, False, False])
    report = pair_report(array(2, -1, -1, 3, -4), array(1, 0, 2 / 3, 0.5, 1), agreed)
    assert report["accuracy"] == pytest.approx(2 / 4)
    assert report["accuracy_unanimous"] == 1
    assert (report["decided_rows"], report["unanimous_rows"]) == (4, 2)
    alone = pair_report(array(2, -1), array(1, 0), np.zeros(2, dtype=bool))
    assert (alone["accuracy"], alone["accuracy_unanimous"], alone["unanimous_rows"]) == (1, None, 0)


def test_a_model_that_scores_all_alike_is_right_half_of_the_time() -> None:
    """Whichever response the annotators prefer."""
    for targets in (array(1, 1, 1), array(0, 0, 0), array(0, 1, 1)):
        report = pair_report(np.zeros(3), targets, np.ones(3, dtype=bool))
        assert (report["accuracy"], report["accuracy_unanimous"]) == (0.5, 0.5)


def test_both_orders_are_averaged_and_the_position_bias_is_seen() -> None:
    """A model that only prefers the first position knows nothing: its mean is zero."""
    blind = two_order_report(array(4, 4, 4, 4), array(1, 0, 0, 1), np.ones(4, dtype=bool))
    assert blind["log_loss"] == pytest.approx(math.log(2))
    assert blind["position_bias_logit"] == 4
    agreed = np.array([False, False, True, True])
    fair = two_order_report(array(3, 1, -1, -3), array(1, 0, 0, 1), agreed)
    assert (fair["accuracy_unanimous"], fair["unanimous_rows"]) == (0, 1)
    assert fair["accuracy"] == 0.5  # (3 − 1)/2 is right, (−1 + 3)/2 is not


def test_log_loss_of_soft_targets_is_cross_entropy() -> None:
    chance = 1 / (1 + math.exp(-0.7))
    expected = -(0.25 * math.log(chance) + 0.75 * math.log(1 - chance))
    assert log_loss(array(0.7), array(0.25)) == pytest.approx(expected)
    assert log_loss(array(800.0), array(0.0)) == 800  # no overflow


def test_area_under_curve_counts_ties_as_half() -> None:
    assert area_under_curve(array(1, 2, 3, 4), array(0, 0, 1, 1)) == 1
    assert area_under_curve(array(1, 1, 1, 1), array(0, 1, 0, 1)) == 0.5
    assert area_under_curve(array(3, 1, 2), array(0, 0, 1)) == 0.5
    assert area_under_curve(array(1, 2), array(1, 1)) is None


def test_area_under_curve_equals_the_count_of_pairs() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=80).round(1), (random.random(80) < 0.3) * 1.0
    positive, negative = logits[labels == 1], logits[labels == 0]
    above = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
    assert area_under_curve(logits, labels) == pytest.approx(above)


def test_calibration_error() -> None:
    logits = array(*[math.log(0.75 / 0.25)] * 4)
    assert calibration_error(logits, array(1, 1, 1, 0)) == pytest.approx(0)
    assert calibration_error(logits, array(0, 0, 0, 0)) == pytest.approx(0.75)


def test_nothing_held_out_is_none_not_an_error() -> None:
    report = signal_report(array(), array())
    assert report == {"auc": None, "ece": None, "log_loss": None, "base_rate": None}


@pytest.mark.parametrize("kind", ["pointwise", "pairwise", "signal"])
def test_a_model_that_gives_nan_has_no_figures(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten NaN logits would otherwise be an accuracy of 0.7 and an AUC of 0.5."""
    monkeypatch.setattr(reward_trainer, "row_logits", lambda *_: np.full(2, np.nan))
    rows: Any = [{"target": 1.0, "consensus": True}] * 2
    config = reward_config(kind, learning_rate=7.0)
    with pytest.raises(InputDataError, match=r"signal_x gave no finite logit for 2 of 2 .*\(7\)"):
        reward_trainer.evaluate_rows("signal_x", None, rows, config)  # type: ignore[arg-type]
