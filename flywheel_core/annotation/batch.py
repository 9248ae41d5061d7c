"""One batch: pairs go out as tasks, reviews come back, and become rows for training."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flywheel_core.annotation.adjudication import tasks_to_adjudicate
from flywheel_core.annotation.agreement import agreement_report
from flywheel_core.annotation.pairs import PairDraft, filter_pairs, pair_row
from flywheel_core.annotation.questions import Workflow, question_set
from flywheel_core.annotation.reviews import (
    CheckedReviews,
    Review,
    check_reviews,
    judgements,
    rewrite_rows,
)
from flywheel_core.annotation.section import AnnotationSection
from flywheel_core.annotation.sources import AnnotationSource
from flywheel_core.annotation.tasks import AnnotationTask, make_tasks


@dataclass
class LabelledBatch:
    """Rows of `records.PAIRS`, `REVIEWS` and `REWRITES`; what was dropped and why; agreement."""

    pairs: list[dict[str, Any]] = field(default_factory=list)
    reviews: list[dict[str, Any]] = field(default_factory=list)
    rewrites: list[dict[str, Any]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    agreement: dict[str, Any] = field(default_factory=dict)

    def add(self, other: "LabelledBatch") -> None:
        """Take another workflow's batch in; their agreements stay apart, by workflow."""
        self.pairs += other.pairs
        self.reviews += other.reviews
        self.rewrites += other.rewrites
        self.dropped += other.dropped
        self.agreement |= other.agreement


def label_batch(
    drafts: Sequence[PairDraft],
    workflow: Workflow,
    section: AnnotationSection,
    source: AnnotationSource,
    seed: int,
) -> LabelledBatch:
    """Filter the pairs, have the rest labelled and splits adjudicated.

    Readers' ratings (source `signals`) have one rater by their nature, so several are not asked
    for. InputDataError where nothing is left to label, or no label can be used.
    """
    kept, dropped = filter_pairs(drafts, section.difference_max)
    tasks = make_tasks(kept, workflow, question_set(section.question_set), seed)
    reviews = source.label(tasks, seed)
    adjudicate = partial(source.adjudicate, seed=seed)
    checked = settled(tasks, tasks, reviews, section, section.votes_asked, adjudicate)
    return assemble(kept, tasks, checked, workflow, section, dropped)


def label_finished_chats(
    drafts: Sequence[PairDraft],
    tasks: Sequence[AnnotationTask],
    reviews: Sequence[Review],
    workflow: Workflow,
    section: AnnotationSection,
    source: AnnotationSource,
    seed: int,
) -> LabelledBatch:
    """Chats were labelled turn by turn; the filters come after, because a chat goes on whether or
    not its turn is good for training. Only splits that stay are worth an adjudicator's time."""
    kept, dropped = filter_pairs(drafts, section.difference_max)
    stays = {id(pair) for pair in kept}
    staying = [task for pair, task in zip(drafts, tasks, strict=True) if id(pair) in stays]
    adjudicate = partial(source.adjudicate, seed=seed)
    checked = settled(tasks, staying, reviews, section, section.votes_asked, adjudicate)
    return assemble(kept, staying, checked, workflow, section, dropped)


def settled(
    tasks: Sequence[AnnotationTask],
    worth_settling: Sequence[AnnotationTask],
    reviews: Sequence[Review],
    section: AnnotationSection,
    num_annotators: int,
    adjudicate: Callable[[Sequence[AnnotationTask]], list[Review]],
) -> CheckedReviews:
    """The reviews of `tasks`, checked, with what `adjudicate` says where the annotators split."""
    checked = check_reviews(tasks, reviews, num_annotators=num_annotators)
    split = tasks_to_adjudicate(worth_settling, checked, section.adjudicate)
    if not split:
        return checked
    return check_reviews(tasks, [*reviews, *adjudicate(split)], num_annotators=num_annotators)


def assemble(
    pairs: Sequence[PairDraft],
    tasks: Sequence[AnnotationTask],
    checked: CheckedReviews,
    workflow: Workflow,
    section: AnnotationSection,
    dropped: Counter[str],
) -> LabelledBatch:
    """Rows from pairs and their usable reviews; a pair that nobody chose on is dropped."""
    judged = judgements(tasks, checked)
    rows = [
        pair_row(pair, judgement, section.held_out_share, workflow)
        for pair, judgement in zip(pairs, judged, strict=True)
        if judgement is not None
    ]
    unlabelled = len(judged) - len(rows)
    return LabelledBatch(
        pairs=rows,
        reviews=[review.to_row() for review in checked.reviews],
        rewrites=rewrite_rows(pairs, tasks, checked, section.held_out_share),
        dropped=dropped + Counter(unlabelled=unlabelled),
        agreement={workflow: agreement_report(checked)},
    )
