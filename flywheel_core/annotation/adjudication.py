"""When annotators agree, and when they split.

Splits go to an adjudicator, who sees the task again and whose choice is the pair's label; it makes
no consensus.
"""

from collections.abc import Sequence

from flywheel_core.annotation.reviews import CheckedReviews
from flywheel_core.annotation.section import AdjudicationRule
from flywheel_core.annotation.tasks import AnnotationTask

CONSENSUS_VOTES_MIN = 3
"""§3.4.1 reviews each pair three times."""


def has_consensus(votes: Sequence[int]) -> bool:
    """Table 9's rule: three annotators or more, all for the same response. A tie is for none; what
    an adjudicator said is not among `votes`, so a settled split has no consensus."""
    return len(votes) >= CONSENSUS_VOTES_MIN and len(set(votes)) == 1 and votes[0] in (0, 1)


def tasks_to_adjudicate(
    tasks: Sequence[AnnotationTask], checked: CheckedReviews, rule: AdjudicationRule
) -> list[AnnotationTask]:
    """The split tasks, in order; a task with one vote is not split, it is short of reviews.

    `no_majority`: no choice has more than half of the votes; `split`: the votes are not
    unanimous; `none`: the paper trains on splits as they are (Table 9).
    """
    if rule == "none":
        return []
    by_task, settled = checked.by_task(), checked.adjudicated()
    found = []
    for task in tasks:
        votes = [one.vote for one in by_task.get(task.task_id, []) if one.vote is not None]
        if task.task_id not in settled and is_split(votes, rule):
            found.append(task)
    return found


def is_split(votes: Sequence[int], rule: AdjudicationRule) -> bool:
    """Whether these votes, two or more, are a split under the rule."""
    if len(votes) < 2 or rule == "none":
        return False
    largest = max(votes.count(vote) for vote in set(votes))
    return largest < len(votes) if rule == "split" else 2 * largest <= len(votes)
