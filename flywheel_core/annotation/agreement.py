"""Do annotators agree, and does each stay as good as they were (§3.4.1)?

Agreement beyond chance is Krippendorff's alpha (any number of reviews a task) and Fleiss' kappa
(the same number for every task). An annotator is compared with what the others said of the same
tasks, early against late. Where a number cannot be had it is null, with the reason beside it.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flywheel_core.annotation.reviews import CheckedReviews, Review
from flywheel_core.evaluation.prevalence import benjamini_hochberg
from flywheel_core.evaluation.statistics import (
    Interval,
    proportion_difference,
    wilson_interval,
)
from flywheel_core.records import TIE_VOTE

FALSE_DISCOVERY_RATE = 0.05
MIN_COMPARED = 20
"""Fewer tasks shared with others, in either half, say nothing about one annotator; ours."""

Counts = npt.NDArray[np.int64]
Level = Literal["nominal", "ordinal"]

IN_ORDER = (0, TIE_VOTE, 1)
"""Votes from one response to the other: a tie lies between, so the preference is ordinal, and a
vote against a tie is half a disagreement, not a whole one."""


@dataclass(frozen=True)
class Agreement:
    """How far annotators agree on one question. `share_unanimous` is over tasks with at least two
    reviews; a null number has its reason in `missing`."""

    question: str
    num_tasks: int
    num_reviews: int
    alpha: float | None
    kappa: float | None
    num_kappa_tasks: int
    share_unanimous: float | None
    missing: str | None = None


@dataclass(frozen=True)
class AnnotatorRecord:
    """One annotator against the others on the same tasks.

    `agreement` is the share of the others' votes that this one's equals. `drift` is late minus
    early in submission order, with Newcombe's interval; `drifted` where it differs from 0 beyond
    chance over all annotators (Benjamini-Hochberg). `left_share` of the choices fell on the left
    side: far from one half means the side is chosen, not the response.
    """

    annotator_id: str
    num_reviews: int
    num_compared: int
    agreement: float | None
    drift: Interval | None
    drifted: bool
    left_share: Interval | None
    tie_share: float


def krippendorff_alpha(counts: Counts, level: Level = "nominal") -> float | None:
    """Alpha of `counts` [num_tasks, num_categories] (Krippendorff 2019, chapter 12); at the ordinal
    level the categories are in their order.

    None where it is not defined: no task with two reviews, or one category only.
    """
    pairable = counts[counts.sum(axis=1) >= 2]
    if not len(pairable) or (pairable.sum(axis=0) > 0).sum() < 2:
        return None
    import krippendorff

    return float(krippendorff.alpha(value_counts=pairable, level_of_measurement=level))


def fleiss_kappa(counts: Counts) -> float | None:
    """Fleiss' kappa of `counts` [num_tasks, num_categories], every row with the same sum of at
    least 2 (Fleiss 1971). None where all reviews fall in one category."""
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    from statsmodels.stats.inter_rater import fleiss_kappa as kappa

    return float(kappa(counts, method="fleiss"))


def agreement_of(question: str, counts: Counts, level: Level = "nominal") -> Agreement:
    """Agreement on one question from its answers' counts [num_tasks, num_categories]. Kappa takes
    categories as unordered, and the tasks with the usual number of reviews."""
    sizes = counts.sum(axis=1)
    several = counts[sizes >= 2]
    if not len(several):
        return Agreement(
            question=question,
            num_tasks=len(counts),
            num_reviews=int(sizes.sum()),
            alpha=None,
            kappa=None,
            num_kappa_tasks=0,
            share_unanimous=None,
            missing="no task has two reviews, so agreement cannot be measured",
        )
    usual = Counter(several.sum(axis=1).tolist()).most_common(1)[0][0]
    regular = several[several.sum(axis=1) == usual]
    alpha, kappa = krippendorff_alpha(several, level), fleiss_kappa(regular)
    return Agreement(
        question=question,
        num_tasks=len(counts),
        num_reviews=int(sizes.sum()),
        alpha=alpha,
        kappa=kappa,
        num_kappa_tasks=len(regular),
        share_unanimous=float((several.max(axis=1) == several.sum(axis=1)).mean()),
        missing=None if alpha is not None else "every answer is the same, so chance is undefined",
    )


def measure_agreement(checked: CheckedReviews) -> dict[str, Agreement]:
    """Agreement on the preference, and on each question over single responses."""
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    answers: dict[str, dict[tuple[str, int], Counter[int]]] = defaultdict(
        lambda: defaultdict(Counter)
    )
    for task_id, reviews in checked.by_task().items():
        for review in reviews:
            if review.vote is not None:
                votes[task_id][review.vote] += 1
            for (name, number), yes in review.answers.items():
                answers[name][task_id, number][int(yes)] += 1
    found = {"preference": agreement_of("preference", _table(votes, IN_ORDER), "ordinal")}
    for name in sorted(answers):
        found[name] = agreement_of(name, _table(answers[name], (0, 1)))
    return found


def _table(counts: Mapping[Any, Counter[int]], categories: Sequence[int]) -> Counts:
    rows = [[counted[one] for one in categories] for counted in counts.values()]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(categories))


@dataclass(frozen=True)
class _Compared:
    """One review's agreement with the others' votes on its task."""

    agreed: int
    others: int


def annotator_records(checked: CheckedReviews) -> list[AnnotatorRecord]:
    """Each annotator, by id; drift is tested over all of them at once."""
    reviews: dict[str, list[Review]] = defaultdict(list)
    compared: dict[str, list[_Compared]] = defaultdict(list)
    by_task = checked.by_task()
    for review in checked.reviews:
        if review.adjudicates or review.vote is None:
            continue
        reviews[review.annotator_id].append(review)
        others = [
            one.vote
            for one in by_task[review.task_id]
            if one.annotator_id != review.annotator_id and one.vote is not None
        ]
        if others:
            agreed = sum(vote == review.vote for vote in others)
            compared[review.annotator_id].append(_Compared(agreed, len(others)))
    names = sorted(reviews)
    halves = [_halves(compared[name]) for name in names]
    p_values = [1.0 if half is None else _p_value(*half) for half in halves]
    q_values = benjamini_hochberg(p_values) if names else []
    return [
        _record(name, reviews[name], compared[name], half, q <= FALSE_DISCOVERY_RATE)
        for name, half, q in zip(names, halves, q_values, strict=True)
    ]


Halves = tuple[float, int, float, int]
"""Sum of per-task agreement and number of tasks, early and late."""


def _halves(compared: Sequence[_Compared]) -> Halves | None:
    """A task counts once, however many others reviewed it: their votes on it are not independent
    evidence about this annotator."""
    middle = len(compared) // 2
    if middle < MIN_COMPARED:
        return None
    shares = [one.agreed / one.others for one in compared]
    return sum(shares[:middle]), middle, sum(shares[middle:]), len(shares) - middle


def _p_value(early: float, num_early: int, late: float, num_late: int) -> float:
    """Two-sided z test of two proportions; fractional successes are less variable than coin
    flips, so it errs towards calling no drift."""
    from statsmodels.stats.proportion import proportions_ztest

    pooled = (early + late) / (num_early + num_late)
    if pooled in (0.0, 1.0):
        return 1.0
    return float(proportions_ztest([early, late], [num_early, num_late])[1])


def _record(
    name: str,
    reviews: Sequence[Review],
    compared: Sequence[_Compared],
    halves: Halves | None,
    differs: bool,
) -> AnnotatorRecord:
    chosen = [one for one in reviews if one.vote in (0, 1)]
    left = sum((one.left_response == 0) == (one.vote == 1) for one in chosen)
    drift = None
    if halves is not None:
        early, num_early, late, num_late = halves
        drift = proportion_difference(late, num_late, early, num_early)
    return AnnotatorRecord(
        annotator_id=name,
        num_reviews=len(reviews),
        num_compared=len(compared),
        agreement=(
            sum(one.agreed / one.others for one in compared) / len(compared) if compared else None
        ),
        drift=drift,
        drifted=drift is not None and differs,
        left_share=wilson_interval(left, len(chosen)) if chosen else None,
        tie_share=1 - len(chosen) / len(reviews),
    )


def agreement_report(checked: CheckedReviews) -> dict[str, Any]:
    """Agreement and annotators, as plain JSON for a manifest."""
    return {
        "agreement": {name: asdict(one) for name, one in measure_agreement(checked).items()},
        "annotators": [
            {
                **asdict(one),
                "drift": one.drift and one.drift.model_dump(mode="json"),
                "left_share": one.left_share and one.left_share.model_dump(mode="json"),
            }
            for one in annotator_records(checked)
        ],
        "dropped_reviews": dict(sorted(checked.dropped.items())),
        "remarks": dict(sorted(checked.remarks.items())),
    }
