"""The studies of `make bench ONLY=rewards`, small and seeded; sizes were tried on several seeds."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel_core.annotation.pairs import held_out_unit, is_held_out
from flywheel_core.evaluation.statistics import Interval
from flywheel_core.rewards.ledger import regressions
from tests.bench import topical_signals
from tests.bench.reward_agreement import LOSS_MAX, Agreement, agreement_study
from tests.bench.reward_curve import accuracy_curve
from tests.bench.reward_drift import (
    BATCHES,
    diagonal_gains,
    drift_ledger,
    interactive,
    mean_gain,
)
from tests.bench.reward_lab import Bench, accuracies, noise_ceiling, open_bench
from tests.bench.reward_samples import HELD_OUT_SHARE, world_pairs


def test_the_noise_ceiling_is_where_the_world_puts_it() -> None:
    """Single vote .77, majority .83, unanimous .94 (shared/WORLD.md); and a coin is at one half."""
    pairs = world_pairs(3000, seed=7)
    ceiling = noise_ceiling(pairs)
    for name, expected in (("single", 0.77), ("majority", 0.83), ("unanimous", 0.94)):
        assert ceiling[name].estimate == pytest.approx(expected, abs=0.03)
    coin = accuracies(np.random.default_rng(0).normal(size=3000), pairs)
    for found in coin.values():
        assert found.lower < 0.5 < found.upper
    assert pairs == world_pairs(3000, seed=7)


def test_a_study_asks_about_users_whom_its_models_never_saw() -> None:
    """By production's unit: drawn by seed alone, the two would share hundreds of users."""
    trained, held_out = (world_pairs(1000, seed=5 + kept, held_out=bool(kept)) for kept in (0, 1))
    sides = [{held_out_unit(row) for row in rows} for rows in (trained, held_out)]
    assert not sides[0] & sides[1]
    for rows, expected in ((trained, False), (held_out, True)):
        for row in rows:
            assert row["held_out"] is is_held_out(held_out_unit(row), HELD_OUT_SHARE) is expected
    every = world_pairs(2000, seed=5)
    assert np.mean([row["held_out"] for row in every]) == pytest.approx(HELD_OUT_SHARE, abs=0.1)


def test_the_batches_that_drift_share_no_chat() -> None:
    for _, wanted in BATCHES:
        rows = world_pairs(30, seed=9, wanted=interactive(wanted))
        turns = [sum(turn["role"] == "user" for turn in row["messages"]) for row in rows]
        assert min(turns) >= 3
    counted = sum(
        [wanted(context) for _, wanted in BATCHES].count(True)
        for context in sampled_contexts()
    )  # fmt: skip
    assert counted == len(sampled_contexts()), "every chat belongs to exactly one batch"


def sampled_contexts() -> list[Any]:
    from flywheel_core.world.contexts import context_of
    from flywheel_core.world.product import sample_contexts

    drafts = sample_contexts("user", 200, 1)
    return [context_of(draft.messages, draft.character_id) for draft in drafts]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("studies")) as found:
        yield found


@pytest.mark.heavy
def test_more_pairs_make_a_better_model_below_the_ceiling(bench: Bench) -> None:
    curve = accuracy_curve(bench, (60, 600), num_eval=1200)
    few, many = curve[60]["unanimous"], curve[600]["unanimous"]
    assert many.lower > few.upper
    assert many.lower > 0.6
    ceiling = noise_ceiling(world_pairs(1200, seed=2, held_out=True))["unanimous"]
    assert many.estimate < ceiling.estimate


@pytest.mark.heavy
def test_consensus_evaluates_and_single_reviews_train(bench: Bench) -> None:
    """Table 9, pointwise, at a size whose interval is about two points wide on either side: it can
    show label noise in an evaluation, and that single reviews are not plainly worse to train on."""
    study = agreement_study(bench, 240, 2500, kinds=("pointwise",))
    for variant in ("unanimous", "single_all", "single_random"):
        found = study.accuracy["pointwise", variant]
        assert found["unanimous"].lower > found["single"].upper, variant
    for variant in ("single_all", "single_random"):
        lost = study.difference("pointwise", variant, "unanimous", "unanimous")
        assert lost.upper > -LOSS_MAX, variant


