"""Quality and difficulty of prompts, measured elsewhere, for Phase III (Table 1).

A Parquet file with `row_id` and either `quality` and `difficulty` (either may be missing), or
`scores`: a reward model's scores of several responses to the row's prompt. Then difficulty is
their variance and quality their mean: the paper takes the spread for difficulty because means
follow style and length (§3.5.4), and names no measure of quality; the mean is ours.

Without a file, and for rows it does not name, both are *not applicable*.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_core.curation.strata import Measures
from flywheel_core.errors import InputDataError

NUMBERS = ("quality", "difficulty")
CONTRACT = (
    "the table needs row_id (text), and quality or difficulty (numbers) or scores (lists of at "
    "least 2 numbers)"
)


def measures_of(path: Path, row_ids: pa.Array | pa.ChunkedArray) -> Measures:
    """The measures of these rows, in their order. `InputDataError` where the table is not one,
    names a row twice, holds no finite number, or names none of the rows."""
    table = _read(path)
    places = pc.index_in(pc.cast(row_ids, pa.string()), value_set=table.column("row_id"))
    if len(row_ids) and places.null_count == len(row_ids):
        raise InputDataError(
            f"measures: {path} names none of the {len(row_ids)} rows that Phase I kept; its row_id "
            "must be that of the traffic"
        )
    return Measures(*(_taken(table, name, places) for name in NUMBERS))


def _taken(
    table: pa.Table, name: str, places: pa.Array | pa.ChunkedArray
) -> list[float | None] | None:
    if name not in table.column_names:
        return None
    values: list[float | None] = table.column(name).take(places).to_pylist()
    return values if any(value is not None for value in values) else None


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputDataError(
            f"measures: {path} is not a readable Parquet file ({type(error).__name__}); {CONTRACT}"
        ) from error
    if "row_id" not in table.column_names or not _is_text(table.schema.field("row_id").type):
        raise InputDataError(f"measures: {path} has no text column row_id; {CONTRACT}")
    ids = table.column("row_id").cast(pa.string())
    if len(pc.unique(ids)) != table.num_rows or ids.null_count:
        raise InputDataError(f"measures: {path} names a row twice or not at all; {CONTRACT}")
    numbers = _numbers(path, table)
    if not numbers:
        raise InputDataError(f"measures: {path} has nothing that is measured; {CONTRACT}")
    return pa.table({"row_id": ids, **numbers})


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _numbers(path: Path, table: pa.Table) -> dict[str, Any]:
    if "scores" in table.column_names:
        rows = table.column("scores").to_pylist()
        return {
            "quality": pa.array([_mean(path, row) for row in rows], pa.float64()),
            "difficulty": pa.array([_variance(path, row) for row in rows], pa.float64()),
        }
    found = {}
    for name in NUMBERS:
        if name in table.column_names:
            found[name] = _finite(path, name, table.column(name))
    return found


def _finite(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        numbers = column.cast(pa.float64())
    except pa.ArrowException as error:
        raise InputDataError(f"measures: {path}: {name} is not a number; {CONTRACT}") from error
    if not pc.all(pc.fill_null(pc.is_finite(numbers), True)).as_py():
        raise InputDataError(
            f"measures: {path}: {name} holds a number that is not finite; leave it null"
        )
    return numbers


def _mean(path: Path, scores: Sequence[float] | None) -> float | None:
    return None if scores is None else math.fsum(_checked(path, scores)) / len(scores)


def _variance(path: Path, scores: Sequence[float] | None) -> float | None:
    """Over the responses of one prompt, unbiased."""
    if scores is None:
        return None
    mean = math.fsum(_checked(path, scores)) / len(scores)
    return math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1)


def _checked(path: Path, scores: Sequence[float]) -> Sequence[float]:
    try:
        usable = len(scores) >= 2 and all(math.isfinite(score) for score in scores)
    except TypeError:
        usable = False
    if not usable:
        raise InputDataError(
            f"measures: {path}: scores must be lists of at least 2 finite numbers; leave a row's "
            "scores null where there are fewer"
        )
    return scores
