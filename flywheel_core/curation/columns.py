"""Rows as Phases II and III see them: a view over Arrow columns, some tens of bytes a row.

A million conversations as Python objects would take gigabytes; what diversity, balance and splits
look at is only the strata, the turn to be answered, and whether two prompts are equal. So Phase I
writes an *index* beside the rows it keeps, and the functions over rows read it through this view,
a column at a time. Plain mappings go through the same functions.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_core.curation.diversity import prompt_text
from flywheel_core.curation.hashing import hash_share
from flywheel_core.curation.shingles import ShingleSets, shingles
from flywheel_core.records import CONTEXT_FIELDS, TRAFFIC

_STRATA = [field for field in CONTEXT_FIELDS if field.name != "messages"]

PROMPT_DIGEST_BYTES = 16

INDEX = pa.schema(
    [
        TRAFFIC.field("row_id"),
        TRAFFIC.field("day"),
        *_STRATA,
        TRAFFIC.field("model_digest"),
        pa.field("prompt_digest", pa.binary(PROMPT_DIGEST_BYTES), nullable=False),
        pa.field("last_turn", pa.string(), nullable=False),
    ]
)
"""`prompt_digest` is equal exactly where prompts are (128 bits); `last_turn` is to be answered."""

FEW_VALUES = ("day", "surface", "character_id", "locale", "language", "jtbd", "model_digest")
"""Columns that are kept in memory as numbers of their distinct values."""
HASHED_ROWS = 65_536
"""Rows whose ids are Python strings at a time."""

Encoded: TypeAlias = tuple[npt.NDArray[np.int32], tuple[Any, ...]]
"""A column [num_rows] as positions in its distinct values."""


def index_of(table: pa.Table, messages: Sequence[Sequence[Mapping[str, Any]]]) -> pa.Table:
    """The index of rows of `records.TRAFFIC`; `messages` is their column, as Python objects."""
    digests = [
        hashlib.blake2b(
            prompt_text({"messages": one}).encode(), digest_size=PROMPT_DIGEST_BYTES
        ).digest()
        for one in messages
    ]
    turns = [one[-1]["content"] for one in messages]
    kept = table.select([name for name in INDEX.names if name in table.column_names])
    whole = kept.append_column("prompt_digest", pa.array(digests, pa.binary(PROMPT_DIGEST_BYTES)))
    whole = whole.append_column("last_turn", pa.array(turns, pa.string()))
    return whole.select(INDEX.names).cast(INDEX)


SHINGLES = pa.schema([pa.field("shingles", pa.list_(pa.uint32()), nullable=False)])
"""What each row of an index says, apart from it: only the search for near duplicates reads this."""


def shingles_table(messages: Sequence[Sequence[Mapping[str, Any]]]) -> pa.Table:
    """The shingles of conversations, a row each."""
    sets = shingles(messages)
    column = pa.ListArray.from_arrays(pa.array(sets.offsets, pa.int32()), pa.array(sets.values))
    return pa.table([column], SHINGLES)


KEPT_TABLES = {"kept": TRAFFIC, "index": INDEX}
"""What Phase I writes of the rows it keeps: the rows, and what the later phases weigh of them."""


def kept_tables(
    kept: pa.Table, messages: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, pa.Table]:
    """`KEPT_TABLES` of these rows of `records.TRAFFIC`; `messages` is their column, as Python
    objects."""
    return {"kept": kept, "index": index_of(kept, messages)}


def read_shingles(files: Sequence[Path], indices: Sequence[int]) -> ShingleSets:
    """The shingles of rows (numbered over all files, ascending), read a batch at a time."""
    wanted = np.asarray(indices, dtype=np.int64)
    values = [np.empty(0, np.uint32)]
    sizes = [np.zeros(1, np.int64)]
    first = 0
    for path in files:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches():
                stop = first + batch.num_rows
                start, end = np.searchsorted(wanted, (first, stop))
                found = batch.column("shingles").take(pa.array(wanted[start:end] - first))
                values.append(found.flatten().to_numpy())
                sizes.append(found.value_lengths().to_numpy())
                first = stop
    return ShingleSets(np.concatenate(values), np.cumsum(np.concatenate(sizes), dtype=np.int64))


class IndexRow(Mapping[str, Any]):
    """One row of an index. Its `messages` stand for the prompt: equal where the prompts are, and
    with the same last turn."""

    __slots__ = ("_number", "_rows")

    def __init__(self, rows: "IndexRows", number: int) -> None:
        self._rows, self._number = rows, number

    def __getitem__(self, name: str) -> Any:
        if name == "messages":
            return [
                {"role": "digest", "content": self["prompt_digest"].hex()},
                {"role": "user", "content": self["last_turn"]},
            ]
        return self._rows.column(name)[self._number].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter((*INDEX.names, "messages"))

    def __len__(self) -> int:
        return len(INDEX.names) + 1


class IndexRows(Sequence[IndexRow]):
    """An index as a sequence of rows; a column is read when it is first looked at."""

    def __init__(self, count: int, read: Callable[[str], pa.ChunkedArray]) -> None:
        self._count, self._read = count, read
        self._columns: dict[str, pa.Array | pa.ChunkedArray] = {}

    @classmethod
    def of_table(cls, table: pa.Table) -> "IndexRows":
        return cls(table.num_rows, table.column)

    @classmethod
    def of_files(cls, files: Sequence[Path]) -> "IndexRows":
        paths = [str(path) for path in files]

        def read(name: str) -> pa.ChunkedArray:
            few = [name] if name in FEW_VALUES else None
            return pq.read_table(paths, columns=[name], read_dictionary=few).column(name)

        return cls(sum(pq.ParquetFile(path).metadata.num_rows for path in paths), read)

    def column(self, name: str) -> pa.Array | pa.ChunkedArray:
        """A column of `INDEX`. The turns to be answered stay in chunks: as one array they would
        be held twice for a while."""
        if name not in self._columns:
            column = self._read(name)
            if name != "last_turn":
                column = column.unify_dictionaries().combine_chunks()
            self._columns[name] = column
        return self._columns[name]

    @overload
    def __getitem__(self, number: int) -> IndexRow: ...
    @overload
    def __getitem__(self, number: slice) -> list[IndexRow]: ...
    def __getitem__(self, number: int | slice) -> IndexRow | list[IndexRow]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(self._count))]
        if not -self._count <= number < self._count:
            raise IndexError(number)
        return IndexRow(self, int(number) % self._count)

    def __len__(self) -> int:
        return self._count


def column_of(rows: Sequence[Mapping[str, Any]], name: str) -> pa.Array:
    """One field of all rows [len(rows)]."""
    if isinstance(rows, IndexRows):
        return rows.column(name)
    return pa.array([row[name] for row in rows])


def encoded(rows: Sequence[Mapping[str, Any]], name: str) -> Encoded:
    """One field of all rows as numbers. Their order is that of the values' text, so that it does
    not depend on the rows'; a null is a value of its own, the first."""
    column = column_of(rows, name)
    if pa.types.is_null(column.type):
        return np.zeros(len(rows), np.int32), (None,)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    values = column.dictionary.to_pylist()
    order = sorted(range(len(values)), key=lambda place: str(values[place]))
    places = np.zeros(len(values) + 1, np.int32)
    places[[place + 1 for place in order]] = np.arange(1, len(values) + 1)
    codes = np.asarray(pc.fill_null(pc.cast(column.indices, pa.int32()), -1)) + 1
    return places[codes], (None, *(values[place] for place in order))


def hash_shares(
    prefix: str, rows: Sequence[Mapping[str, Any]], indices: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """`hash_share` of prefix and row id [len(indices)]."""
    ids = column_of(rows, "row_id")
    shares = np.empty(len(indices))
    for start in range(0, len(indices), HASHED_ROWS):
        some = ids.take(pa.array(indices[start : start + HASHED_ROWS])).to_pylist()
        shares[start : start + len(some)] = [hash_share(prefix + one) for one in some]
    return shares
