"""Tables of any size to Parquet, in row groups small enough to read and to map over."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.errors import InputDataError
from flywheel_core.records import missing_columns

ROW_GROUP_ROWS = 1_000
"""Rows a group: Phase I's shards are whole groups (`engines/mapping.py`), so a file of one group
would be one task."""


def read_row_groups(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """A Parquet file in pieces of at most a group, in exactly the columns of `schema`."""
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            faults = missing_columns(file.schema_arrow, schema)
            if faults:
                raise InputDataError(f"{path}: not the expected table: {'; '.join(faults)}")
            for batch in file.iter_batches(ROW_GROUP_ROWS, columns=schema.names):
                yield pa.Table.from_batches([batch]).select(schema.names)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputDataError(
            f"{path}: not a readable Parquet file ({error}); write it anew with `flywheel ingest`"
        ) from error


def write_row_groups(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write tables one behind the other, regrouped; returns the number of rows. Memory holds one
    group and one of the tables. Whatever the tables were cut into, the file is the same."""
    rows = 0
    pending = schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables:
            rows += table.num_rows
            pending = pa.concat_tables([pending, table.select(schema.names).cast(schema)])
            whole = pending.num_rows - pending.num_rows % ROW_GROUP_ROWS
            if whole:
                writer.write_table(pending.slice(0, whole), row_group_size=ROW_GROUP_ROWS)
                pending = pending.slice(whole).combine_chunks()
        if pending.num_rows:
            writer.write_table(pending, row_group_size=ROW_GROUP_ROWS)
    return rows
