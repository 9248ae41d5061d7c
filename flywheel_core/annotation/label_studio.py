"""Label Studio: tasks as its import JSON, the page as its config, labels from its JSON export.

The page is its `Pairwise` tag over the two replies, with the questions of the set under each.
Written against Label Studio 1.23.2; `tests/annotation/label_studio_export.json` is a real export
of that server, labelled in its own page. What its tag cannot say is asked beside it: a tie is a
choice of its own, because `Pairwise` has only two sides.
"""

import html
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from flywheel_core.annotation.questions import QuestionSet, Workflow
from flywheel_core.annotation.reviews import Answer, Review, utc_text
from flywheel_core.annotation.tasks import AnnotationTask
from flywheel_core.errors import InputDataError
from flywheel_core.records import TIE_VOTE

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
HIGHLIGHT = '<mark style="background:#ffe58f">{}</mark>'
BOTH_VOTE = 9
"""A side and a tie at once: no vote, and `check_reviews` counts it as an unknown one."""
ROLE_NAMES = {"user": "User", "assistant": "Character"}


def label_config(questions: QuestionSet, workflow: Workflow) -> str:
    """The labelling page of one workflow, as Label Studio's XML."""
    asked = questions.asked_in(workflow)
    columns = "\n".join(_column(side, questions, workflow) for side in SIDES)
    hints = "\n".join(
        f'  <Header size="6" value={quoteattr(f"{one.text} {one.guideline}".strip())}/>'
        for one in asked
    )
    return f"""<View>
  <Header size="4" value="Character"/>
  <HyperText name="character" value="$character_html" inline="true"/>
  <Header size="4" value="Conversation"/>
  <Paragraphs name="history" value="$history" layout="dialogue" nameKey="author" textKey="text"/>
  <Header size="4" value={quoteattr(questions.preference)}/>
  <Header size="6" value="Click the reply, or tick tie and click none."/>
  <Pairwise name="preference" toName="left,right"/>
  <Choices name="tie" toName="left" choice="multiple" showInline="true">
    <Choice value="tie"/>
  </Choices>
  <View style="display: flex; gap: 16px">
{columns}
  </View>
{hints}
  <Header size="4" value={quoteattr(questions.rewrite)}/>
  <TextArea name="rewrite" toName="left" rows="3" maxSubmissions="1" editable="true"/>
</View>
"""


def _column(side: Side, questions: QuestionSet, workflow: Workflow) -> str:
    choices = "\n".join(
        f"""      <Header size="6" value={quoteattr(one.text)}/>
      <Choices name="{one.id}_{side}" toName="{side}" choice="single" showInline="true">
        <Choice value="yes"/>
        <Choice value="no"/>
      </Choices>"""
        for one in questions.asked_in(workflow)
    )
    return f"""    <View style="flex: 1">
      <Text name="{side}" value="${side}"/>
{choices}
    </View>"""


def to_label_studio(task: AnnotationTask) -> dict[str, Any]:
    """A task of its import JSON. Text from users is escaped: the character is shown as HTML."""
    return {
        "data": {
            "task_id": task.task_id,
            "workflow": task.workflow,
            "question_set": task.question_set,
            "left_response": task.left_response,
            "character_html": character_html(task),
            "history": [
                {"author": ROLE_NAMES[turn.role], "text": turn.content} for turn in task.history
            ],
            "left": task.left,
            "right": task.right,
        }
    }


def character_html(task: AnnotationTask) -> str:
    """The character's description, escaped, its highlights marked."""
    parts, position = [], 0
    for one in task.highlights:
        parts.append(html.escape(task.character[position : one.start]))
        parts.append(HIGHLIGHT.format(html.escape(one.text)))
        position = one.start + len(one.text)
    return "".join([*parts, html.escape(task.character[position:])])


def from_label_studio(exported: Any, source: str) -> Iterator[Review]:
    """The reviews in a JSON export (`Export → JSON`; not `JSON-MIN`, which drops annotators).

    Cancelled (skipped) annotations are no labels. Which response a side showed is what the export
    says, never what this batch would show: the pair may have been sent out in another order before.
    `source` names the file in errors.
    """
    if not isinstance(exported, list):
        raise InputDataError(
            f"{source}: holds {type(exported).__name__}, must be a list of tasks; export from "
            "Label Studio as JSON"
        )
    for number, item in enumerate(exported):
        where = f"{source}: task {number}"
        if not isinstance(item, dict) or not isinstance(item.get("annotations"), list):
            raise InputDataError(
                f"{where} has no list of annotations; export from Label Studio as JSON, not as "
                "JSON-MIN or CSV"
            )
        for annotation in item["annotations"]:
            if not annotation.get("was_cancelled"):
                yield _review(item, annotation, where)


def _review(item: Mapping[str, Any], annotation: Mapping[str, Any], where: str) -> Review:
    data = item.get("data", {})
    left = _displayed_left(data, where)
    results = {
        result["from_name"]: result["value"]
        for result in annotation.get("result", [])
        if "from_name" in result and "value" in result
    }
    return Review(
        task_id=str(data.get("task_id")),
        annotator_id=_annotator(annotation, where),
        workflow=data.get("workflow", "static"),
        question_set=str(data.get("question_set")),
        left_response=left,
        vote=_vote(results, left, where),
        answers=dict(_answers(results, left)),
        rewrite=" ".join(results.get("rewrite", {}).get("text", [])).strip() or None,
        submitted_at=_submitted(annotation, where),
        duration_s=annotation.get("lead_time"),
    )


def _displayed_left(data: Mapping[str, Any], where: str) -> int:
    """Which of the pair's responses stood on the left when this was labelled."""
    left = data.get("left_response")
    if left not in (0, 1):
        raise InputDataError(
            f"{where}: data.left_response {left!r} must be 0 or 1; keep the task's data as it was "
            "imported, or nobody can tell which reply was chosen"
        )
    return int(left)


def _annotator(annotation: Mapping[str, Any], where: str) -> str:
    """Its `completed_by` is a user's id, or the user where the export was asked to expand it."""
    by = annotation.get("completed_by")
    by = by.get("email") or by.get("id") if isinstance(by, dict) else by
    if by is None:
        raise InputDataError(
            f"{where}: annotation {annotation.get('id')} names no annotator (completed_by); "
            "agreement needs one"
        )
    return str(by)


def _submitted(annotation: Mapping[str, Any], where: str) -> str | None:
    created = annotation.get("created_at")
    if created is None:
        return None
    try:
        moment = datetime.fromisoformat(created)
    except (TypeError, ValueError) as error:
        raise InputDataError(f"{where}: created_at {created!r} must be an ISO time") from error
    return utc_text(moment)


def _vote(results: Mapping[str, Any], left_response: int, where: str) -> int | None:
    selected = results.get("preference", {}).get("selected")
    tied = "tie" in results.get("tie", {}).get("choices", [])
    if tied and selected is not None:
        return BOTH_VOTE
    if tied:
        return TIE_VOTE
    if selected is None:
        return None
    if selected not in SIDES:
        raise InputDataError(f"{where}: preference {selected!r} must be left or right")
    chosen = left_response if selected == "left" else 1 - left_response
    return 1 if chosen == 0 else 0


def _answers(results: Mapping[str, Any], left_response: int) -> Iterator[tuple[Answer, bool]]:
    for name, value in results.items():
        question, _, side = name.rpartition("_")
        if side in SIDES and "choices" in value:
            number = left_response if side == "left" else 1 - left_response
            yield (question, number), "yes" in value["choices"]
