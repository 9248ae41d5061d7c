"""Where labels come from: tasks go out, reviews come in, behind one protocol.

`SimulatedAnnotators` (world/annotators.py) are the simulated product's people, `FileExchange` is
any tool that reads and writes files (JSONL, or Label Studio's own), and `RatedTurns` are readers'
ratings in the place of annotation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flywheel_core.annotation.questions import Workflow
from flywheel_core.annotation.reviews import Review
from flywheel_core.annotation.section import AnnotationSourceName
from flywheel_core.annotation.tasks import AnnotationTask
from flywheel_core.errors import ConfigError
from flywheel_core.records import Message


class AnnotationSource(Protocol):
    """Whoever labels tasks."""

    def label(self, tasks: Sequence[AnnotationTask], seed: int) -> list[Review]:
        """The reviews of these tasks, in the order of submission; as many a task as the source
        was asked for, or fewer. `LabelsPending` where people have not finished."""

    def adjudicate(self, tasks: Sequence[AnnotationTask], seed: int) -> list[Review]:
        """One review a task, by somebody who settles splits."""


@runtime_checkable
class ChatPartner(Protocol):
    """An annotator who chats with the character, turn by turn."""

    def next_turn(
        self, messages: Sequence[Message], row: Mapping[str, Any], workflow: Workflow, seed: int
    ) -> str:
        """What is said next. `messages` are the conversation so far (the system turn alone at its
        start), `row` the prompt whose character it is; a steerability chat mildly challenges."""


class RatedTurns:
    """Logged turns that their reader rated up, against the production model's answer.

    The one label is the reader's: this turn was liked. That the model's answer would have been
    liked less is an assumption (that of self-play fine-tuning, Chen et al. 2024), good while the
    model is far below the logged speakers, and said here so that nobody takes it for annotation.
    A preference model of these pairs is a user-signal model, so only a study may use them
    (`studies.check_preference_labels`).
    """

    def label(self, tasks: Sequence[AnnotationTask], seed: int) -> list[Review]:
        return [
            Review(
                task_id=task.task_id,
                annotator_id="reader-rating",
                workflow=task.workflow,
                question_set=task.question_set,
                left_response=task.left_response,
                vote=1,
            )
            for task in tasks
        ]

    def adjudicate(self, tasks: Sequence[AnnotationTask], seed: int) -> list[Review]:
        raise ConfigError(
            "annotation.adjudicate: readers' ratings (source 'signals') cannot be adjudicated; "
            "use none"
        )


def annotation_source(
    name: AnnotationSourceName, num_annotators: int, exchange: Path | None = None
) -> AnnotationSource:
    """The source a recipe asks for. `exchange` is this batch's folder for tasks and labels."""
    if name == "world":
        from flywheel_core.world.annotators import SimulatedAnnotators

        return SimulatedAnnotators(num_annotators)
    if name == "signals":
        return RatedTurns()
    if exchange is None:
        raise ConfigError(
            f"annotation.source: {name!r} needs execution.annotation_exchange, a folder where "
            "tasks are put and labels are found; name one that annotators' tools can reach"
        )
    from flywheel_core.annotation.files import FileExchange

    return FileExchange(exchange, name, num_annotators)


def chat_partner(source: AnnotationSource) -> ChatPartner:
    """The source as a partner in chats, or an error that says what to use instead."""
    if isinstance(source, ChatPartner):
        return source
    raise ConfigError(
        f"annotation: interactive_chats and steerability_chats need a source that chats, and "
        f"{type(source).__name__} takes labels of finished tasks only; set both to 0 (people's own "
        "chats with the model come in as internal traffic)"
    )
