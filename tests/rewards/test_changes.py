"""What changed between two preference models: flagged at a false discovery rate, not by luck."""

import numpy as np
import pytest
from scipy.stats import binom

from flywheel_core.rewards.changes import Comparison, Outcome, compare


def answers(lost: int, won: int = 0, count: int = 200) -> tuple[list[float], list[float]]:
    """What the model before and the new one got right, where they differ on `lost + won` pairs."""
    same = [1.0] * (count - lost - won)
    return [*same, *[1.0] * lost, *[0.0] * won], [*same, *[0.0] * lost, *[1.0] * won]


def asked(batch: int, before: list[float], after: list[float]) -> list[Outcome]:
    """Generation 20's model and the one before it, on one batch."""
    return [
        Outcome(model_generation=model, batch_generation=batch, workflow="static", right=tuple(one))
        for model, one in ((19, before), (20, after))
    ]


def unchanged(random: np.random.Generator, batches: range) -> list[Outcome]:
    """The models differ on 80 of a batch's 400 pairs, either way alike."""
    found = []
    for batch in batches:
        lost = int(random.binomial(80, 0.5))
        found += asked(batch, *answers(lost, 80 - lost, count=400))
    return found


def compared(outcomes: list[Outcome]) -> dict[int, Comparison]:
    return {one.batch_generation: one for one in compare(20, {"m": outcomes})["m"]}


def test_adjusted_p_values_as_worked_by_hand() -> None:
    """k pairs lost and none won: the sign test gives 2 · ½ᵏ. Of four, the step-up makes it
    p · 4 / rank: for k = 10, 9, 6, 5 that is .0078, .0078, .0417 and .0625. The last is no flag,
    though its own interval excludes zero."""
    lost = {1: 6, 2: 10, 3: 5, 4: 9}
    found = compared([one for batch, k in lost.items() for one in asked(batch, *answers(k))])
    expected = {1: 2 / 2**6 * 4 / 3, 2: 2 / 2**10 * 4, 3: 2 / 2**5, 4: 2 / 2**9 * 4 / 2}
    assert {b: one.adjusted_p_value for b, one in found.items()} == pytest.approx(expected)
    changes = [found[batch].change for batch in lost]
    assert changes == ["regressed", "regressed", "unsure", "regressed"]
    assert found[3].difference is not None
    assert found[3].difference.upper < 0


def test_the_new_batch_is_a_question_of_its_own() -> None:
    """It neither pays for the old batches nor they for it; a gain is flagged as a drop is."""
    quiet = [one for batch in range(1, 10) for one in asked(batch, *answers(2, 2))]
    found = compared([*quiet, *asked(20, *answers(0, 8))])
    assert found[20].adjusted_p_value == pytest.approx(2 / 2**8)
    assert found[20].change == "gained"
    on_old = compared([*quiet, *asked(10, *answers(0, 8))])
    assert on_old[10].adjusted_p_value == pytest.approx(2 / 2**8 * 10)
    assert on_old[10].change == "unsure"


def test_small_changes_are_held_and_few_pairs_not_compared() -> None:
    certain = compared(asked(1, *answers(20, count=1000)))[1]
    assert certain.adjusted_p_value == pytest.approx(2 / 2**20)
    assert certain.change == "held", "2 points are within the tolerance"
    few = compared([*asked(1, [1.0] * 19, [0.0] * 19), *asked(2, *answers(6))])
    assert few[1].change == "too few pairs"
    assert few[1].difference is few[1].adjusted_p_value is None
    assert few[2].adjusted_p_value == pytest.approx(2 / 2**6), "what is not compared costs nothing"


def test_without_any_change_a_generation_seldom_has_a_flag() -> None:
    """Twelve old batches whose pairs go either way: at 95 % each, near half of the generations
    had one. Seeded; the bound is what 5 % reaches by chance once in a thousand."""
    random = np.random.default_rng(5)
    num_generations, flagged, at_95 = 500, 0, 0
    for _ in range(num_generations):
        found = compared(unchanged(random, range(1, 13))).values()
        flagged += any(one.change in ("regressed", "gained") for one in found)
        at_95 += any(one.difference is not None and one.difference.excludes_zero for one in found)
    assert flagged <= binom.ppf(0.999, num_generations, 0.05)
    assert at_95 > 0.3 * num_generations


def test_a_real_drop_is_found_among_the_others() -> None:
    """Ten points lost on one batch of twelve."""
    random = np.random.default_rng(6)
    num_generations, missed, wrong = 100, 0, 0
    for _ in range(num_generations):
        outcomes = [*asked(1, *answers(60, 20, count=400)), *unchanged(random, range(2, 13))]
        regressed = [b for b, one in compared(outcomes).items() if one.change == "regressed"]
        missed += 1 not in regressed
        wrong += len(regressed) > 1
    assert missed == 0
    assert wrong <= binom.ppf(0.999, num_generations, 0.05)


def test_pairs_of_one_user_count_as_one_voice() -> None:
    """Ten users with 20 pairs each, of whom one lost all of his and gained nothing elsewhere: pair
    by pair that is beyond doubt (2 · ½²⁰), user by user it is one voice of ten."""
    users = tuple(f"u{number // 20}" for number in range(200))
    before, after = answers(20)
    one_user = [
        Outcome(
            model_generation=model, batch_generation=1, workflow="static", right=right, units=users
        )
        for model, right in ((19, tuple(before[::-1])), (20, tuple(after[::-1])))
    ]
    assert compared(asked(1, before, after))[1].change == "regressed"
    clustered = compared(one_user)[1]
    assert (clustered.change, clustered.adjusted_p_value) == ("unsure", 1.0)
    assert clustered.difference is not None
    assert clustered.difference.estimate == pytest.approx(-0.1)
    assert clustered.difference.lower < -0.25  # three of ten users drawn, not 28 of 200 pairs
    # and the share that is right: over users its standard error is that of ten voices
    accuracy = one_user[1].accuracy
    half = (accuracy.upper - accuracy.lower) / 2 / 1.96
    assert half == pytest.approx(np.sqrt(0.9 * 0.1 / 10), rel=0.25)
    alone = Outcome(**one_user[1].model_dump() | {"units": tuple(map(str, range(200)))})
    assert alone.accuracy.upper - alone.accuracy.lower < accuracy.upper - accuracy.lower
