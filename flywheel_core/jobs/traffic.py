"""A week of logged traffic: pinned days as they were ingested, missing ones from the world.

The simulated product is served by the current production model through vLLM, so its traffic is
on-policy. Testers (internal) leave no signals; users do, biased as §3.5.5 describes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.artifacts import digest_of
from flywheel_core.erasure.users import of_inputs, without_erased
from flywheel_core.errors import InputDataError
from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.recipe import Section, TrafficSection
from flywheel_core.records import TRAFFIC, Surface, read_table, write_table


class Config(Section):
    traffic: TrafficSection
    days: tuple[str, ...]


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `traffic.parquet`, in order of day, without the rows of erased users."""
    tables, made = [], 0
    for index, day in enumerate(config.days):
        shard = context.work / f"{day}.parquet"
        if f"day-{day}" in inputs:
            tables.append(read_table(inputs[f"day-{day}"] / "traffic.parquet", TRAFFIC))
        elif config.traffic.source == "world":
            if not shard.exists():
                _make_day(config, day, inputs["production"] / "model", shard, context)
            tables.append(read_table(shard, TRAFFIC))
            made += 1
        else:
            raise InputDataError(f"traffic of {day} is missing; run `flywheel ingest` for that day")
        context.progress(index + 1, len(config.days), "days")
    logged = pa.concat_tables(tables)
    table = without_erased(logged, of_inputs(inputs))
    pq.write_table(table, context.output / "traffic.parquet", compression="zstd")
    digest = context.plan.parent.digest
    served = table.column("model_digest").to_pylist()
    return StageOutput(
        "traffic",
        {
            "rows": table.num_rows,
            "rows_erased": logged.num_rows - table.num_rows,
            "days_pinned": len(config.days) - made,
            "days_made": made,
            **{
                surface: table.column("surface").to_pylist().count(surface)
                for surface in ("internal", "user")
            },
        },
        {"near_policy_share": served.count(digest) / max(1, len(served))},
    )


def _make_day(
    config: Config, day: str, production: Path, shard: Path, context: StageContext
) -> None:
    """One simulated day; the file appears whole, so a retry resumes at the first missing day."""
    rows: list[dict[str, Any]] = []
    for surface, count in (
        ("internal", config.traffic.internal_rows_per_day),
        ("user", config.traffic.user_rows_per_day),
    ):
        rows += _make_rows(config, day, surface, count, production, context)  # type: ignore[arg-type]
    unfinished = shard.with_suffix(".part")
    write_table(unfinished, rows, TRAFFIC)
    unfinished.rename(shard)


def _make_rows(
    config: Config,
    day: str,
    surface: Surface,
    count: int,
    production: Path,
    context: StageContext,
) -> list[dict[str, Any]]:
    from flywheel_core.world.contexts import context_of
    from flywheel_core.world.people import user_signals
    from flywheel_core.world.product import sample_contexts

    seed = int(digest_of([context.seed, day, surface])[:8], 16)
    drafts = sample_contexts(surface, count, seed)
    sampling = config.traffic.sampling.model_copy(update={"num_samples": 1, "seed": seed})
    completions = context.engines.generator(production).generate(
        [draft.messages for draft in drafts], sampling
    )
    responses = [samples[0].text for samples in completions]
    rows: list[dict[str, Any]] = [
        {
            "row_id": f"{draft.conversation_id}-{draft.turn_index}",
            "day": day,
            "messages": draft.messages,
            "surface": surface,
            "conversation_id": draft.conversation_id,
            "turn_index": draft.turn_index,
            "user_id": draft.user_id,
            "character_id": draft.character_id,
            "locale": draft.locale,
            "language": draft.language,
            "jtbd": draft.jtbd,
            "depth": draft.depth,
            "response": response,
            "model_digest": context.plan.parent.digest,
        }
        for draft, response in zip(drafts, responses, strict=True)
    ]
    if surface == "user":
        contexts = [context_of(draft.messages, draft.character_id) for draft in drafts]
        rng = np.random.default_rng(seed)
        signals = user_signals(contexts, responses, rng, config.traffic.signal_bias)
        for index, row in enumerate(rows):
            row |= {name: bool(values[index]) for name, values in signals.items()}
    return rows


if __name__ == "__main__":
    main("traffic")
