"""Annotation by itself, without a climb: pairs from a file, tasks out, labels in, training rows.

The folder of `export` has two parts. What annotators get lies at its top; `private/` holds the
pairs with the names of their policies, which nobody who labels should see.
"""

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from flywheel_core.annotation.adjudication import tasks_to_adjudicate
from flywheel_core.annotation.agreement import agreement_report
from flywheel_core.annotation.batch import assemble, settled
from flywheel_core.annotation.files import (
    ADJUDICATION_FOLDER,
    FileFormat,
    read_adjudications,
    read_labels,
    read_tasks,
    tasks_text,
    write_tasks,
)
from flywheel_core.annotation.pairs import PairDraft, filter_pairs
from flywheel_core.annotation.questions import Workflow, question_set
from flywheel_core.annotation.reviews import (
    CheckedReviews,
    review_of_row,
)
from flywheel_core.annotation.section import AnnotationSection
from flywheel_core.annotation.tasks import make_tasks
from flywheel_core.errors import InputDataError
from flywheel_core.evaluation.prevalence import compare_chosen, summarise_comparisons
from flywheel_core.folders import claim, write_whole
from flywheel_core.ingest.contract import RowFault, checked_messages
from flywheel_core.records import (
    CONTEXT_FIELDS,
    DRAFTS,
    PAIRS,
    REVIEWS,
    REWRITES,
    SURFACES,
    missing_columns,
    read_table,
    write_table,
)

PRIVATE = "private"
DRAFTS_FILE, TASKS_FILE = "drafts.parquet", "tasks.jsonl"


@dataclass(frozen=True)
class Exported:
    """How many tasks went out, where they lie, and what the filters dropped."""

    tasks: Path
    num_tasks: int
    dropped: Counter[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "tasks": str(self.tasks),
            "num_tasks": self.num_tasks,
            "dropped": dict(sorted(self.dropped.items())),
        }


def export_tasks(
    source: Path,
    folder: Path,
    file_format: FileFormat,
    workflow: Workflow,
    section: AnnotationSection,
    seed: int,
) -> Exported:
    """Filter the pairs in `source` (Parquet or JSONL, `records.DRAFTS`) and put their tasks into
    `folder`; again with the same inputs, it changes nothing."""
    drafts = read_drafts(source)
    kept, dropped = filter_pairs(drafts, section.difference_max)
    tasks = make_tasks(kept, workflow, question_set(section.question_set), seed)
    made_from = {"tasks": [task.task_id for task in tasks], "format": file_format, "seed": seed}
    claim(folder / PRIVATE, "annotate export", made_from)
    write_table(folder / PRIVATE / DRAFTS_FILE, [_draft_row(one) for one in kept], DRAFTS)
    write_whole(folder / PRIVATE / TASKS_FILE, tasks_text(tasks, "files").encode())
    return Exported(write_tasks(folder, tasks, file_format), len(tasks), dropped)


def import_labels(
    folder: Path, labels: Path, out: Path, file_format: FileFormat, section: AnnotationSection
) -> dict[str, Any]:
    """Labels of an exported batch become `pairs.parquet`, `reviews.parquet` and
    `rewrites.parquet` in `out`; returns the report, which lies there as `report.json`.

    Splits that the recipe wants adjudicated go out as tasks in the batch's `adjudication/`; labels
    found there are taken in.
    """
    pairs = read_drafts(folder / PRIVATE / DRAFTS_FILE)
    tasks = read_tasks(folder / PRIVATE / TASKS_FILE)
    reviews = read_labels(labels, tasks, file_format)
    adjudicated = partial(read_adjudications, folder / ADJUDICATION_FOLDER, file_format=file_format)
    checked = settled(tasks, tasks, reviews, section, section.num_annotators, adjudicated)
    workflow = tasks[0].workflow
    batch = assemble(pairs, tasks, checked, workflow, section, Counter())
    write_table(out / "pairs.parquet", batch.pairs, PAIRS)
    write_table(out / "reviews.parquet", batch.reviews, REVIEWS)
    write_table(out / "rewrites.parquet", batch.rewrites, REWRITES)
    report = {
        "pairs": len(batch.pairs),
        "reviews": len(batch.reviews),
        "rewrites": len(batch.rewrites),
        "dropped_pairs": dict(sorted(batch.dropped.items())),
        "waiting_for_adjudication": len(tasks_to_adjudicate(tasks, checked, section.adjudicate)),
        **batch.agreement[workflow],
        "features_chosen_rejected": summarise_comparisons(
            compare_chosen(batch.pairs, section.prevalence)
        ),
    }
    write_whole(out / "report.json", json.dumps(report, indent=1, allow_nan=False).encode())
    return report


