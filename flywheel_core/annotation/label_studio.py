"""Label Studio: tasks as its import JSON, the page as its config, labels from its JSON export.

The page is its `Pairwise` tag over the two replies, with the questions of the set under each.
Written against Label Studio 1.23.2; `tests/annotation/label_studio_export.json` is a real export
of that server, labelled in its own page. What its tag cannot say is asked beside it: a tie is a
choice of its own, because `Pairwise` has only two sides.
"""

import html
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar
from xml.sax.saxutils import quoteattr

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flywheel_core.annotation.questions import QuestionSet, Workflow
from flywheel_core.annotation.reviews import Answer, Review, utc_text
from flywheel_core.annotation.tasks import AnnotationTask
from flywheel_core.errors import InputDataError
from flywheel_core.recipe import describe_faults
from flywheel_core.records import TIE_VOTE

Parsed = TypeVar("Parsed", bound=BaseModel)
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


class TaskData(BaseModel):
    """What is read of a task's data; the rest is for the page. `left_response` is which of the
    pair's responses stood on the left when this was labelled."""

    model_config = ConfigDict(frozen=True, strict=True)

    task_id: str
    workflow: Workflow = "static"
    question_set: str
    left_response: Literal[0, 1]


class Annotator(BaseModel):
    """A user, where the export was asked to expand `completed_by`."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: int | str | None = None
    email: str | None = None


class Value(BaseModel):
    """What was given to one of the page's own controls."""

    model_config = ConfigDict(frozen=True, strict=True)

    selected: Side | None = None
    choices: list[str] = []
    text: list[str] = []


class Result(BaseModel):
    """One control's result, or something else (a relation) without a name."""

    model_config = ConfigDict(frozen=True, strict=True)

    from_name: str | None = None
    value: Any = None


class ResultOfOurs(BaseModel):
    """A result of one of the page's own controls: only then must its value have our shape."""

    value: Value


class Annotation(BaseModel):
    """One annotator's work on one task, as exported; `lead_time` in seconds."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: int | str | None = None
    completed_by: int | str | Annotator | None = None
    was_cancelled: bool | None = None
    result: list[Result] = []
    created_at: str | None = None
    lead_time: float | None = Field(None, ge=0, allow_inf_nan=False)


class AnnotatedTask(BaseModel):
    """A task of the export, as far as it is always read."""

    annotations: list[Annotation]


class TaskOfOurs(BaseModel):
    """A task of the export that has labels: only then must its data be those of a batch."""

    data: TaskData


def from_label_studio(exported: Any, source: str) -> Iterator[Review]:
    """The reviews in a JSON export (`Export → JSON`; not `JSON-MIN`, which drops annotators).

    Cancelled (skipped) annotations are no labels. Which response a side showed is what the export
    says, never what this batch would show: the pair may have been sent out in another order before.
    `source` names the file in errors; what has another shape than that of an export is one.
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
        annotations = _parse(AnnotatedTask, item, where, "export it again").annotations
        labels = [(i, one) for i, one in enumerate(annotations) if not one.was_cancelled]
        if labels:
            data = _parse(TaskOfOurs, item, where, "keep the task's data as it was imported").data
            for index, annotation in labels:
                yield _review(data, annotation, f"{where}: annotations.{index}")


def _parse(model: type[Parsed], found: Any, where: str, advice: str) -> Parsed:
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise InputDataError(f"{where}:\n{describe_faults(error)}\n  {advice}") from error


def _review(data: TaskData, annotation: Annotation, where: str) -> Review:
    values = dict(_values(annotation, where))
    rewrite = values.get("rewrite", Value())
    return Review(
        task_id=data.task_id,
        annotator_id=_annotator(annotation, where),
        workflow=data.workflow,
        question_set=data.question_set,
        left_response=data.left_response,
        vote=_vote(values, data.left_response),
        answers=dict(_answers(values, data.left_response)),
        rewrite=" ".join(rewrite.text).strip() or None,
        submitted_at=_submitted(annotation, where),
        duration_s=annotation.lead_time,
    )


def _values(annotation: Annotation, where: str) -> Iterator[tuple[str, Value]]:
    """What the page's controls hold, by name; a control that somebody added is none of ours."""
    for index, result in enumerate(annotation.result):
        name = result.from_name or ""
        if name in ("preference", "tie", "rewrite") or name.rpartition("_")[2] in SIDES:
            place = f"{where}.result.{index} ({name})"
            yield name, _parse(ResultOfOurs, result.__dict__, place, "export it again").value


def _annotator(annotation: Annotation, where: str) -> str:
    by = annotation.completed_by
    by = by.email or by.id if isinstance(by, Annotator) else by
    if by is None:
        raise InputDataError(
            f"{where}: annotation {annotation.id} names no annotator (completed_by); "
            "agreement needs one"
        )
    return str(by)


def _submitted(annotation: Annotation, where: str) -> str | None:
    if annotation.created_at is None:
        return None
    try:
        moment = datetime.fromisoformat(annotation.created_at)
    except ValueError as error:
        raise InputDataError(
            f"{where}: created_at {annotation.created_at!r} must be an ISO time"
        ) from error
    return utc_text(moment)


def _vote(values: Mapping[str, Value], left_response: int) -> int | None:
    selected = values.get("preference", Value()).selected
    tied = "tie" in values.get("tie", Value()).choices
    if tied and selected is not None:
        return BOTH_VOTE
    if tied:
        return TIE_VOTE
    if selected is None:
        return None
    chosen = left_response if selected == "left" else 1 - left_response
    return 1 if chosen == 0 else 0


def _answers(values: Mapping[str, Value], left_response: int) -> Iterator[tuple[Answer, bool]]:
    for name, value in values.items():
        question, _, side = name.rpartition("_")
        if side in SIDES and value.choices:
            number = left_response if side == "left" else 1 - left_response
            yield (question, number), "yes" in value.choices
