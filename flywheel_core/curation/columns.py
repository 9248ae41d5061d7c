"""Rows as Phases II and III see them: a view over Arrow columns, a hundred bytes a row.

A million conversations as Python objects would take gigabytes; what diversity, balance and splits
look at is only the strata, the turn to be answered, and whether two prompts are equal. So Phase I
writes an *index* beside the rows it keeps, and the functions over rows read it through this view.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import pyarrow as pa

from flywheel_core.curation.diversity import prompt_text
from flywheel_core.records import CONTEXT_FIELDS, TRAFFIC

_STRATA = [field for field in CONTEXT_FIELDS if field.name != "messages"]

INDEX = pa.schema(
    [
        TRAFFIC.field("row_id"),
        TRAFFIC.field("day"),
        *_STRATA,
        TRAFFIC.field("model_digest"),
        pa.field("prompt_digest", pa.string(), nullable=False),
        pa.field("last_turn", pa.string(), nullable=False),
    ]
)
"""`prompt_digest` is equal exactly where prompts are (128 bits); `last_turn` is to be answered."""


def index_of(table: pa.Table, messages: Sequence[Sequence[Mapping[str, Any]]]) -> pa.Table:
    """The index of rows of `records.TRAFFIC`; `messages` is their column, as Python objects."""
    digests = [
        hashlib.blake2b(prompt_text({"messages": one}).encode(), digest_size=16).hexdigest()
        for one in messages
    ]
    turns = [one[-1]["content"] for one in messages]
    kept = table.select([name for name in INDEX.names if name in table.column_names])
    whole = kept.append_column("prompt_digest", pa.array(digests, pa.string()))
    whole = whole.append_column("last_turn", pa.array(turns, pa.string()))
    return whole.select(INDEX.names).cast(INDEX)


class IndexRow(Mapping[str, Any]):
    """One row of an index. Its `messages` stand for the prompt: equal where the prompts are, and
    with the same last turn."""

    __slots__ = ("_columns", "_number")

    def __init__(self, columns: Mapping[str, pa.Array], number: int) -> None:
        self._columns, self._number = columns, number

    def __getitem__(self, name: str) -> Any:
        if name == "messages":
            return [
                {"role": "digest", "content": self["prompt_digest"]},
                {"role": "user", "content": self["last_turn"]},
            ]
        return self._columns[name][self._number].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter((*self._columns, "messages"))

    def __len__(self) -> int:
        return len(self._columns) + 1


class IndexRows(Sequence[IndexRow]):
    """An index as a sequence of rows, made one at a time as they are looked at."""

    def __init__(self, table: pa.Table) -> None:
        self._columns = {name: table.column(name).combine_chunks() for name in INDEX.names}
        self._count: int = table.num_rows

    @overload
    def __getitem__(self, number: int) -> IndexRow: ...
    @overload
    def __getitem__(self, number: slice) -> list[IndexRow]: ...
    def __getitem__(self, number: int | slice) -> IndexRow | list[IndexRow]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(self._count))]
        if not -self._count <= number < self._count:
            raise IndexError(number)
        return IndexRow(self._columns, number % self._count)

    def __len__(self) -> int:
        return self._count
