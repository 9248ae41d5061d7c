"""Two responses a prompt, judged: an internal batch and a user batch (§2.2.2)."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel_core.annotation.adjudication import has_consensus
from flywheel_core.annotation.alternatives import (
    alternatives_in_turn,
    asking_to_rewrite,
    rewriting_prompt,
    rewritten_reply,
)
from flywheel_core.annotation.batch import LabelledBatch, label_batch, label_finished_chats
from flywheel_core.annotation.chats import hold_chats
from flywheel_core.annotation.exchange import batch_folder
from flywheel_core.annotation.pairs import PairDraft, patch_rows
from flywheel_core.annotation.questions import Workflow, question_set
from flywheel_core.annotation.section import AnnotationSection
from flywheel_core.annotation.sources import (
    AnnotationSource,
    annotation_source,
    chat_partner,
)
from flywheel_core.annotation.targeting import (
    choose_batch,
    failing_rows,
    failure_weights,
)
from flywheel_core.engines.lengths import fitting
from flywheel_core.erasure.users import of_inputs, without_erased
from flywheel_core.evaluation.judging import judge_named
from flywheel_core.evaluation.prevalence import compare_chosen, summarise_comparisons
from flywheel_core.jobs.answers import Prompts, answer, read_prompts
from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.records import (
    CONTEXT_FIELDS,
    MESSAGES,
    PAIRS,
    REVIEWS,
    REWRITES,
    SURFACES,
    Message,
    read_table,
    write_table,
)
from flywheel_core.sections import Section

logger = logging.getLogger(__name__)

PATCH = pa.schema(
    [
        pa.field("messages", MESSAGES, nullable=False),
        pa.field("response_0", pa.string(), nullable=False),
        pa.field("response_1", pa.string(), nullable=False),
        pa.field("target", pa.float32(), nullable=False),
    ]
)
CHAT_SEED, REWRITE_SEED = 1000, 500
"""Added to the stage's seed, so that no two questions to a policy share one."""


class Config(Section):
    annotation: AnnotationSection


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `pairs_internal.parquet`, `pairs_user.parquet`, DPO's `patch.parquet`, and the labels
    they rest on: `reviews.parquet` and `rewrites.parquet`."""
    section = config.annotation
    prompts = read_prompts(inputs["curate"], "annotate", of_inputs(inputs))
    targeted: dict[str, int] = {}
    remarks: Counter[str] = Counter()
    if section.source == "signals":
        remarks["annotators_without_effect"] += section.num_annotators - section.votes_asked
        drafts = _rated_pairs(section, prompts, inputs, context)
    else:
        prompts, targeted = _batch(section, prompts, inputs["production"], context.seed)
        drafts = _sampled_pairs(section, prompts, inputs, context, remarks)
    batch = label_batch(
        drafts, "static", section, _source(section, "static", context), context.seed
    )
    chats: dict[Workflow, int] = {
        "interactive": section.interactive_chats,
        "steerability": section.steerability_chats,
    }
    for workflow, count in chats.items():
        if count:
            batch.add(_chats(section, prompts, workflow, count, inputs, context, remarks))
    patch = patch_rows(batch.pairs, section.patch_pairs_max, batch.rewrites)
    counts = {
        "patch": write_table(context.output / "patch.parquet", patch, PATCH),
        "reviews": write_table(context.output / "reviews.parquet", batch.reviews, REVIEWS),
        "rewrites": write_table(context.output / "rewrites.parquet", batch.rewrites, REWRITES),
    }
    for surface in SURFACES:
        side = [row for row in batch.pairs if row["surface"] == surface]
        counts[surface] = write_table(context.output / f"pairs_{surface}.parquet", side, PAIRS)
    not_as_asked = dict(sorted((+remarks).items()))
    if not_as_asked:
        logger.warning(
            "annotate: not as the recipe asks (also in the manifest, not_as_asked): %s",
            ", ".join(f"{name} {count}" for name, count in not_as_asked.items()),
        )
    metrics = {"targeted_prompts": targeted, "not_as_asked": not_as_asked}
    return StageOutput("pairs", counts, _metrics(batch, section) | metrics)


def _source(
    section: AnnotationSection, workflow: Workflow, context: StageContext
) -> AnnotationSource:
    """The source of one workflow; people's tools get a folder a batch and workflow."""
    root = context.plan.parsed_recipe().execution.annotation_exchange
    ref = context.stage.ref
    folder = batch_folder(root, ref) / workflow if root else None
    return annotation_source(section.source, section.num_annotators, folder)


