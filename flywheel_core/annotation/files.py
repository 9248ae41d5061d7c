"""Tasks out and labels in as files: for any tool, and for Label Studio.

A batch has a folder. `tasks.jsonl` (or `tasks.json` and `label_config.xml` for Label Studio) is put
there once; people's work is found there as `labels.jsonl` (`labels.json`, Label Studio's export).
Until every task has its reviews the batch is *pending*; an empty file `COMPLETE` says that no
more will come. A task never says which policy spoke.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from flywheel_core.annotation.label_studio import (
    SIDES,
    Side,
    from_label_studio,
    label_config,
    to_label_studio,
)
from flywheel_core.annotation.questions import question_set
from flywheel_core.annotation.reviews import Answer, Review, utc_text
from flywheel_core.annotation.tasks import AnnotationTask
from flywheel_core.errors import InputDataError, LabelsPending
from flywheel_core.recipe import describe_faults
from flywheel_core.records import TIE_VOTE
from flywheel_core.store import write_whole

FileFormat = Literal["files", "label_studio"]
TASK_FILE: dict[FileFormat, str] = {"files": "tasks.jsonl", "label_studio": "tasks.json"}
LABEL_FILE: dict[FileFormat, str] = {"files": "labels.jsonl", "label_studio": "labels.json"}
CONFIG_FILE = "label_config.xml"
COMPLETE_FILE = "COMPLETE"
ADJUDICATION_FOLDER = "adjudication"

Parsed = TypeVar("Parsed", bound=BaseModel)


class LabelLine(BaseModel):
    """One line of `labels.jsonl`: one annotator on one task, in terms of what was on the screen.

    `answers` maps a question's id to the answer about each side. `left_response` is the task's, and
    optional: a tool that copies it has a label of another display order (the same pair, exported
    with another seed) dropped and counted; without it the order of this batch is taken on trust.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: str
    annotator_id: str = Field(min_length=1)
    left_response: Literal[0, 1] | None = None
    choice: Literal["left", "right", "tie"] | None = None
    answers: dict[str, dict[Side, bool]] = {}
    rewrite: str | None = None
    question_set: str | None = None
    submitted_at: AwareDatetime | None = None
    duration_s: float | None = Field(None, ge=0)


class FileExchange:
    """An `AnnotationSource` that people fill through files in `folder`."""

    def __init__(self, folder: Path, file_format: FileFormat, num_annotators: int) -> None:
        self.folder, self.format, self.num_annotators = folder, file_format, num_annotators

    def label(self, tasks: Sequence[AnnotationTask], seed: int) -> list[Review]:
        """The labels in the folder; `LabelsPending`, with the tasks put there, until they are."""
        return self._collect(self.folder, tasks, self.num_annotators)

    def adjudicate(self, tasks: Sequence[AnnotationTask], seed: int) -> list[Review]:
        """As `label`, one review a task, in a folder of its own."""
        found = self._collect(self.folder / ADJUDICATION_FOLDER, tasks, 1)
        return [replace(one, adjudicates=True) for one in found]

    def _collect(
        self, folder: Path, tasks: Sequence[AnnotationTask], num_annotators: int
    ) -> list[Review]:
        write_tasks(folder, tasks, self.format)
        labels = folder / LABEL_FILE[self.format]
        reviews = read_labels(labels, tasks, self.format) if labels.is_file() else []
        missing = _short_of_reviews(tasks, reviews, num_annotators)
        if missing and not (folder / COMPLETE_FILE).is_file():
            raise LabelsPending(
                f"{labels}: {missing} of {len(tasks)} tasks have fewer than {num_annotators} "
                f"reviews; label {folder / TASK_FILE[self.format]}, put the labels there (or an "
                f"empty file {COMPLETE_FILE} if no more will come), then clear this task"
            )
        return reviews


def _short_of_reviews(
    tasks: Sequence[AnnotationTask], reviews: Sequence[Review], num_annotators: int
) -> int:
    annotators = Counter(
        task_id for task_id, _ in {(one.task_id, one.annotator_id) for one in reviews}
    )
    return sum(annotators[task.task_id] < num_annotators for task in tasks)


def write_tasks(folder: Path, tasks: Sequence[AnnotationTask], file_format: FileFormat) -> Path:
    """Put a batch's tasks into its folder, once: another batch's tasks there are an error, because
    the labels beside them would be of other pairs."""
    path = folder / TASK_FILE[file_format]
    text = tasks_text(tasks, file_format)
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            raise InputDataError(
                f"{path} holds other tasks than this batch's {len(tasks)}; give the batch an "
                "empty folder, or remove the old tasks with their labels"
            )
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if file_format == "label_studio" and tasks:
        questions = question_set(tasks[0].question_set)
        config = label_config(questions, tasks[0].workflow)
        write_whole(folder / CONFIG_FILE, config.encode())
    write_whole(path, text.encode())
    return path


def tasks_text(tasks: Sequence[AnnotationTask], file_format: FileFormat) -> str:
    """The tasks as the file that goes out."""
    if file_format == "files":
        return "".join(task.model_dump_json() + "\n" for task in tasks)
    return json.dumps([to_label_studio(task) for task in tasks], indent=1, ensure_ascii=False)


def read_tasks(path: Path) -> list[AnnotationTask]:
    """The tasks of a `tasks.jsonl`."""
    return [_parse(AnnotationTask, line, where) for where, line in _lines(path)]


def read_labels(
    path: Path, tasks: Sequence[AnnotationTask], file_format: FileFormat
) -> list[Review]:
    """Labels as reviews, in the file's order. A line that is no label is an error, with its place;
    a label that cannot be used is for `check_reviews` to count."""
    by_id = {task.task_id: task for task in tasks}
    if file_format == "files":
        lines = [(where, _parse(LabelLine, line, where)) for where, line in _lines(path)]
        return [_review(label, by_id) for _, label in lines]
    try:
        exported = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputDataError(
            f"{path}: not JSON ({error}); export from Label Studio as JSON"
        ) from error
    return list(from_label_studio(exported, str(path)))


def _review(label: LabelLine, tasks: Mapping[str, AnnotationTask]) -> Review:
    """A label in terms of the pair's own responses. One of an unknown task keeps its id, so that
    it is counted as such."""
    task = tasks.get(label.task_id)
    left = label.left_response
    if left is None:
        left = 0 if task is None else task.left_response
    sides: dict[Side, int] = {"left": left, "right": 1 - left}
    answers: dict[Answer, bool] = {
        (question, sides[side]): by_side[side]
        for question, by_side in label.answers.items()
        for side in SIDES
        if side in by_side
    }
    vote: int | None = None
    if label.choice == "tie":
        vote = TIE_VOTE
    elif label.choice is not None:
        vote = 1 if sides[label.choice] == 0 else 0
    return Review(
        task_id=label.task_id,
        annotator_id=label.annotator_id,
        workflow="static" if task is None else task.workflow,
        question_set=label.question_set or ("" if task is None else task.question_set),
        left_response=left,
        vote=vote,
        answers=answers,
        rewrite=(label.rewrite or "").strip() or None,
        submitted_at=None if label.submitted_at is None else utc_text(label.submitted_at),
        duration_s=label.duration_s,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", line


def _parse(model: type[Parsed], line: str, where: str) -> Parsed:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        raise InputDataError(f"{where}:\n{describe_faults(error)}") from error
