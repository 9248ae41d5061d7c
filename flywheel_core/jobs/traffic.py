"""A week of logged traffic: pinned days as they were ingested, missing ones from the world.

The simulated product is served by the current production model through vLLM, so its traffic is
on-policy. Testers (internal) leave no signals; users do, biased as §3.5.5 describes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flywheel_core.artifacts import digest_of
from flywheel_core.erasure.users import Erasures, of_inputs, without_erased
from flywheel_core.errors import InputDataError
from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.records import SURFACES, TRAFFIC, Surface, write_table
from flywheel_core.row_groups import read_row_groups, write_row_groups
from flywheel_core.row_ids import SeenIds
from flywheel_core.sections import Section, TrafficSection


class Config(Section):
    traffic: TrafficSection
    days: tuple[str, ...]


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `traffic.parquet`, in order of day, without the rows of erased users, and each row id
    once: a row that a later day repeats is left out there, and counted."""
    files, made = _day_files(config, inputs, context)
    counts: Counter[str] = Counter()
    kept = kept_rows(files, of_inputs(inputs), counts)
    rows = write_row_groups(context.output / "traffic.parquet", kept, TRAFFIC)
    return StageOutput(
        "traffic",
        {
            "rows": rows,
            "rows_erased": counts["erased"],
            "rows_repeated": counts["repeated"],
            "days_pinned": len(config.days) - made,
            "days_made": made,
            **{surface: counts[f"surface {surface}"] for surface in SURFACES},
        },
        {"near_policy_share": counts[f"served by {context.plan.parent.digest}"] / max(1, rows)},
    )


def _day_files(
    config: Config, inputs: Mapping[str, Path], context: StageContext
) -> tuple[list[Path], int]:
    """Each day's file, and how many of them the world made."""
    files, made = [], 0
    for index, day in enumerate(config.days):
        shard = context.work / f"{day}.parquet"
        if f"day-{day}" in inputs:
            files.append(inputs[f"day-{day}"] / "traffic.parquet")
        elif config.traffic.source == "world":
            if not shard.exists():
                _make_day(config, day, inputs["production"] / "model", shard, context)
            files.append(shard)
            made += 1
        else:
            raise InputDataError(f"traffic of {day} is missing; run `flywheel ingest` for that day")
        context.progress(index + 1, len(config.days), "days")
    return files, made


def kept_rows(
    files: Sequence[Path], erasures: Erasures, counts: Counter[str]
) -> Iterator[pa.Table]:
    """The days' rows piece by piece, which are counted as they pass."""
    seen = SeenIds()
    for path in files:
        for table in read_row_groups(path, TRAFFIC):
            known = without_erased(table, erasures)
            new = known.filter(pa.array(seen.are_new(known.column("row_id").to_pylist())))
            counts["erased"] += table.num_rows - known.num_rows
            counts["repeated"] += known.num_rows - new.num_rows
            for name, what in (("surface", "surface"), ("model_digest", "served by")):
                for one in new.column(name).value_counts().to_pylist():
                    counts[f"{what} {one['values']}"] += one["counts"]
            yield new


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
