"""Tasks out and labels in through files: JSONL, and Label Studio's real export."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from annotation_samples import world_tasks

from flywheel_core.annotation.files import (
    COMPLETE_FILE,
    CONFIG_FILE,
    FileExchange,
    FileFormat,
    read_labels,
    read_tasks,
    write_tasks,
)
from flywheel_core.annotation.label_studio import character_html, label_config, to_label_studio
from flywheel_core.annotation.pairs import PairDraft
from flywheel_core.annotation.questions import question_set
from flywheel_core.annotation.reviews import check_reviews, judgements, rewrite_rows
from flywheel_core.annotation.tasks import AnnotationTask, highlights, make_tasks
from flywheel_core.errors import InputDataError, LabelsPending
from flywheel_core.records import TIE_VOTE

HERE = Path(__file__).parent
EXPORT = HERE / "label_studio_export.json"
"""Exported by Label Studio 1.23.2 on 127.0.0.1: four made-up pairs, labelled by three users in a
browser, on the page of `label_config`."""
LABELLED = [
    AnnotationTask.model_validate(task)
    for task in json.loads((HERE / "label_studio_tasks.json").read_text())
]


def line(task: AnnotationTask, annotator: str = "a", choice: str | None = "left", **more: object):
    answers = {"false_refusal": {"left": True, "right": False}}
    return json.dumps(
        {"task_id": task.task_id, "annotator_id": annotator, "choice": choice, "answers": answers}
        | more
    )


def test_tasks_survive_their_file(tmp_path: Path) -> None:
    _, tasks = world_tasks(5, "steerability")
    path = write_tasks(tmp_path, tasks, "files")
    assert read_tasks(path) == tasks
    assert write_tasks(tmp_path, tasks, "files") == path
    with pytest.raises(InputDataError, match=r"holds other tasks than this batch's 4; give the"):
        write_tasks(tmp_path, tasks[:4], "files")


def test_sides_become_responses(tmp_path: Path) -> None:
    _, tasks = world_tasks(20)
    assert {task.left_response for task in tasks} == {0, 1}
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(line(task) for task in tasks) + "\n\n" + line(tasks[0], "b", "tie"))
    *reviews, tie = read_labels(path, tasks, "files")
    for task, review in zip(tasks, reviews, strict=True):
        assert review.vote == (1 if task.left_response == 0 else 0)
        assert review.answers[("false_refusal", task.left_response)] is True
        assert review.answers[("false_refusal", 1 - task.left_response)] is False
    assert tie.vote == TIE_VOTE


@pytest.mark.parametrize("file_format", ["files", "label_studio"])
def test_a_label_of_another_display_order_never_changes_its_response(
    tmp_path: Path, file_format: FileFormat
) -> None:
    """Everybody chose response 0 of tasks shown with one seed; the batch has another seed."""
    pairs, shown = world_tasks(40)
    tasks = make_tasks(pairs, "static", question_set("1"), 4)
    assert [one.task_id for one in tasks] == [one.task_id for one in shown]
    turned = sum(
        one.left_response != old.left_response for one, old in zip(tasks, shown, strict=True)
    )
    assert 10 < turned < 30
    sides = ["left" if one.left_response == 0 else "right" for one in shown]
    path = tmp_path / "labels"
    if file_format == "files":
        path.write_text(
            "\n".join(
                line(one, choice=side, left_response=one.left_response)
                for one, side in zip(shown, sides, strict=True)
            )
        )
    else:
        exported = [
            to_label_studio(one)
            | {
                "annotations": [
                    {
                        "completed_by": 1,
                        "result": [{"from_name": "preference", "value": {"selected": side}}],
                    }
                ]
            }
            for one, side in zip(shown, sides, strict=True)
        ]
        path.write_text(json.dumps(exported))
    reviews = read_labels(path, tasks, file_format)
    assert [one.vote for one in reviews] == [1] * 40
    checked = check_reviews(tasks, reviews, num_annotators=1)
    assert checked.dropped == {"other_display_order": turned}
    assert len(checked.reviews) == 40 - turned


def test_labels_are_put_in_the_order_of_their_times_whatever_the_zone(tmp_path: Path) -> None:
    _, tasks = world_tasks(3)
    times = ("2026-03-01T12:00:00+02:00", "2026-03-01T09:00:00.5Z", "2026-03-01T09:00:00Z")
    path = tmp_path / "labels.jsonl"
    path.write_text(
        "\n".join(line(task, submitted_at=at) for task, at in zip(tasks, times, strict=True))
    )
    reviews = read_labels(path, tasks, "files")
    ordered = check_reviews(tasks, reviews, num_annotators=1).reviews
    assert [one.task_id for one in ordered] == [tasks[i].task_id for i in (2, 1, 0)]
    untimed = [*reviews[:2], replace(reviews[2], submitted_at=None)]
    assert check_reviews(tasks, untimed, num_annotators=1).reviews == untimed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{not json}", r"labels.jsonl:1:"),
        ('{"task_id": "t", "annotator_id": "a", "choice": "middle"}', r"choice: .*'middle'"),
        ('{"task_id": "t", "annotator_id": ""}', r"annotator_id: .*at least 1 character"),
        ('{"annotator_id": "a"}', "task_id: missing; add it"),
        ('{"task_id": "t", "annotator_id": "a", "submitted_at": "2026-03-01T09:00"}', "timezone"),
        ('{"task_id": "t", "annotator_id": "a", "mood": 1}', "mood: unknown key"),
    ],
)
def test_a_line_that_is_no_label_is_an_error_with_its_place(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(text)
    with pytest.raises(InputDataError, match=complaint):
        read_labels(path, [], "files")


def test_a_batch_is_pending_until_every_task_has_its_reviews(tmp_path: Path) -> None:
    _, tasks = world_tasks(2)
    exchange = FileExchange(tmp_path / "batch", "files", 2)
    with pytest.raises(LabelsPending, match=r"2 of 2 tasks have fewer than 2 reviews; label .*tas"):
        exchange.label(tasks, 0)
    labels = tmp_path / "batch" / "labels.jsonl"
    labels.write_text("\n".join([line(tasks[0]), line(tasks[0], "b"), line(tasks[1])] * 2))
    with pytest.raises(LabelsPending, match="1 of 2 tasks"):
        exchange.label(tasks, 0)
    (tmp_path / "batch" / COMPLETE_FILE).touch()
    assert len(exchange.label(tasks, 0)) == 6


def test_adjudication_has_a_folder_and_reviews_of_its_own(tmp_path: Path) -> None:
    _, tasks = world_tasks(1)
    exchange = FileExchange(tmp_path, "files", 3)
    with pytest.raises(LabelsPending, match=r"adjudication/labels.jsonl: 1 of 1 tasks"):
        exchange.adjudicate(tasks, 0)
    (tmp_path / "adjudication" / "labels.jsonl").write_text(line(tasks[0], "senior"))
    assert [one.adjudicates for one in exchange.adjudicate(tasks, 0)] == [True]


def test_a_corrected_label_costs_no_adjudication(tmp_path: Path) -> None:
    """Four splits were settled; then one is none any more, and later it is one again."""
    _, tasks = world_tasks(5)
    exchange = FileExchange(tmp_path, "files", 3)
    with pytest.raises(LabelsPending):
        exchange.adjudicate(tasks[:4], 0)
    labels = tmp_path / "adjudication" / "labels.jsonl"
    labels.write_text("\n".join(line(task, "senior") for task in tasks[:4]))
    for splits in (tasks[:4], tasks[1:4], tasks[:4]):
        found = exchange.adjudicate(splits, 0)
        assert [one.task_id for one in found] == [one.task_id for one in splits]
        assert read_tasks(tmp_path / "adjudication" / "tasks.jsonl") == splits
    with pytest.raises(LabelsPending, match="1 of 5 tasks"):
        exchange.adjudicate(tasks, 0)


def test_label_studio_gets_its_config_and_no_markup_of_users(tmp_path: Path) -> None:
    _, tasks = world_tasks(2, "steerability")
    write_tasks(tmp_path, tasks, "label_studio")
    root = ElementTree.fromstring((tmp_path / CONFIG_FILE).read_text())
    pairwise = root.find(".//Pairwise")
    assert pairwise is not None
    assert pairwise.attrib == {"name": "preference", "toName": "left,right"}
    asked = {one.attrib["name"] for one in root.iter("Choices")}
    assert {"false_refusal_left", "templated_right", "violates_character_left"} <= asked
    character = "Ann <b>bold</b>. No & lists."
    task = tasks[0].model_copy(
        update={"character": character, "highlights": tuple(highlights(character))}
    )
    assert "<b>" not in character_html(task)
    assert character_html(task).count("<mark") == 2
    assert "policy" not in json.dumps(to_label_studio(task))


def test_a_real_export_of_label_studio_gives_back_what_was_clicked() -> None:
    reviews = read_labels(EXPORT, LABELLED, "label_studio")
    checked = check_reviews(LABELLED, reviews, num_annotators=3)
    assert not checked.dropped
    assert len({one.annotator_id for one in checked.reviews}) == 3
    found = [one for one in judgements(LABELLED, checked) if one]
    assert [one.votes for one in found] == [
        (1, 1, 1),
        (1, 1, 0),
        (TIE_VOTE, 0, 1),
        (1, 0, TIE_VOTE),
    ]
    assert [one.tags["false_refusal_1"] for one in found] == [True, False, False, False]
    assert [one.tags["templated_1"] for one in found] == [False, True, False, True]
    assert checked.remarks == {"rewrite_missing": 1, "chose_the_only_faulty": 1}
    pairs = [
        PairDraft(
            {"messages": [], "conversation_id": "c", "user_id": None},
            one.response(0),
            one.response(1),
            "",
            "",
        )
        for one in LABELLED
    ]
    (row,) = rewrite_rows(pairs, LABELLED, checked, 0.0)
    assert row["response"] == "Then knead this dough. Boredom leaves."
    assert row["rejected"] == "As an AI, I cannot be bored. LOL!"
    assert all(one.duration_s and one.submitted_at for one in reviews)


def test_the_tasks_that_label_studio_was_given_are_still_what_we_make() -> None:
    exported = {one["data"]["task_id"]: one["data"] for one in json.loads(EXPORT.read_text())}
    for task in LABELLED:
        assert task.question_set_digest == question_set("1").digest
        assert to_label_studio(task)["data"] == exported[task.task_id]
    assert "Pairwise" in label_config(question_set("1"), "steerability")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda found: {"tasks": found}, "holds dict, must be a list of tasks"),
        (lambda found: [{"left": "x"}], "no list of annotations; export from Label Studio as JSON"),
        (lambda found: found[0]["annotations"][0].pop("completed_by") and found, "no annotator"),
        (
            lambda found: _first_result(found)["value"].update(selected="middle") or found,
            r"task 0: annotations.0.result.0 \(preference\):\s+value.selected: .*'left' or 'right' "
            r"\(received 'middle'\)",
        ),
        (
            lambda found: found[1]["data"].pop("left_response") in (0, 1) and found,
            r"task 1:\s+data.left_response: missing; add it\s+keep the task's data",
        ),
        (lambda found: _set(found, "data", None), r"task 0:\s+data: .*dictionary.*received None"),
        (
            lambda found: _set(found[0], "data", found[0]["data"] | {"workflow": 5}) and found,
            r"data.workflow: .*'static'.*\(received 5\)",
        ),
        (
            lambda found: _first_result(found).update(value="left") or found,
            r"result.0 \(preference\):\s+value: .*dictionary.*\(received 'left'\)",
        ),
        (
            lambda found: _first_result(found)["value"].update(selected=["left"]) or found,
            r"value.selected: .*'left' or 'right' \(received \['left'\]\)",
        ),
        (
            lambda found: _first_result(found).update(from_name=[3]) or found,
            r"annotations.0.result.0.from_name: .*string \(received \[3\]\)",
        ),
        (
            lambda found: found[0]["annotations"].append(7) or found,
            r"annotations.3: .*dictionary.*\(received 7\)",
        ),
        *(
            (
                lambda found, field=field, value=value: (
                    _set(found[0]["annotations"][1], field, value) and found
                ),
                rf"task 0:\s+annotations.1.{field}.*: .*\(received {value!r}\)",
            )
            for field, value in (
                ("result", None),
                ("result", 5),
                ("lead_time", "3"),
                ("lead_time", -1.0),
                ("lead_time", float("nan")),
                ("was_cancelled", "no"),
                ("completed_by", 1.5),
                ("created_at", 1700000000),
            )
        ),
        (
            lambda found: _set(found[0]["annotations"][1], "created_at", "noon") and found,
            "task 0: annotations.1: created_at 'noon' must be an ISO time",
        ),
    ],
)
def test_an_export_of_another_shape_is_refused(tmp_path: Path, change, complaint: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(change(json.loads(EXPORT.read_text()))))
    with pytest.raises(InputDataError, match=complaint):
        read_labels(path, LABELLED, "label_studio")


def test_a_side_and_a_tie_at_once_is_counted_and_a_skipped_task_is_no_label(tmp_path: Path) -> None:
    exported = json.loads(EXPORT.read_text())
    tied = {"from_name": "tie", "value": {"choices": ["tie"]}, "type": "choices"}
    exported[0]["annotations"][0]["result"].append(tied)
    exported[1]["annotations"][0]["was_cancelled"] = True
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(exported))
    reviews = read_labels(path, LABELLED, "label_studio")
    assert len(reviews) == 11
    assert check_reviews(LABELLED, reviews, num_annotators=3).dropped == {"unknown_vote": 1}


def test_what_somebody_added_to_the_project_is_no_label_of_ours(tmp_path: Path) -> None:
    exported = json.loads(EXPORT.read_text())
    added = {"from_name": "mood", "value": {"text": "fine", "choices": 4}, "type": "rating"}
    exported[0]["annotations"][0]["result"] += [added, {"type": "relation"}]
    exported.append({"data": {"text": "of another project"}, "annotations": []})
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(exported))
    expected = read_labels(EXPORT, LABELLED, "label_studio")
    assert read_labels(path, LABELLED, "label_studio") == expected


@pytest.mark.parametrize("file_format", ["files", "label_studio"])
def test_labels_that_are_no_text_are_refused(tmp_path: Path, file_format: FileFormat) -> None:
    path = tmp_path / "labels"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputDataError, match="cannot be read as UTF-8"):
        read_labels(path, [], file_format)


def _set(holder, field: str, value: object):
    """A field of a task (the first, of a list) gets another value; what holds it comes back."""
    (holder[0] if isinstance(holder, list) else holder)[field] = value
    return holder


def _first_result(found: list) -> dict:
    return found[0]["annotations"][0]["result"][0]