@pytest.mark.heavy
def test_every_batch_teaches_and_none_is_forgotten_beyond_luck(bench: Bench) -> None:
    """Table 8 over its four batches; one batch by itself is too small here to show its gain."""
    (family,) = drift_ledger(bench, 160, 300).families
    gains = diagonal_gains(family)
    assert set(gains) == {(b, w) for b in (2, 3, 4) for w in ("static", "interactive")}
    assert mean_gain(gains.values()).lower > 0
    assert [one for number in range(1, 5) for one in regressions(family, number)] == []


def test_a_mean_of_gains_has_the_width_of_independent_parts() -> None:
    parts = [Interval(estimate=0.1, lower=0.07, upper=0.13), Interval(estimate=0.3, lower=0.26,
             upper=0.34)]  # fmt: skip
    mean = mean_gain(parts)
    assert (mean.estimate, mean.lower, mean.upper) == pytest.approx((0.2, 0.175, 0.225))


@pytest.mark.heavy
def test_a_signal_model_is_compared_on_conversations_never_seen(
    bench: Bench, tmp_path: Path
) -> None:
    """A file in Topical-Chat's form whose rating hangs on one word of the response: both models
    must find it, and the comparison must not see a training conversation."""
    rng = np.random.default_rng(0)
    words = ["movies", "music", "weather", "football", "the", "a", "I", "like", "think", "of"]

    def turn(index: int, rating: str) -> dict[str, Any]:
        text = " ".join(rng.choice(words, size=6))
        mark = {"Excellent": " great", "Passable": " boring"}.get(rating, "")
        return {"agent": f"agent_{index % 2 + 1}", "message": text + mark, "turn_rating": rating}

    ratings = ["Excellent", "Passable", "Good", ""]
    content = {
        f"t_{number}": {"content": [turn(i, str(rng.choice(ratings))) for i in range(8)]}
        for number in range(160)
    }
    file = tmp_path / "chat.json.gz"
    file.write_bytes(gzip.compress(json.dumps(content).encode()))
    turns = topical_signals.rated_turns(file)
    assert {row["label"] for row in turns} == {0.0, 1.0}
    found = topical_signals.compare(bench, turns, 1.0, num_epochs=4)
    assert found.num_train + found.num_test == len(turns)
    assert found.bag_of_words > 0.95
    assert found.signal_model > 0.95
    gap = found.signal_model - found.bag_of_words
    assert found.difference.estimate == pytest.approx(gap)
    assert -0.1 < found.difference.lower <= found.difference.upper < 0.1


def test_what_consensus_shows_is_judged_by_its_interval() -> None:
    """One model gains on the pairs on which annotators agree and nowhere else, the other nowhere:
    only the first is beyond doubt, and the difference is the one of the four accuracies."""
    random = np.random.default_rng(0)
    agreed = random.random(2000) < 0.5
    before = (random.random(2000) < 0.6).astype(float)
    luck = (random.random(2000) < 0.6).astype(float)
    better = np.where(agreed & (random.random(2000) < 0.3), 1.0, before)
    right = {
        ("pointwise", name): {"single": found, "unanimous": found[agreed]}
        for name, found in (("before", before), ("better", better), ("luck", luck))
    }
    study = Agreement({}, right, {"unanimous": agreed})  # type: ignore[arg-type]
    shown = study.shown_by_consensus("pointwise", "better", "before")
    gain = better - before
    assert shown.estimate == pytest.approx(gain[agreed].mean() - gain.mean())
    assert 0 < shown.lower < shown.estimate < shown.upper
    nothing = study.shown_by_consensus("pointwise", "luck", "before")
    assert nothing.lower < 0 < nothing.upper
    # the same by the sampling variance of the influence of a pair
    share = agreed.mean()
    influence = agreed / share * (gain - gain[agreed].mean()) - (gain - gain.mean())
    half = 1.96 * influence.std() / np.sqrt(len(gain))
    assert shown.upper - shown.lower == pytest.approx(2 * half, rel=0.1)


def test_an_absent_data_set_is_said_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(topical_signals, "FILE", tmp_path / "none.json.gz")
    (row,) = topical_signals.rows(None)
    assert row.value is None
    assert row.holds is None
    assert "not measured: no" in row.how