def _batch(
    section: AnnotationSection, prompts: Prompts, production: Path, seed: int
) -> tuple[Prompts, dict[str, int]]:
    """The batch's prompts, surface by surface, and how many each failure chose (§3.3.4)."""
    if section.prompts_per_surface_max is None and not section.targeted_share:
        return prompts, {}
    weights = failure_weights(production)
    judge = judge_named(section.judge)
    rows: list[dict[str, Any]] = []
    targeted: dict[str, int] = {}
    for surface in SURFACES:
        side = prompts.of(surface).rows
        failing = failing_rows(side, judge) if weights and section.targeted_share else {}
        size = section.prompts_per_surface_max or len(side)
        chosen = choose_batch(len(side), size, section.targeted_share, weights, failing, seed)
        rows += [side[index] for index in chosen.indices]
        targeted |= {f"{surface}_{name}": count for name, count in chosen.targeted.items()}
    return Prompts(rows), targeted


def _alternatives(inputs: Mapping[str, Path]) -> list[str]:
    """The policies that second responses come from, in turn."""
    return ["production", *sorted(n for n in inputs if n == "base" or n.startswith("pool-"))]


def _two_replies(
    section: AnnotationSection,
    messages: Sequence[list[Message]],
    inputs: Mapping[str, Path],
    context: StageContext,
    seed: int,
    remarks: Counter[str],
) -> tuple[list[tuple[str, str]], list[str]]:
    """Production's reply and an alternative to each conversation, and the alternative's policy:
    one of the pool in turn, or production's rewrite of its own reply. Where the question for a
    rewrite is too long for the model, the pool replies instead, which `remarks` counts."""
    first = _ask("production", messages, inputs, section, context, seed)
    others = _alternatives(inputs)
    prompt = rewriting_prompt(section.rewriting_prompt)
    policies = alternatives_in_turn(len(messages), others, section.rewrite_share, prompt)
    rewritten = [index for index, policy in enumerate(policies) if policy == prompt.policy]
    questions = [asking_to_rewrite(messages[index], first[index], prompt) for index in rewritten]
    fits = fitting(
        inputs["production"] / "model",
        questions,
        context.engines.config,
        room=section.sampling.max_tokens,
    )
    too_long = [index for index, fit in zip(rewritten, fits, strict=True) if not fit]
    for number, index in enumerate(too_long):
        policies[index] = others[number % len(others)]
    remarks["rewrites_too_long"] += len(too_long)
    second = [""] * len(messages)
    for position, name in enumerate(others):
        indices = [index for index, policy in enumerate(policies) if policy == name]
        asked = [messages[index] for index in indices]
        said = _ask(name, asked, inputs, section, context, seed + 1 + position)
        for index, text in zip(indices, said, strict=True):
            second[index] = text
        context.progress(position + 1, len(others), "policies sampled")
    asked = [question for question, fit in zip(questions, fits, strict=True) if fit]
    said = _ask("production", asked, inputs, section, context, seed + REWRITE_SEED)
    indices = [index for index, fit in zip(rewritten, fits, strict=True) if fit]
    for index, text in zip(indices, said, strict=True):
        second[index] = rewritten_reply(text)
    return list(zip(first, second, strict=True)), policies


