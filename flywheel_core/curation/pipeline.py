"""Curation of Parquet files of any size: Phase I in shards, the rest on an index of what it kept.

Phase I (§2.6) looks at each row by itself, so an executor maps it over the files, in this process
or on a cluster, and a run that breaks off goes on from the first missing shard. Phases II and III
and the splits weigh rows against each other; they see the index (`columns`), never the texts. Last,
the chosen rows are read from what Phase I kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.curation.columns import (
    KEPT_TABLES,
    SHINGLES,
    IndexRows,
    kept_tables,
    read_shingles,
    shingles_table,
)
from flywheel_core.curation.config import RowRules
from flywheel_core.curation.curate import Curated, prompt_row, select
from flywheel_core.curation.filters import RuleSafetyClassifier, filter_rows, told
from flywheel_core.curation.guard import Guard, guarded
from flywheel_core.curation.labels import labels_told
from flywheel_core.curation.measures import measures_of
from flywheel_core.curation.near_duplicates import Groups, group
from flywheel_core.curation.presidio import name_finder
from flywheel_core.curation.relabel import relabelled
from flywheel_core.curation.section import CurationSection
from flywheel_core.engines.base import Embedder, Progress
from flywheel_core.engines.config import ExecutorConfig
from flywheel_core.engines.executor import Executor
from flywheel_core.engines.mapping import MapJob, Mapped, MapResult
from flywheel_core.erasure.users import Erasures, without_erased
from flywheel_core.errors import InputDataError
from flywheel_core.records import TRAFFIC
from flywheel_core.row_groups import ROW_GROUP_ROWS
from flywheel_core.row_ids import SeenIds

PHASE_ONE_VERSION = 3
"""Part of what a half-done Phase I is recognised by: raise it when the rules change."""
SHINGLES_VERSION = 1
"""The same of a half-done list of shingles."""
NO_MODELS = RowRules()


@dataclass(frozen=True)
class TrafficFiles:
    """Traffic to curate, and the keys of the artifacts it came from, for the prompts' provenance:
    a day's own where it is known, else `key`."""

    files: tuple[Path, ...]
    key: str
    keys_by_day: Mapping[str, str]

    def key_of(self, day: str) -> str:
        return self.keys_by_day.get(day, self.key)


@dataclass(frozen=True)
class Workshop:
    """Who maps, where unfinished work lies, whom to tell, and the guard model if there is one."""

    executor: Executor
    config: ExecutorConfig
    work: Path
    progress: Progress
    guard: Guard | None = None


def curate_files(
    traffic: TrafficFiles,
    config: CurationSection,
    embedder: Embedder,
    seed: int,
    *,
    production_digest: str,
    erasures: Erasures,
    workshop: Workshop,
    measures: Path | None = None,
) -> Curated:
    """What `curate` makes of the same rows in memory, without holding them there.

    `production_digest` is the model whose traffic is near-policy (§3.5.2); `measures` a table of
    quality and difficulty by row (`measures`).
    """
    filtered = _filtered(traffic, config.row_rules, erasures, workshop)
    report = _phase_one_report(filtered)
    if not report["filtered"]:
        raise InputDataError(
            f"curation kept none of {report['rows']} rows: {report['rejected']}; look at the "
            "traffic and the rules that rejected it"
        )
    said = workshop.executor.run(shingles_job(filtered, workshop), workshop.progress)
    workshop.progress(0, 3, "phases II and III")
    rows = IndexRows.of_files(filtered.files["index"])
    once = _first_of_each_id(rows)
    measured = None if measures is None else measures_of(measures, rows.column("row_id"))
    selected = select(
        rows,
        once,
        config,
        embedder,
        seed,
        production_digest=production_digest,
        find_near=partial(_near_duplicates, said.files["shingles"]),
        measures=measured,
    )
    workshop.progress(2, 3, "phases II and III")
    texts = _rows_numbered({index for index, _ in selected.chosen}, filtered)
    prompts = [
        prompt_row(texts[index], split, traffic.key_of(texts[index]["day"]), production_digest)
        for index, split in selected.chosen
    ]
    workshop.progress(3, 3, "phases II and III")
    repeated = {"repeated_row_ids": len(rows) - len(once)} if len(once) < len(rows) else {}
    return Curated(prompts, report | repeated | selected.report)


def _first_of_each_id(rows: IndexRows) -> Sequence[int]:
    """Rows of several files may bear one id (a day that was taken in twice under two names): a
    prompt's `prompt_id` must name one, so the first is kept."""
    seen, column = SeenIds(), rows.column("row_id")
    new = [
        seen.are_new(column.slice(first, ROW_GROUP_ROWS).to_pylist())
        for first in range(0, len(rows), ROW_GROUP_ROWS)
    ]
    once = np.flatnonzero(np.concatenate(new))
    return range(len(rows)) if len(once) == len(rows) else once.tolist()