def agreement_over_batches(paths: list[Path]) -> dict[str, Any]:
    """Agreement and every annotator's drift over the reviews of several batches, oldest first.

    A batch that was imported again after corrections comes in several files: the newest label of a
    task and annotator counts, in its first place, and what it replaces is counted as `superseded`.
    """
    found = [review_of_row(row) for path in paths for row in read_table(path, REVIEWS).to_pylist()]
    newest = {(one.task_id, one.annotator_id, one.adjudicates): one for one in found}
    reviews = list(newest.values())
    if not reviews:
        raise InputDataError(
            "no review is in these files; give reviews.parquet of labelled batches"
        )
    superseded = +Counter(superseded=len(found) - len(reviews))
    return agreement_report(CheckedReviews(reviews, superseded, Counter()))


def read_drafts(path: Path) -> list[PairDraft]:
    """Pairs from Parquet or JSONL; a column that is missing or of another type is an error, and so
    is a row whose conversation could not have been traffic."""
    if path.suffix == ".jsonl":
        lines, table = _jsonl_table(path)
        places = [f"{path}:{number}" for number in lines]
    else:
        table = read_table(path, DRAFTS)
        places = [f"{path}: row {number}" for number in range(table.num_rows)]
    return [_draft(row, at) for row, at in zip(table.to_pylist(), places, strict=True)]


def _jsonl_table(path: Path) -> tuple[list[int], pa.Table]:
    """The number of every line that holds a row, and the rows."""
    try:
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        rows = {number: json.loads(line) for number, line in lines if line.strip()}
        table = pa.Table.from_pylist(list(rows.values()), schema=DRAFTS)
    except (OSError, UnicodeDecodeError, ValueError, TypeError, pa.ArrowException) as error:
        raise InputDataError(
            f"{path}: not JSON lines of pairs ({error}); see records.DRAFTS for the columns"
        ) from error
    empty = [one.name for one in DRAFTS if not one.nullable and table[one.name].null_count]
    faults = missing_columns(table.schema, DRAFTS) + [f"{name}: is empty" for name in empty]
    if faults:
        raise InputDataError(f"{path}: not the expected table: {'; '.join(faults)}")
    return list(rows), table


def _draft(row: dict[str, Any], place: str) -> PairDraft:
    if row["surface"] not in SURFACES:
        raise InputDataError(
            f"{place}: surface: must be one of {', '.join(SURFACES)} (received {row['surface']!r})"
        )
    try:
        checked_messages(row["messages"])
    except RowFault as fault:
        roles = [turn["role"] if turn else None for turn in row["messages"]]
        raise InputDataError(
            f"{place}: {fault} (received turns of: {', '.join(map(str, roles)) or 'nobody'})"
        ) from fault
    context = {"prompt_id": row["prompt_id"]} | {one.name: row[one.name] for one in CONTEXT_FIELDS}
    return PairDraft(
        context, row["response_0"], row["response_1"], row["policy_0"], row["policy_1"]
    )


def _draft_row(pair: PairDraft) -> dict[str, Any]:
    spoken = ("response_0", "response_1", "policy_0", "policy_1")
    return {**pair.context, **{name: getattr(pair, name) for name in spoken}}