def _sampled_pairs(
    section: AnnotationSection,
    prompts: Prompts,
    inputs: Mapping[str, Path],
    context: StageContext,
    remarks: Counter[str],
) -> list[PairDraft]:
    """One response from production, one from a policy of the pool or a rewrite."""
    replies, policies = _two_replies(
        section, prompts.messages, inputs, context, context.seed, remarks
    )
    return [
        PairDraft(_context(row), first, second, "production", policy)
        for row, (first, second), policy in zip(prompts.rows, replies, policies, strict=True)
    ]


def _chats(
    section: AnnotationSection,
    prompts: Prompts,
    workflow: Workflow,
    count: int,
    inputs: Mapping[str, Path],
    context: StageContext,
    remarks: Counter[str],
) -> LabelledBatch:
    """Chats with the characters of prompts spread evenly over the internal batch, one a prompt;
    fewer than asked for where there are fewer prompts, which `remarks` counts."""
    rows = prompts.of("internal").rows
    rows = rows[:: max(1, len(rows) // count)][:count]
    remarks[f"{workflow}_chats_without_prompt"] += count - len(rows)
    if not rows:
        return LabelledBatch()
    source = _source(section, workflow, context)
    seed = context.seed + CHAT_SEED * (1 + (workflow == "steerability"))
    chat_seed = seed + context.stage.ref.generation  # the stage's own is every generation's

    def replies(
        messages: Sequence[list[Message]], turn: int
    ) -> tuple[list[tuple[str, str]], list[str]]:
        return _two_replies(section, messages, inputs, context, seed + 10 * turn, remarks)

    held = hold_chats(
        rows,
        workflow,
        section.turns_per_chat,
        replies,
        source,
        chat_partner(source),
        question_set(section.question_set),
        chat_seed,
    )
    return label_finished_chats(
        held.pairs, held.tasks, held.reviews, workflow, section, source, chat_seed
    )


def _ask(
    policy: str,
    messages: Sequence[list[Message]],
    inputs: Mapping[str, Path],
    section: AnnotationSection,
    context: StageContext,
    seed: int,
) -> list[str]:
    if not messages:
        return []
    return answer(context.engines, inputs[policy] / "model", messages, section.sampling, seed)


def _rated_pairs(
    section: AnnotationSection,
    prompts: Prompts,
    inputs: Mapping[str, Path],
    context: StageContext,
) -> list[PairDraft]:
    """A logged turn that its reader rated up, against production's answer to the same prompt."""
    logged = read_table(inputs["traffic"] / "traffic.parquet")
    liked = {
        (row["conversation_id"], row["turn_index"])
        for row in without_erased(logged, of_inputs(inputs)).to_pylist()
        if row["thumb_up"]
    }
    rows = [row for row in prompts.rows if (row["conversation_id"], row["turn_index"]) in liked]
    asked = [row["messages"] for row in rows]
    said = _ask("production", asked, inputs, section, context, context.seed)
    return [
        PairDraft(_context(row), row["response"], text, "logged", "production")
        for row, text in zip(rows, said, strict=True)
    ]


def _context(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt_id": row["prompt_id"]} | {f.name: row[f.name] for f in CONTEXT_FIELDS}


def _metrics(batch: LabelledBatch, section: AnnotationSection) -> dict[str, Any]:
    rows = batch.pairs
    features = compare_chosen(rows, section.prevalence)
    unanimous = sum(has_consensus(row["votes"]) for row in rows)
    return {
        "dropped_pairs": dict(sorted(batch.dropped.items())),
        "unanimous_share": unanimous / len(rows) if rows else None,
        "production_preferred_share": (
            sum(row["target"] for row in rows) / len(rows) if rows else None
        ),
        "adjudicated_pairs": sum(bool(row["adjudicated"]) for row in rows),
        "features_chosen_rejected": summarise_comparisons(features),
        "flagged_features": [one.feature for one in features if one.flagged],
        "annotators": batch.agreement,
    }


if __name__ == "__main__":
    main("annotate")