def _filtered(
    traffic: TrafficFiles, rules: RowRules, erasures: Erasures, workshop: Workshop
) -> MapResult:
    """Phase I: the rules, then the guard. What is not installed is missed before the first row."""
    name_finder(rules.names)
    by_rules = workshop.executor.run(
        phase_one_job(traffic, erasures, workshop, rules), workshop.progress
    )
    if workshop.guard is None:
        return by_rules
    batch_rows, work = workshop.config.batch_rows, workshop.work
    return guarded(by_rules, workshop.guard, work, batch_rows, workshop.progress)


def phase_one_job(
    traffic: TrafficFiles, erasures: Erasures, workshop: Workshop, rules: RowRules = NO_MODELS
) -> MapJob:
    """Phase I's rules over those files: the rows they keep, and their index."""
    return MapJob(
        name="phase I",
        function=partial(phase_one, erasures=erasures, rules=rules),
        config={
            "version": PHASE_ONE_VERSION,
            "erasures": erasures.digest,
            "rules": rules.model_dump(mode="json"),
        },
        inputs=traffic.files,
        columns=TRAFFIC,
        outputs=KEPT_TABLES,
        folder=workshop.work / "phase_one",
        shard_rows=workshop.config.shard_rows,
        batch_rows=workshop.config.batch_rows,
    )


def phase_one(batch: pa.Table, erasures: Erasures, rules: RowRules = NO_MODELS) -> Mapped:
    """Leave erased users out, filter by privacy and safety, and label; counts by rule."""
    table = without_erased(_as_traffic(batch), erasures)
    # Only what the rules read becomes Python objects: that conversation is most of the cost.
    messages = _as_objects(table, "messages")
    responses = _as_objects(table, "response")
    if not (all(messages) and all(map(_is_whole, messages)) and None not in responses):
        raise InputDataError(f"messages or response: a row has none, or a turn without text; {ASK}")
    languages = table.column("language").to_pylist()
    rows = [
        {"messages": turns, "response": said, "language": language}
        for turns, said, language in zip(messages, responses, languages, strict=True)
    ]
    names = name_finder(rules.names)
    filtered = filter_rows(rows, RuleSafetyClassifier(), names, names_config=rules.names)
    turns_kept = [messages[number] for number in filtered.kept]
    kept = table.take(pa.array(filtered.kept, pa.int64()))
    kept, labels = relabelled(kept, turns_kept, rules)
    counts = {"erased": batch.num_rows - table.num_rows, **filtered.counts(), **labels}
    return Mapped(kept_tables(kept, turns_kept), counts)


def shingles_job(filtered: MapResult, workshop: Workshop) -> MapJob:
    """Phase II's first step, in shards like Phase I: what each kept row says, for the search for
    near duplicates."""
    return MapJob(
        name="phase II, shingles",
        function=shingled,
        config={"version": SHINGLES_VERSION},
        inputs=filtered.files["kept"],
        columns=pa.schema([TRAFFIC.field("messages")]),
        outputs={"shingles": SHINGLES},
        folder=workshop.work / "shingles",
        shard_rows=workshop.config.shard_rows,
        batch_rows=workshop.config.batch_rows,
    )


def shingled(batch: pa.Table) -> Mapped:
    """The shingles of each row."""
    return Mapped({"shingles": shingles_table(batch.column("messages").to_pylist())})


ASK = "take the file in with `flywheel ingest FILE --out DIR`, which sets such rows aside"


def _as_traffic(batch: pa.Table) -> pa.Table:
    try:
        return batch.cast(TRAFFIC)
    except ValueError as error:
        empty = [one.name for one in TRAFFIC if not one.nullable and batch[one.name].null_count]
        raise InputDataError(f"{', '.join(empty)}: a row has none; {ASK}") from error


def _as_objects(table: pa.Table, name: str) -> list[Any]:
    try:
        return list(table.column(name).to_pylist())
    except UnicodeDecodeError as error:
        raise InputDataError(f"{name}: a row's text is not UTF-8; {ASK}") from error


def _is_whole(messages: Sequence[Mapping[str, Any] | None]) -> bool:
    return all(turn and turn["role"] and turn["content"] is not None for turn in messages)


def _phase_one_report(filtered: MapResult) -> dict[str, Any]:
    erased = filtered.counts.get("erased", 0)
    return {
        "rows": filtered.rows_in - erased,
        "erased": erased,
        **told(filtered.counts),
        "labels": labels_told(filtered.counts),
        "filtered": filtered.rows["kept"],
    }


def _near_duplicates(files: Sequence[Path], indices: Sequence[int]) -> Groups:
    return group(read_shingles(files, indices), indices)


def _rows_numbered(wanted: set[int], filtered: MapResult) -> dict[int, dict[str, Any]]:
    """The rows that Phase I kept whose numbers, over all its files, are wanted."""
    found: dict[int, dict[str, Any]] = {}
    for first, batch in _numbered_batches(filtered.files["kept"]):
        here = [index for index in range(batch.num_rows) if first + index in wanted]
        for index, row in zip(
            here, batch.take(pa.array(here, pa.int64())).to_pylist(), strict=True
        ):
            found[first + index] = row
    return found


def _numbered_batches(files: tuple[Path, ...]) -> Iterator[tuple[int, pa.Table]]:
    first = 0
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches():
                yield first, pa.Table.from_batches([batch])
                first += batch.num_rows
