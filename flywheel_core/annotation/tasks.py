"""Annotation tasks: what one annotator sees of one pair, and nothing else (§2.2.2).

A task shows the character, the history and two responses, left and right; which is left is drawn
from the seed and recorded. It never says which policy spoke: that stays with the `PairDraft`.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from flywheel_core.annotation.pairs import PairDraft
from flywheel_core.annotation.questions import QuestionSet, Workflow
from flywheel_core.artifacts import digest_of
from flywheel_core.errors import InputDataError
from flywheel_core.records import Message

SENTENCE = re.compile(r"[^\s.!?][^.!?\n]*[.!?]*")
TASK_ID_HEX_DIGITS = 16


class Highlight(BaseModel):
    """An instruction of the character: `text` stands at `start` of the system turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int = Field(ge=0)
    text: str


class Turn(BaseModel):
    """One turn of the history, as in `records.Message`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["user", "assistant"]
    content: str


class AnnotationTask(BaseModel):
    """One task, as it is sent out: JSON without anything that would give a policy away.

    `left_response` is 0 or 1: which of the pair's responses `left` is. `highlights` are the
    instructions that a steerability task asks annotators to challenge; empty in other workflows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: str
    workflow: Workflow
    question_set: str
    question_set_digest: str
    character: str
    character_id: str | None
    history: tuple[Turn, ...]
    left: str
    right: str
    left_response: Literal[0, 1]
    highlights: tuple[Highlight, ...] = ()

    @property
    def messages(self) -> list[Message]:
        """The conversation with its system turn, ending with the user's."""
        system = [Message(role="system", content=self.character)] if self.character else []
        said = [Message(role=turn.role, content=turn.content) for turn in self.history]
        return [*system, *said]

    def response(self, number: int) -> str:
        """The pair's response 0 or 1, wherever it is shown."""
        return self.left if number == self.left_response else self.right


def task_id_of(pair: PairDraft, workflow: Workflow, questions: QuestionSet) -> str:
    """The same pair, asked the same in the same workflow, is the same task, whatever its display
    order; a label says the order it was given in (`left_response`), and another's is not taken."""
    asked = {
        "messages": pair.messages,
        "responses": [pair.response_0, pair.response_1],
        "prompt_id": pair.context["prompt_id"],
        "workflow": workflow,
        "questions": questions.digest,
    }
    return digest_of(asked)[:TASK_ID_HEX_DIGITS]


def make_tasks(
    pairs: Sequence[PairDraft], workflow: Workflow, questions: QuestionSet, seed: int
) -> list[AnnotationTask]:
    """One task a pair, in order; the side of each is drawn from `seed` and the task's own id, so
    it does not depend on which other pairs are in the batch."""
    if not pairs:
        raise InputDataError(
            f"the {workflow} batch is empty: no pair is left to annotate; look at what the pair "
            "filters dropped and at the prompts of the annotate split"
        )
    tasks = [_task(pair, workflow, questions, seed) for pair in pairs]
    repeated = len(tasks) - len({task.task_id for task in tasks})
    if repeated:
        raise InputDataError(
            f"the {workflow} batch holds {repeated} pairs twice; drop equal pairs before they are "
            "sent out, or their labels cannot be told apart"
        )
    return tasks


def _task(pair: PairDraft, workflow: Workflow, questions: QuestionSet, seed: int) -> AnnotationTask:
    task_id = task_id_of(pair, workflow, questions)
    left: Literal[0, 1] = 1 if np.random.default_rng([seed, int(task_id, 16)]).random() < 0.5 else 0
    character = "".join(turn["content"] for turn in pair.messages if turn["role"] == "system")
    first, second = pair.response_0, pair.response_1
    return AnnotationTask(
        task_id=task_id,
        workflow=workflow,
        question_set=questions.version,
        question_set_digest=questions.digest,
        character=character,
        character_id=pair.context["character_id"],
        history=tuple(Turn(**turn) for turn in pair.messages if turn["role"] != "system"),
        left=first if left == 0 else second,
        right=second if left == 0 else first,
        left_response=left,
        highlights=tuple(highlights(character)) if workflow == "steerability" else (),
    )


def highlights(character: str) -> Iterator[Highlight]:
    """Every sentence of the character's description: its traits and instructions.

    The paper highlights "character traits or instructions"; a system turn does not mark which of
    its sentences those are, so all are highlighted (ours).
    """
    for match in SENTENCE.finditer(character):
        yield Highlight(start=match.start(), text=match.group().rstrip())
