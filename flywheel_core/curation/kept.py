"""What either step of Phase I writes of the rows it keeps, for the phases after it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from flywheel_core.curation.columns import INDEX, SHINGLES, index_of, shingles_table
from flywheel_core.records import TRAFFIC

KEPT: Mapping[str, pa.Schema] = {"kept": TRAFFIC, "index": INDEX, "shingles": SHINGLES}
"""The rows, their index, and their runs of words."""


def kept_tables(
    table: pa.Table, messages: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, pa.Table]:
    """Tables of `KEPT` for rows of `records.TRAFFIC`; `messages` is their column, as objects."""
    return {
        "kept": table,
        "index": index_of(table, messages),
        "shingles": shingles_table(messages),
    }
