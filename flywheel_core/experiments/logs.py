"""The two logs of an experiment, as Parquet: who was exposed to what, and what they then did.

**Exposures**, one row whenever an assigned user meets the experiment (cumulative logging, paper
§2.5.2): `user_id`, `arm` (`control` or `test`), `exposed_at`. Optional, and taken from a user's
first row: `locale`, `language`, `jtbd`, `user_kind` (for breakdowns), `pre_engaged_days` and
`pre_sends` (behaviour before the exposure, for CUPED; null counts as 0).

**Events**, one row per event or per batch of events: `user_id`, `at`. Optional: `sends` (absent:
one a row), `event_id` (integer or text; a user's rows of one id are one event), and integer columns
that serve as guardrails, for example `thumb_down` or `reports`.

Times are timestamps, in UTC where they carry no zone; a date means its first moment. Columns not
named here are not read, and the readout names them. What a log cannot hold (no user, another arm, a
sends of NaN) is an `InputDataError`, never a row dropped in silence.
"""

import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_core.errors import InputDataError
from flywheel_core.experiments.config import COVARIATES, DIMENSIONS

LogName = Literal["exposures", "events"]
Arm = Literal["control", "test"]
ARMS: tuple[Arm, ...] = ("control", "test")
"""Everywhere an arm is a number, it is its place here."""

BATCH_ROWS = 1 << 18
MICROSECONDS = 1_000_000
DAY_US = 86_400 * MICROSECONDS
UNKNOWN = "unknown"

TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)


def log_files(folder: Path) -> tuple[Path, ...]:
    """Every Parquet file below `folder`, sorted; a single file stands for itself."""
    if folder.is_file():
        return (folder,)
    files = tuple(sorted(path for path in folder.rglob("*.parquet") if path.is_file()))
    if not files:
        raise InputDataError(
            f"{folder}: no Parquet file is there; give the folder that the log is written to"
        )
    return files


def columns_of(files: Sequence[Path]) -> tuple[str, ...]:
    """The columns of a log, in the order of its first file; every file must have the same."""
    first: tuple[str, ...] = ()
    for path in files:
        try:
            names = tuple(pq.read_schema(path).names)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputDataError(
                f"{path}: not a readable Parquet file ({error}); it is cut short or damaged; "
                "write that day again"
            ) from error
        twice = [name for place, name in enumerate(names) if name in names[:place]]
        if twice:
            raise InputDataError(
                f"{path}: column {twice[0]!r} is there twice, and nothing says which one is "
                "meant; write each column once"
            )
        first = first or names
        if set(names) != set(first):
            raise InputDataError(
                f"{path}: its columns are {', '.join(names)}, but {files[0].name} has "
                f"{', '.join(first)}; a log has one set of columns, write it again"
            )
    return first


def normal_schema(log: LogName, columns: Sequence[str], event_id: pa.DataType | None) -> pa.Schema:
    """How `columns` of a log look once `normalise` has been over them."""
    return pa.schema([(name, _normal_type(log, name, event_id)) for name in columns])


def _normal_type(log: LogName, name: str, event_id: pa.DataType | None) -> pa.DataType:
    if name == "event_id":
        return event_id
    if name == "user_id" or (log == "exposures" and name in DIMENSIONS):
        return pa.string()
    return pa.int8() if name == "arm" else pa.int64()


def event_id_type(files: Sequence[Path], columns: Sequence[str]) -> pa.DataType | None:
    """int64 or text: what the log's event ids are read as; None where it has none."""
    if "event_id" not in columns:
        return None
    kind = pq.read_schema(files[0]).field("event_id").type
    return pa.int64() if pa.types.is_integer(kind) else pa.string()


def read_batches(
    files: Sequence[Path], log: LogName, columns: Sequence[str], event_id: pa.DataType | None
) -> Iterator[pa.Table]:
    """The log in pieces of at most `BATCH_ROWS` rows, in order; the next is decoded meanwhile."""
    schema = normal_schema(log, columns, event_id)
    with ThreadPoolExecutor(1) as pool:
        for path in files:
            batches = _raw_batches(path, columns)
            ahead = pool.submit(next, batches, None)
            while (batch := ahead.result()) is not None:
                ahead = pool.submit(next, batches, None)
                yield normalise(pa.Table.from_batches([batch]), schema, str(path))


def _raw_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=list(columns))
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            raise  # the process's limit, not the file
        raise InputDataError(
            f"{path}: cannot be read to its end ({type(error).__name__}); the file is damaged; "
            "write that day again"
        ) from error


