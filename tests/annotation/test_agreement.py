"""Agreement against published worked examples; drift and a liking for a side are found."""

from collections import Counter

import numpy as np
import pytest
from annotation_samples import review_of, world_tasks

from flywheel_core.annotation.agreement import (
    agreement_of,
    agreement_report,
    annotator_records,
    fleiss_kappa,
    krippendorff_alpha,
    measure_agreement,
)
from flywheel_core.annotation.reviews import CheckedReviews, Review, check_reviews
from flywheel_core.world.annotators import Person, SimulatedAnnotators

KRIPPENDORFF = (  # Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, example C
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)
FLEISS = np.array(  # Fleiss (1971), table 1: 30 patients, 6 raters, 5 diagnoses
    [
        [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0],
        [2, 0, 4, 0, 0], [0, 0, 4, 0, 2], [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6],
        [1, 0, 0, 5, 0], [1, 1, 0, 4, 0], [0, 3, 3, 0, 0], [1, 0, 0, 5, 0], [0, 2, 0, 3, 1],
        [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0], [0, 2, 0, 4, 0], [1, 0, 2, 0, 3],
        [0, 0, 0, 0, 6], [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0], [1, 0, 0, 4, 1],
        [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0], [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
    ]
)  # fmt: skip


def counts_of(raters: tuple[tuple[int | None, ...], ...]) -> np.ndarray:
    columns = [
        Counter(one for one in column if one is not None) for column in zip(*raters, strict=True)
    ]
    return np.array([[column[value] for value in (1, 2, 3, 4, 5)] for column in columns])


def test_alpha_is_krippendorffs_own() -> None:
    counts = counts_of(KRIPPENDORFF)
    assert krippendorff_alpha(counts) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(counts, "ordinal") == pytest.approx(0.815, abs=5e-4)


def test_kappa_is_fleiss_own() -> None:
    assert fleiss_kappa(FLEISS) == pytest.approx(0.430, abs=5e-4)


def test_alpha_of_the_same_data_is_near_kappa_and_from_the_definition() -> None:
    """1 - D_o / D_e, in float64 from the coincidence matrix (Krippendorff 2011, step C)."""
    sizes = FLEISS.sum(axis=1, keepdims=True)
    coincidences = sum(
        (np.outer(row, row) - np.diag(row)) / (size - 1)
        for row, size in zip(FLEISS, sizes[:, 0], strict=True)
    )
    totals = coincidences.sum(axis=0)
    number = totals.sum()
    observed = number - np.trace(coincidences)
    expected = (number**2 - (totals**2).sum()) / (number - 1)
    alpha = krippendorff_alpha(FLEISS)
    assert alpha == pytest.approx(1 - observed / expected, abs=1e-12)
    assert alpha == pytest.approx(0.430, abs=0.01)


def test_agreement_that_cannot_be_measured_is_null_with_its_reason() -> None:
    single = agreement_of("preference", np.array([[1, 0, 0], [0, 1, 0]]))
    assert (single.alpha, single.kappa, single.share_unanimous) == (None, None, None)
    assert single.missing == "no task has two reviews, so agreement cannot be measured"
    same = agreement_of("templated", np.array([[3, 0], [3, 0]]))
    assert (same.alpha, same.share_unanimous) == (None, 1.0)
    assert same.missing == "every answer is the same, so chance is undefined"


def test_kappa_takes_the_tasks_with_the_usual_number_of_reviews() -> None:
    uneven = np.vstack([FLEISS, [[1, 1, 0, 0, 0]]])
    found = agreement_of("diagnosis", uneven)
    assert (found.num_tasks, found.num_kappa_tasks) == (31, 30)
    assert found.kappa == pytest.approx(0.430, abs=5e-4)


def test_random_annotators_agree_by_chance_only_and_careful_ones_more() -> None:
    _, tasks = world_tasks(400)
    blind = [Person(f"blind-{i}", lapse_share=1.0) for i in range(4)]
    for people, low, high in ((blind, -0.06, 0.06), (None, 0.25, 0.6)):
        source = SimulatedAnnotators(3, people or SimulatedAnnotators(3).people)
        checked = check_reviews(tasks, source.label(tasks, 5), num_annotators=3)
        alpha = measure_agreement(checked)["preference"].alpha
        assert alpha is not None
        assert low < alpha < high


def test_drift_and_a_liking_for_the_left_are_found_and_nobody_else_is_blamed() -> None:
    _, tasks = world_tasks(700)
    people = [Person(f"steady-{i}", beta=2.0, tie_margin=0.0) for i in range(6)]
    people.append(Person("drifts", beta=2.0, tie_margin=0.0, late_lapse_share=1.0))
    people.append(Person("leans", beta=2.0, tie_margin=0.0, left_bias=1.5))
    reviews = SimulatedAnnotators(3, people).label(tasks, 1)
    records = {
        one.annotator_id: one
        for one in annotator_records(check_reviews(tasks, reviews, num_annotators=3))
    }
    assert [name for name, one in records.items() if one.drifted] == ["drifts"]
    drift = records["drifts"].drift
    assert drift is not None
    assert drift.upper < -0.05
    left = {name: one.left_share for name, one in records.items()}
    assert left["leans"] is not None
    assert left["leans"].lower > 0.55
    others = [one for name, one in left.items() if name != "leans" and one is not None]
    assert all(one.lower < 0.5 < one.upper for one in others)


def test_few_shared_tasks_say_nothing_about_an_annotator() -> None:
    _, tasks = world_tasks(30)
    reviews: list[Review] = []
    for task in tasks:
        reviews += [review_of(task, "a", 1), review_of(task, "b", 0)]
    (first, _) = annotator_records(check_reviews(tasks, reviews, num_annotators=2))
    assert (first.agreement, first.drift, first.drifted) == (0.0, None, False)
    assert annotator_records(CheckedReviews([], Counter(), Counter())) == []


def test_the_report_is_plain_json() -> None:
    import json

    _, tasks = world_tasks(60)
    checked = check_reviews(tasks, SimulatedAnnotators(3).label(tasks, 5), num_annotators=3)
    report = json.loads(json.dumps(agreement_report(checked), allow_nan=False))
    assert set(report["agreement"]) == {
        "preference",
        "false_refusal",
        "templated",
        "violates_character",
    }
    assert len(report["annotators"]) == 12
