"""Labels as they come in: checked, counted, and turned into one judgement a pair.

A *review* is one annotator's work on one task. Reviews that contradict each other, answer another
question set or belong to no task are never averaged away: they are dropped and counted by reason,
and a batch without usable labels is refused.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flywheel_core.annotation.pairs import Judgement, PairDraft, held_out_unit, is_held_out
from flywheel_core.annotation.questions import TAGS, Workflow, question_set
from flywheel_core.annotation.tasks import AnnotationTask
from flywheel_core.errors import InputDataError
from flywheel_core.records import TIE_VOTE

VOTES = (TIE_VOTE, 0, 1)
Answer = tuple[str, int]
"""A question's id, and which of the pair's responses it is about."""


@dataclass(frozen=True)
class Review:
    """One annotator on one task: a row of `records.REVIEWS`.

    `vote` is null where the annotator was not asked to choose, or did not; `answers` holds what
    was answered, by question and response; `adjudicates` marks the review that settles a split.
    """

    task_id: str
    annotator_id: str
    workflow: Workflow
    question_set: str
    left_response: int
    vote: int | None
    answers: Mapping[Answer, bool] = field(default_factory=dict)
    rewrite: str | None = None
    adjudicates: bool = False
    submitted_at: str | None = None
    duration_s: float | None = None

    def fails(self, response: int) -> bool:
        """Whether this annotator tagged that response with any fault."""
        return any(yes for (_, number), yes in self.answers.items() if number == response)

    @property
    def both_fail(self) -> bool:
        return self.fails(0) and self.fails(1)

    def to_row(self) -> dict[str, Any]:
        """A row of `records.REVIEWS`."""
        answers = [
            {"question": name, "response": number, "yes": yes}
            for (name, number), yes in sorted(self.answers.items())
        ]
        return {**self.__dict__, "answers": answers}


def review_of_row(row: Mapping[str, Any]) -> Review:
    """The review in a row of `records.REVIEWS`."""
    answers = {(one["question"], one["response"]): one["yes"] for one in row["answers"]}
    return Review(**{**row, "answers": answers})


@dataclass(frozen=True)
class CheckedReviews:
    """Usable reviews in the order of submission; what was dropped, and what is odd, by reason."""

    reviews: list[Review]
    dropped: Counter[str]
    remarks: Counter[str]

    def by_task(self) -> dict[str, list[Review]]:
        """The annotators' reviews of each task, without the adjudicator's."""
        found: dict[str, list[Review]] = defaultdict(list)
        for review in self.reviews:
            if not review.adjudicates:
                found[review.task_id].append(review)
        return dict(found)

    def adjudicated(self) -> dict[str, int]:
        """The adjudicator's choice on each task that has one; several adjudicators chose alike."""
        return {
            one.task_id: one.vote
            for one in self.reviews
            if one.adjudicates and one.vote is not None
        }


def check_reviews(
    tasks: Sequence[AnnotationTask], reviews: Sequence[Review], *, num_annotators: int
) -> CheckedReviews:
    """Keep what can be used; refuse a batch that has nothing, or one annotator where several were
    asked for: three votes of one person are one opinion."""
    by_id = {task.task_id: task for task in tasks}
    dropped: Counter[str] = Counter()
    usable = []
    for review in in_order_of_submission(reviews):
        reason = _fault(review, by_id)
        if reason:
            dropped[reason] += 1
        else:
            usable.append(review)
    kept = _without_disagreement(_without_contradictions(usable, dropped), dropped)
    if not any(review.vote is not None for review in kept):
        raise InputDataError(
            f"none of {len(reviews)} labels for {len(tasks)} tasks can be used: "
            f"{_listed(dropped) or 'no annotator chose a response'}; check that they are this "
            "batch's labels"
        )
    annotators = {review.annotator_id for review in kept if not review.adjudicates}
    if num_annotators > 1 and len(annotators) == 1:
        raise InputDataError(
            f"num_annotators: {num_annotators} were asked for, but all {len(kept)} labels are by "
            f"{next(iter(annotators))!r}; have others label this batch, or set num_annotators to 1"
        )
    return CheckedReviews(kept, dropped, _remarks(by_id, kept, num_annotators))


def in_order_of_submission(reviews: Sequence[Review]) -> list[Review]:
    """By time where every review has one; else as they came. Tools export by task, and without
    its order nobody's early and late work can be told apart."""
    if all(one.submitted_at for one in reviews):
        return sorted(reviews, key=lambda one: one.submitted_at or "")
    return list(reviews)


