"""Labels that cannot be used are counted or refused; the rest become one judgement a pair."""

from collections import Counter

import pyarrow as pa
import pytest
from annotation_samples import review_of, world_tasks

from flywheel_core.annotation.adjudication import has_consensus, is_split, tasks_to_adjudicate
from flywheel_core.annotation.questions import (
    ALWAYS_ASKED,
    FALSE_REFUSAL,
    QUESTION_SETS,
    QuestionSet,
    question_set,
)
from flywheel_core.annotation.reviews import (
    check_reviews,
    judgements,
    review_of_row,
    rewrite_rows,
)
from flywheel_core.annotation.tasks import highlights, make_tasks
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.records import REVIEWS, TIE_VOTE

USED_QUESTION_SETS = {"1": "3ed532a7636ec16c"}


def test_a_used_question_set_never_changes() -> None:
    """A changed word is another question: add a version and pin it here."""
    assert {name: one.digest[:16] for name, one in QUESTION_SETS.items()} == USED_QUESTION_SETS


def test_the_two_questions_are_always_asked() -> None:
    for one in QUESTION_SETS.values():
        for workflow in ("static", "interactive", "steerability"):
            assert set(ALWAYS_ASKED) <= {question.id for question in one.asked_in(workflow)}  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="questions lack templated, which are always asked"):
        QuestionSet(version="x", preference="?", rewrite="!", questions=(FALSE_REFUSAL,))
    with pytest.raises(ConfigError, match="version '0' is unknown; one of: 1"):
        question_set("0")


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(InputDataError, match="the static batch is empty: no pair is left"):
        make_tasks([], "static", question_set("1"), 0)


def test_the_side_is_random_recorded_and_does_not_depend_on_the_batch() -> None:
    pairs, tasks = world_tasks(400)
    left = [task.left_response for task in tasks]
    assert sum(left) / len(left) == pytest.approx(0.5, abs=0.08)
    alone = make_tasks(pairs[7:8], "static", question_set("1"), 3)
    assert alone[0] == tasks[7]
    other = make_tasks(pairs, "static", question_set("1"), 4)
    assert [task.left_response for task in other] != left
    for pair, task in zip(pairs, tasks, strict=True):
        shown = {task.left_response: task.left, 1 - task.left_response: task.right}
        assert shown == {0: pair.response_0, 1: pair.response_1}


def test_a_task_gives_no_policy_away() -> None:
    pairs, tasks = world_tasks(5)
    assert {pair.policy_1 for pair in pairs} == {"base"}
    assert not any("base" in task.model_dump_json().split() for task in tasks)
    assert not any(name in task.model_dump() for task in tasks for name in ("policy_0", "policy_1"))


def test_steerability_highlights_every_instruction() -> None:
    character = "Luna, witty. No emoji! Ask questions"
    found = list(highlights(character))
    assert [one.text for one in found] == ["Luna, witty.", "No emoji!", "Ask questions"]
    assert all(character[one.start :].startswith(one.text) for one in found)
    assert world_tasks(3, "steerability")[1][0].highlights
    assert world_tasks(3, "static")[1][0].highlights == ()


def test_labels_that_cannot_be_used_are_counted_by_reason() -> None:
    _, tasks = world_tasks(4)
    first = tasks[0]
    good = [review_of(task, name, 1) for task in tasks[:3] for name in ("a", "b")]
    bad = [
        review_of(first, "c", 1, task_id="of another batch"),
        review_of(first, "c", 1, question_set="0"),
        review_of(first, "c", 1, left_response=1 - first.left_response),
        review_of(first, " ", 1),
        review_of(first, "c", 7),
        review_of(first, "c", 1, answers={("is_it_funny", 0): True}),
        review_of(first, "c", None, answers={}),
    ]
    checked = check_reviews(tasks, good + bad, num_annotators=2)
    assert checked.reviews == good
    assert checked.dropped == Counter(
        [
            "unknown_task",
            "other_question_set",
            "other_display_order",
            "no_annotator",
            "unknown_vote",
            "unknown_question",
            "empty",
        ]
    )
    assert checked.remarks == {"unlabelled_tasks": 1}
    assert judgements(tasks, checked)[3] is None


