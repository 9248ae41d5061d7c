"""Two responses a prompt, judged: an internal batch and a user batch (§2.2.2)."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel_core.annotation.pairs import PairDraft, filter_pairs, pair_row, patch_rows
from flywheel_core.annotation.sources import annotation_source
from flywheel_core.erasure.users import of_inputs, without_erased
from flywheel_core.jobs.answers import Prompts, answer, read_prompts
from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.recipe import AnnotationSection, Section
from flywheel_core.records import (
    CONTEXT_FIELDS,
    MESSAGES,
    PAIRS,
    SURFACES,
    read_table,
    write_table,
)

PATCH = pa.schema(
    [
        pa.field("messages", MESSAGES, nullable=False),
        pa.field("response_0", pa.string(), nullable=False),
        pa.field("response_1", pa.string(), nullable=False),
        pa.field("target", pa.float32(), nullable=False),
    ]
)


class Config(Section):
    annotation: AnnotationSection


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `pairs_internal.parquet`, `pairs_user.parquet` and DPO's `patch.parquet`."""
    section = config.annotation
    prompts = read_prompts(inputs["curate"], "annotate", of_inputs(inputs))
    drafts = (
        _sampled_pairs(section, prompts, inputs, context)
        if section.source == "world"
        else _rated_pairs(section, prompts, inputs, context)
    )
    kept, dropped = filter_pairs(
        drafts,
        length_difference_words_max=section.length_difference_words_max,
        emoji_difference_max=section.emoji_difference_max,
    )
    source = annotation_source(section.source, section.num_annotators)
    judgements = source.judge(kept, context.seed)
    rows = [
        pair_row(pair, judgement, section.held_out_share)
        for pair, judgement in zip(kept, judgements, strict=True)
    ]
    patch = patch_rows(rows, section.patch_pairs_max)
    counts = {"patch": write_table(context.output / "patch.parquet", patch, PATCH)}
    for surface in SURFACES:
        side = [row for row in rows if row["surface"] == surface]
        counts[surface] = write_table(context.output / f"pairs_{surface}.parquet", side, PAIRS)
    return StageOutput("pairs", counts, _metrics(rows, dropped))


def _sampled_pairs(
    section: AnnotationSection,
    prompts: Prompts,
    inputs: Mapping[str, Path],
    context: StageContext,
) -> list[PairDraft]:
    """One response from production, one from each policy of the pool in turn."""
    others = ["production", *sorted(n for n in inputs if n == "base" or n.startswith("pool-"))]
    first = _ask("production", prompts.messages, inputs, section, context, context.seed)
    second: list[str] = [""] * len(prompts)
    for position, name in enumerate(others):
        indices = list(range(position, len(prompts), len(others)))
        asked = [prompts.messages[index] for index in indices]
        said = _ask(name, asked, inputs, section, context, context.seed + 1 + position)
        for index, text in zip(indices, said, strict=True):
            second[index] = text
        context.progress(position + 1, len(others), "policies sampled")
    return [
        PairDraft(
            context=_context(row),
            response_0=first[index],
            response_1=second[index],
            policy_0="production",
            policy_1=others[index % len(others)],
        )
        for index, row in enumerate(prompts.rows)
    ]


def _ask(
    policy: str,
    messages: list[Any],
    inputs: Mapping[str, Path],
    section: AnnotationSection,
    context: StageContext,
    seed: int,
) -> list[str]:
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
        PairDraft(
            context=_context(row),
            response_0=row["response"],
            response_1=text,
            policy_0="logged",
            policy_1="production",
        )
        for row, text in zip(rows, said, strict=True)
    ]


def _context(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt_id": row["prompt_id"]} | {f.name: row[f.name] for f in CONTEXT_FIELDS}


def _metrics(rows: list[dict[str, Any]], dropped: Counter[str]) -> dict[str, Any]:
    unanimous = sum(row["target"] in (0.0, 1.0) for row in rows)
    return {
        "dropped_pairs": dict(sorted(dropped.items())),
        "unanimous_share": unanimous / len(rows) if rows else None,
        "production_preferred_share": (
            sum(row["target"] for row in rows) / len(rows) if rows else None
        ),
    }


if __name__ == "__main__":
    main("annotate")