def normalise(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """A piece of a log with text, int64 and times in microseconds, or what is wrong with it
    (`where` it lies, for the message)."""
    columns = []
    for field in schema:
        column = table.column(field.name)
        _refuse_nulls(field.name, column, where)
        if field.name == "arm":
            columns.append(_arm_numbers(column, where))
        elif field.name in ("exposed_at", "at"):
            columns.append(_times(field.name, column, where))
        elif field.type == pa.string():
            columns.append(_text(field.name, column, where))
        else:
            columns.append(_integers(field.name, column, where))
    return pa.table(columns, schema=schema)


def _refuse_nulls(name: str, column: pa.ChunkedArray, where: str) -> None:
    if column.null_count and name not in DIMENSIONS and name not in COVARIATES:
        raise InputDataError(
            f"{where}: column {name!r} is empty in {column.null_count} rows, but must always be "
            "filled; mend what writes the log"
        )


def _arm_numbers(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    text = _text("arm", column, where)
    numbers = pc.index_in(text, value_set=pa.array(ARMS))
    if numbers.null_count:
        other = sorted(set(pc.unique(text).to_pylist()) - set(ARMS))
        raise InputDataError(
            f"{where}: arm {other[0]!r} ({numbers.null_count} rows): an arm is 'control' or "
            "'test'; take the rows of other experiments out"
        )
    return numbers.cast(pa.int8())


def _times(name: str, column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    if pa.types.is_date(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.int64())
    if not pa.types.is_timestamp(column.type):
        raise InputDataError(
            f"{where}: column {name!r} is {column.type}, must be a timestamp (UTC) or a date; "
            "convert it"
        )
    return column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())


def _text(name: str, column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    if not any(test(column.type) for test in TEXT):
        raise InputDataError(
            f"{where}: column {name!r} is {column.type}, must be text; write it as a string"
        )
    return column.cast(pa.string())


def _integers(name: str, column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputDataError(f"{where}: column {name!r} is {kind}, must be whole numbers")
    if column.null_count:
        column = column.fill_null(0)
    if pa.types.is_floating(kind):
        whole = pc.equal(column, pc.floor(column))  # False for NaN
        wrong = len(column) - pc.sum(whole).as_py()
        if wrong or not pc.all(pc.is_finite(column)).as_py():
            raise InputDataError(
                f"{where}: column {name!r} has {wrong or 'infinite'} values that are NaN or no "
                "whole numbers; find what wrote them, do not drop them silently"
            )
    if name == "event_id":  # a name, not a number: 64 unsigned bits may wrap round
        return column.cast(pa.int64(), safe=False)
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise InputDataError(
            f"{where}: column {name!r} holds numbers beyond 64 bits; find what wrote them"
        ) from error
    least = pc.min(numbers).as_py()
    if least is not None and least < 0:
        raise InputDataError(f"{where}: column {name!r} holds {least}, must be 0 or more")
    return numbers


def partition_of(users: pa.ChunkedArray, num_partitions: int) -> npt.NDArray[np.uint16]:
    """Which of `num_partitions` each user belongs to: by the bytes of its id alone, so that every
    log, process and machine agrees."""
    pieces = [_hash(chunk) % np.uint64(num_partitions) for chunk in users.chunks]
    if not pieces:
        return np.empty(0, np.uint16)
    numbers: npt.NDArray[np.uint16] = np.concatenate(pieces).astype(np.uint16)
    return numbers


LONGEST_HASHED = 64
_ODD = np.uint64(0x9E3779B97F4A7C15)
_OTHER = np.uint64(0xBF58476D1CE4E5B9)


def _hash(users: pa.Array) -> npt.NDArray[np.uint64]:
    """A 64-bit mix of each id's length and last `LONGEST_HASHED` bytes (after SplitMix64)."""
    _, offsets_buffer, data_buffer = users.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[users.offset : users.offset + len(users) + 1]
    if data_buffer is None or len(users) == 0:
        return np.zeros(len(users), np.uint64)
    data = np.frombuffer(data_buffer, np.uint8)
    lengths = np.diff(offsets)
    length = int(lengths[0])
    if (lengths == length).all():  # one length for all: the bytes are a matrix already
        size = min(length, LONGEST_HASHED)
        matrix = data[offsets[0] : offsets[-1]].reshape(len(users), length)
        return _mix(_words(matrix[:, length - size :]), length)
    hashed = np.empty(len(users), np.uint64)
    for length in map(int, np.unique(lengths)):
        rows = np.flatnonzero(lengths == length)
        size = min(length, LONGEST_HASHED)
        ends = offsets[rows + 1]
        hashed[rows] = _mix(_words(data[(ends - size)[:, None] + np.arange(size)]), length)
    return hashed


def _words(text: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint64]]:
    """The columns of eight bytes each, the last one filled with zeros."""
    words = []
    for start in range(0, max(1, text.shape[1]), 8):
        some = text[:, start : start + 8]
        padded = np.zeros((len(text), 8), np.uint8) if some.shape[1] < 8 else np.empty_like(some)
        padded[:, : some.shape[1]] = some
        words.append(np.ascontiguousarray(padded).view(np.uint64)[:, 0])
    return words


def _mix(words: list[npt.NDArray[np.uint64]], length: int) -> npt.NDArray[np.uint64]:
    state = np.full(len(words[0]), length, np.uint64)
    for column in words:
        state ^= column
        state *= _ODD
        state ^= state >> np.uint64(29)
        state *= _OTHER
        state ^= state >> np.uint64(32)
    return state


def describe_columns(
    log: LogName, found: Sequence[str], guardrails: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The columns to read, and those that are not known and therefore not read."""
    required: dict[LogName, list[str]] = {
        "exposures": ["user_id", "arm", "exposed_at"],
        "events": ["user_id", "at"],
    }
    optional: dict[LogName, list[str]] = {
        "exposures": [*DIMENSIONS, *COVARIATES],
        "events": ["sends", "event_id"],
    }
    missing = [name for name in required[log] if name not in found]
    if missing:
        raise InputDataError(
            f"{log}: column {missing[0]!r} is missing; found: {', '.join(found)}; required: "
            f"{', '.join(required[log])}"
        )
    if log == "events":
        unknown = [name for name in guardrails if name not in found]
        if unknown:
            raise InputDataError(
                f"guardrail {unknown[0]!r}: the events have no such column; they have: "
                f"{', '.join(found)}; mend its name, or log it"
            )
        optional["events"] += [name for name in guardrails if name != "sends"]
    wanted = required[log] + [name for name in optional[log] if name in found]
    return wanted, [name for name in found if name not in wanted]


def as_numbers(column: Any) -> npt.NDArray[np.int64]:
    """An int64 column without nulls as numpy, copied only where it lies in pieces."""
    values: npt.NDArray[np.int64] = column.to_numpy()
    return values