def test_contradictory_labels_of_one_annotator_are_dropped_and_equal_ones_count_once() -> None:
    _, tasks = world_tasks(2)
    reviews = [
        review_of(tasks[0], "a", 1),
        review_of(tasks[0], "a", 0),
        review_of(tasks[0], "b", 0),
        review_of(tasks[1], "a", 1),
        review_of(tasks[1], "a", 1),
        review_of(tasks[1], "b", 1),
    ]
    checked = check_reviews(tasks, reviews, num_annotators=2)
    assert checked.dropped == {"contradictory": 2, "repeated": 1}
    assert [one.votes for one in judgements(tasks, checked) if one] == [(0,), (1, 1)]
    assert checked.remarks["tasks_short_of_reviews"] == 1


def test_one_annotator_only_is_refused_where_several_were_asked_for() -> None:
    _, tasks = world_tasks(3)
    reviews = [review_of(task, "kim", 1) for task in tasks]
    with pytest.raises(InputDataError, match=r"num_annotators: 3 were asked for.*are by 'kim'"):
        check_reviews(tasks, reviews, num_annotators=3)
    assert len(check_reviews(tasks, reviews, num_annotators=1).reviews) == 3


def test_a_batch_without_a_usable_label_is_refused_with_the_reasons() -> None:
    _, tasks = world_tasks(3)
    old = [review_of(task, "a", 1, question_set="0") for task in tasks]
    with pytest.raises(InputDataError, match=r"none of 3 labels for 3 tasks.*other_question_set 3"):
        check_reviews(tasks, old, num_annotators=1)
    with pytest.raises(InputDataError, match="none of 0 labels"):
        check_reviews(tasks, [], num_annotators=1)


def test_odd_but_usable_labels_are_remarked_on() -> None:
    _, tasks = world_tasks(4)
    both = {("templated", 0): True, ("templated", 1): True}
    reviews = [
        review_of(tasks[0], "a", 1, answers=both),
        review_of(tasks[1], "a", 1, rewrite="better"),
        review_of(tasks[2], "a", 1, answers={("templated", 0): True, ("templated", 1): False}),
        review_of(tasks[3], "a", 1, answers=both, rewrite="better"),
    ]
    checked = check_reviews(tasks, reviews, num_annotators=1)
    assert checked.remarks == {
        "rewrite_missing": 1,
        "rewrite_unasked": 1,
        "chose_the_only_faulty": 1,
    }


def test_rewrites_are_taken_where_both_fail_with_the_response_liked_less() -> None:
    pairs, tasks = world_tasks(3)
    both = {("false_refusal", 0): True, ("templated", 1): True}
    reviews = [
        review_of(tasks[0], "a", 0, answers=both, rewrite="kinder"),
        review_of(tasks[1], "a", 1, answers=both, rewrite="kinder"),
        review_of(tasks[2], "a", 1, rewrite="not asked for"),
    ]
    rows = rewrite_rows(pairs, tasks, check_reviews(tasks, reviews, num_annotators=1), 0.0)
    assert [row["rejected"] for row in rows] == [pairs[0].response_0, pairs[1].response_1]
    assert {row["response"] for row in rows} == {"kinder"}


def test_a_tag_needs_a_majority() -> None:
    _, tasks = world_tasks(2)
    yes, no = {("templated", 0): True}, {("templated", 0): False}
    reviews = [
        review_of(tasks[number], name, 1, answers=said)
        for number, name, said in (
            (0, "a", yes),
            (0, "b", no),
            (1, "a", yes),
            (1, "b", no),
            (1, "c", yes),
        )
    ]
    found = judgements(tasks, check_reviews(tasks, reviews, num_annotators=2))
    assert [one.tags for one in found if one] == [{"templated_0": False}, {"templated_0": True}]


