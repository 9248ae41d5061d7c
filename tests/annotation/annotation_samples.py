"""Pairs, tasks and reviews for the annotation tests; made of the simulated world's own text."""

from dataclasses import replace
from typing import Any

import numpy as np

from flywheel_core.annotation.pairs import PairDraft
from flywheel_core.annotation.questions import ALWAYS_ASKED, Workflow, question_set
from flywheel_core.annotation.reviews import Review
from flywheel_core.annotation.tasks import AnnotationTask, make_tasks
from flywheel_core.records import Surface
from flywheel_core.world.answers import sample_response
from flywheel_core.world.contexts import context_of
from flywheel_core.world.product import PromptDraft, sample_contexts


def row_of(number: int, prompt: PromptDraft) -> dict[str, Any]:
    fields = {name: getattr(prompt, name) for name in PromptDraft.__slots__}
    return {"prompt_id": f"p{number}", **fields}


def world_rows(count: int, surface: Surface = "user", seed: int = 3) -> list[dict[str, Any]]:
    """Prompts of the world as rows of `records.PROMPTS`, with an untuned logged answer."""
    rng = np.random.default_rng(seed)
    rows = [row_of(i, prompt) for i, prompt in enumerate(sample_contexts(surface, count, seed))]
    for row in rows:
        context = context_of(row["messages"], row["character_id"])
        row |= {"split": "annotate", "response": sample_response(context, rng)}
        row |= {"model_digest": "production"}
    return rows


def world_pairs(count: int, seed: int = 3) -> list[PairDraft]:
    """Pairs of untuned answers to the world's prompts; no two responses of a pair are equal."""
    rng = np.random.default_rng(seed + 1)
    pairs = []
    for row in world_rows(2 * count, seed=seed):
        other = sample_response(context_of(row["messages"], row["character_id"]), rng)
        if other != row["response"]:
            pairs.append(PairDraft(row, row["response"], other, "production", "base"))
    return pairs[:count]


def world_tasks(
    count: int, workflow: Workflow = "static", seed: int = 3
) -> tuple[list[PairDraft], list[AnnotationTask]]:
    pairs = world_pairs(count, seed)
    return pairs, make_tasks(pairs, workflow, question_set("1"), seed)


def review_of(task: AnnotationTask, annotator: str, vote: int | None, **changes: Any) -> Review:
    """A review with no fault found, unless `changes` say otherwise."""
    answers = {(name, number): False for name in ALWAYS_ASKED for number in (0, 1)}
    plain = Review(
        task_id=task.task_id,
        annotator_id=annotator,
        workflow=task.workflow,
        question_set=task.question_set,
        left_response=task.left_response,
        vote=vote,
        answers=answers,
    )
    return replace(plain, **changes)