def utc_text(moment: datetime) -> str:
    """A review's `submitted_at`: UTC to the microsecond, so that texts sort as times do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _fault(review: Review, tasks: Mapping[str, AnnotationTask]) -> str:
    """Why a review cannot be used; empty where it can."""
    task = tasks.get(review.task_id)
    if task is None:
        return "unknown_task"
    if review.question_set != task.question_set:
        return "other_question_set"
    if review.left_response != task.left_response:
        return "other_display_order"
    if not review.annotator_id.strip():
        return "no_annotator"
    if review.vote is not None and review.vote not in VOTES:
        return "unknown_vote"
    asked = {one.id for one in question_set(task.question_set).asked_in(task.workflow)}
    if any(name not in asked or number not in (0, 1) for name, number in review.answers):
        return "unknown_question"
    if review.vote is None and not review.answers and not review.rewrite:
        return "empty"
    return ""


def _without_contradictions(reviews: Sequence[Review], dropped: Counter[str]) -> list[Review]:
    """One review an annotator and task. The same label twice counts once; two that differ are
    both dropped, because nothing says which was meant."""
    groups: dict[tuple[str, str, bool], list[Review]] = defaultdict(list)
    for review in reviews:
        groups[review.task_id, review.annotator_id, review.adjudicates].append(review)
    kept = []
    for group in groups.values():
        labels = {(one.vote, frozenset(one.answers.items()), one.rewrite) for one in group}
        if len(labels) > 1:
            dropped["contradictory"] += len(group)
            continue
        dropped["repeated"] += len(group) - 1
        kept.append(group[0])
    dropped += Counter()  # drops zeros
    return kept


def _without_disagreement(reviews: Sequence[Review], dropped: Counter[str]) -> list[Review]:
    """Adjudicators who choose differently on one task settle nothing: their reviews of it are
    dropped, and the split stays one."""
    choices: dict[str, set[int]] = defaultdict(set)
    for review in reviews:
        if review.adjudicates and review.vote is not None:
            choices[review.task_id].add(review.vote)
    kept = [one for one in reviews if not (one.adjudicates and len(choices[one.task_id]) > 1)]
    dropped.update({"adjudicators_disagree": len(reviews) - len(kept)})
    dropped += Counter()  # drops zeros
    return kept


def _remarks(
    tasks: Mapping[str, AnnotationTask], reviews: Sequence[Review], num_annotators: int
) -> Counter[str]:
    """What is usable and yet not as asked for."""
    votes = Counter(one.task_id for one in reviews if one.vote is not None and not one.adjudicates)
    remarks = Counter(
        {
            "unlabelled_tasks": sum(votes[task] == 0 for task in tasks),
            "tasks_short_of_reviews": sum(0 < votes[task] < num_annotators for task in tasks),
            "rewrite_missing": sum(one.both_fail and not one.rewrite for one in reviews),
            "rewrite_unasked": sum(bool(one.rewrite) and not one.both_fail for one in reviews),
            "chose_the_only_faulty": sum(_chose_faulty(one) for one in reviews),
        }
    )
    return +remarks


def _chose_faulty(review: Review) -> bool:
    """Preferred a response it tagged to one it did not: allowed, and worth a look."""
    if review.vote not in (0, 1):
        return False
    chosen = 1 - review.vote
    return review.fails(chosen) and not review.fails(1 - chosen)


def judgements(tasks: Sequence[AnnotationTask], checked: CheckedReviews) -> list[Judgement | None]:
    """One judgement a task, in order; None where nobody chose."""
    by_task, settled = checked.by_task(), checked.adjudicated()
    return [_judgement(by_task.get(one.task_id, []), settled.get(one.task_id)) for one in tasks]


def _judgement(reviews: Sequence[Review], adjudicated_vote: int | None) -> Judgement | None:
    votes = tuple(one.vote for one in reviews if one.vote is not None)
    if not votes:
        return None
    return Judgement(votes=votes, tags=_tags(reviews), adjudicated_vote=adjudicated_vote)


def _tags(reviews: Sequence[Review]) -> dict[str, bool]:
    """The majority's answer to each tag's question; half is not a majority."""
    tags = {}
    for name in TAGS:
        for number in (0, 1):
            said = [one.answers[name, number] for one in reviews if (name, number) in one.answers]
            if said:
                tags[f"{name}_{number}"] = 2 * sum(said) > len(said)
    return tags


def rewrite_rows(
    pairs: Sequence[PairDraft],
    tasks: Sequence[AnnotationTask],
    checked: CheckedReviews,
    held_out_share: float,
) -> list[dict[str, Any]]:
    """What annotators wrote where both responses failed: a row of `records.REWRITES` each.

    `rejected` is the failed response that the writer liked less. Where several annotators rewrote
    one task, the first is taken: more would weigh a prompt by how many people disliked it.
    """
    by_task = checked.by_task()
    rows = []
    for pair, task in zip(pairs, tasks, strict=True):
        wrote = [one for one in by_task.get(task.task_id, []) if one.rewrite and one.both_fail]
        if not wrote:
            continue
        rejected = pair.response_0 if wrote[0].vote == 0 else pair.response_1
        rows.append(
            {
                "messages": pair.messages,
                "response": wrote[0].rewrite,
                "rejected": rejected,
                "annotator_id": wrote[0].annotator_id,
                "held_out": is_held_out(held_out_unit(pair.context), held_out_share),
            }
        )
    return rows


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