def test_reviews_survive_their_table() -> None:
    _, tasks = world_tasks(1)
    review = review_of(tasks[0], "a", None, rewrite="r", duration_s=2.5, adjudicates=True)
    table = pa.Table.from_pylist([review.to_row()], schema=REVIEWS)
    assert review_of_row(table.to_pylist()[0]) == review


@pytest.mark.parametrize(
    ("votes", "no_majority", "split"),
    [
        ((1, 1, 1), False, False),
        ((1, 1, 0), False, True),
        ((1, 0, TIE_VOTE), True, True),
        ((1, 0), True, True),
        ((1,), False, False),
        ((), False, False),
    ],
)
def test_what_is_a_split(votes: tuple[int, ...], no_majority: bool, split: bool) -> None:
    assert is_split(votes, "no_majority") is no_majority
    assert is_split(votes, "split") is split
    assert not is_split(votes, "none")


@pytest.mark.parametrize(
    ("votes", "agreed"),
    [
        ((1, 1, 1), True),
        ((0, 0, 0, 0), True),
        ((1, 1, 0), False),
        ((1, 1, TIE_VOTE), False),
        ((TIE_VOTE,) * 3, False),
        ((1, 1), False),
        ((1,), False),
        ((), False),
    ],
)
def test_what_is_a_consensus(votes: tuple[int, ...], agreed: bool) -> None:
    assert has_consensus(votes) is agreed


def test_an_adjudicated_split_is_not_sent_again_and_decides_the_pair() -> None:
    _, tasks = world_tasks(2)
    reviews = [
        review_of(task, name, vote)
        for task in tasks
        for name, vote in {"a": 1, "b": 1, "c": 0}.items()
    ]
    checked = check_reviews(tasks, reviews, num_annotators=3)
    assert tasks_to_adjudicate(tasks, checked, "split") == tasks
    reviews.append(review_of(tasks[0], "senior", 0, adjudicates=True))
    checked = check_reviews(tasks, reviews, num_annotators=3)
    assert tasks_to_adjudicate(tasks, checked, "split") == tasks[1:]
    found = [one for one in judgements(tasks, checked) if one]
    assert [one.target for one in found] == [0.0, pytest.approx(2 / 3)]
    assert found[0].votes == (1, 1, 0)


def test_adjudicators_who_disagree_settle_nothing_in_whatever_order_they_come() -> None:
    """Four splits: adjudicators disagree, disagree on a tie, agree; and one does not choose."""
    _, tasks = world_tasks(4)
    votes = ((0, 1), (TIE_VOTE, 0), (0, 0), (None, None))
    split = [review_of(task, name, vote) for task in tasks for name, vote in (("a", 1), ("b", 0))]
    for turned in (False, True):
        settling = [
            review_of(task, name, vote, adjudicates=True)
            for task, pair in zip(tasks, votes, strict=True)
            for name, vote in zip(("kim", "lee"), reversed(pair) if turned else pair, strict=True)
        ]
        checked = check_reviews(tasks, [*split, *settling], num_annotators=2)
        assert checked.dropped == {"adjudicators_disagree": 4}
        waiting = tasks_to_adjudicate(tasks, checked, "split")
        assert waiting == [tasks[0], tasks[1], tasks[3]]
        found = [one for one in judgements(tasks, checked) if one]
        assert [one.adjudicated_vote for one in found] == [None, None, 0, None]
        assert [one.target for one in found] == [0.5, 0.5, 0.0, 0.5]
    kim = [review_of(tasks[0], "kim", vote, adjudicates=True) for vote in (0, 1)]
    checked = check_reviews(tasks, [*split, *kim], num_annotators=2)
    assert checked.dropped == {"contradictory": 2}
    assert tasks_to_adjudicate(tasks, checked, "split") == tasks
