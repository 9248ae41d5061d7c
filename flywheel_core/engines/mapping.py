"""A pure function over batches of rows, mapped over Parquet files shard by shard.

A *shard* is a run of whole row groups of one input file. Its outputs are one Parquet file per
named output, and its *mark* is written after them, by rename: a shard is done or it is not, so a
retry goes on from the first missing one, and a shard that a dying node made half is made again by
another. Names and bytes of the outputs depend on the inputs and on the function, not on who ran
which shard, how many there were at a time, or where one batch ended and the next began (as long as
the function treats each row by itself).

Memory holds one batch going in and at most `ROW_GROUP_ROWS` rows of each output on their way out.
`executor` runs the shards of a job one after the other, `ray_executor` on a cluster.
"""

import errno
import json
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.artifacts import file_sha256
from flywheel_core.errors import ConfigError, FlywheelError, InputDataError, MapFailed, StoreFull
from flywheel_core.folders import claim, unfinished_path, write_whole
from flywheel_core.records import missing_columns

ROW_GROUP_ROWS = 5_000
"""Rows of one row group of an output. Fixed, because it shows in the output's bytes."""


@dataclass(frozen=True)
class Mapped:
    """What a function makes of one batch: rows by the name of their output, and counts."""

    tables: Mapping[str, pa.Table]
    counts: Mapping[str, int] = field(default_factory=dict)


BatchFunction: TypeAlias = Callable[[pa.Table], Mapped]
"""Rows in, rows out. It must be picklable by name or by value, and hold no state of its own."""


@dataclass(frozen=True)
class MapJob:
    """What is mapped over what.

    `config` says, in JSON, everything but the rows that the outcome depends on: a folder begun
    under another one is refused. `columns` are read from each of `inputs`; `outputs` are the named
    outputs' schemas. `folder` takes outputs and marks; on a cluster all nodes must share it, and
    the inputs. `shard_rows` is the fewest rows a shard takes on (a file's last may be smaller).
    """

    name: str
    function: BatchFunction
    config: Mapping[str, Any]
    inputs: tuple[Path, ...]
    columns: pa.Schema
    outputs: Mapping[str, pa.Schema]
    folder: Path
    shard_rows: int = 20_000
    batch_rows: int = 1_000


@dataclass(frozen=True)
class Shard:
    """Row groups `first_group` to `stop_group` (excluded) of an input, the `number`-th of all."""

    number: int
    path: Path
    first_group: int
    stop_group: int
    num_rows: int


@dataclass(frozen=True)
class Mark:
    """A finished shard: rows and bytes by output, and the function's counts."""

    num_rows_in: int
    rows: Mapping[str, int]
    num_bytes: Mapping[str, int]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class MapResult:
    """The files of each output in the order of the input, and what was counted over all shards.

    `num_resumed` shards were there already.
    """

    files: Mapping[str, tuple[Path, ...]]
    rows_in: int
    rows: Mapping[str, int]
    counts: Mapping[str, int]
    num_shards: int
    num_resumed: int


@dataclass(frozen=True)
class Begun:
    """A job whose folder is its own: all its shards, and those still to make."""

    job: MapJob
    shards: tuple[Shard, ...]
    missing: tuple[Shard, ...]

    def result(self) -> MapResult:
        """Gather the marks; `MapFailed` where a shard has none."""
        marks = [_read_mark(self.job, shard) for shard in self.shards]
        unmarked = [
            shard.number for shard, mark in zip(self.shards, marks, strict=True) if not mark
        ]
        if unmarked:
            raise MapFailed(
                f"{self.job.name}: {len(unmarked)} of {len(marks)} shards have no mark in "
                f"{self.job.folder} (first: {unmarked[0]}); do all nodes share that folder? "
                "Run the same again: it goes on from there"
            )
        for leftover in self.job.folder.glob("*/.tmp-*"):
            leftover.unlink(missing_ok=True)
        done = [mark for mark in marks if mark is not None]
        return MapResult(
            files={
                name: tuple(output_path(self.job, name, shard) for shard in self.shards)
                for name in self.job.outputs
            },
            rows_in=sum(mark.num_rows_in for mark in done),
            rows={name: sum(mark.rows[name] for mark in done) for name in self.job.outputs},
            counts=dict(sorted(sum((Counter(mark.counts) for mark in done), Counter()).items())),
            num_shards=len(self.shards),
            num_resumed=len(self.shards) - len(self.missing),
        )


def begin(job: MapJob) -> Begun:
    """Check the inputs, take or claim the folder, and see what is done already."""
    shards = tuple(plan_shards(job))
    _claim_folder(job, shards)
    missing = tuple(shard for shard in shards if _read_mark(job, shard) is None)
    return Begun(job, shards, missing)


def plan_shards(job: MapJob) -> Iterator[Shard]:
    """Whole row groups of each file in turn, at least `shard_rows` rows a shard."""
    number = 0
    for path in job.inputs:
        metadata = _footer(job, path)
        first = rows = 0
        for group in range(metadata.num_row_groups):
            rows += metadata.row_group(group).num_rows
            if rows >= job.shard_rows or (rows and group == metadata.num_row_groups - 1):
                yield Shard(number, path, first, group + 1, rows)
                number, first, rows = number + 1, group + 1, 0


def _footer(job: MapJob, path: Path) -> Any:
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
    except FileNotFoundError as error:
        raise InputDataError(f"{job.name}: {path} is not there; check the path") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputDataError(
            f"{job.name}: {path} is not a readable Parquet file ({error}); it is cut short or "
            "damaged; write it again"
        ) from error
    faults = missing_columns(schema, job.columns)
    if faults:
        raise InputDataError(f"{job.name}: {path} is not the expected table: {'; '.join(faults)}")
    return metadata


def _claim_folder(job: MapJob, shards: Sequence[Shard]) -> None:
    """Mark the folder as this job's, or see that it is."""
    what = {
        "config": dict(job.config),
        "inputs": [file_sha256(path) for path in job.inputs],
        "shards": [[shard.first_group, shard.stop_group] for shard in shards],
        "outputs": {name: str(schema) for name, schema in job.outputs.items()},
    }
    claim(job.folder, job.name, what)


def output_path(job: MapJob, name: str, shard: Shard) -> Path:
    return job.folder / name / f"part-{shard.number:06d}.parquet"


def _mark_path(job: MapJob, shard: Shard) -> Path:
    return job.folder / "done" / f"{shard.number:06d}.json"


def _read_mark(job: MapJob, shard: Shard) -> Mark | None:
    """The mark, unless it or a file it vouches for is missing or was cut short by a crash."""
    try:
        mark = Mark(**json.loads(_mark_path(job, shard).read_text()))
        sizes = {name: output_path(job, name, shard).stat().st_size for name in job.outputs}
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return mark if sizes == mark.num_bytes else None


@dataclass(frozen=True)
class Failure:
    """Why a shard was not made, in a form that crosses processes."""

    kind: str
    said: str

    def error(self) -> FlywheelError:
        """The same error on the driver's side."""
        known = {one.__name__: one for one in (InputDataError, StoreFull, ConfigError, MapFailed)}
        return known.get(self.kind, MapFailed)(self.said)


def attempt_shard(job: MapJob, shard: Shard) -> Failure | None:
    """Make a shard and its mark. A failure is returned as a value, and holds no text of a row:
    an exception of the function is told by its type and place alone, for its message may quote."""
    try:
        _make_shard(job, shard)
    except FlywheelError as error:
        return Failure(type(error).__name__, str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Failure("StoreFull", f"{job.name}: no space is left for {job.folder}; free some")
        return Failure("MapFailed", f"{job.name}, shard {shard.number}: {error}")
    except Exception as error:  # the function's own: of any type
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Failure(
            "MapFailed",
            f"{job.name}, shard {shard.number} (row groups {shard.first_group} to "
            f"{shard.stop_group - 1} of {shard.path.name}): {type(error).__name__} at "
            f"{Path(place.filename).name}:{place.lineno}; its message is withheld, because it may "
            "quote a row",
        )
    return None


def _make_shard(job: MapJob, shard: Shard) -> None:
    counts: Counter[str] = Counter()
    read = 0
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(_OutputFile(output_path(job, name, shard), schema))
            for name, schema in job.outputs.items()
        }
        for batch in _batches(job, shard):
            read += batch.num_rows
            mapped = job.function(batch)
            _check_names(job, mapped)
            counts.update(mapped.counts)
            for name, writer in writers.items():
                if name in mapped.tables:
                    writer.add(mapped.tables[name])
    mark = Mark(
        num_rows_in=read,
        rows={name: writer.num_rows for name, writer in writers.items()},
        num_bytes={name: output_path(job, name, shard).stat().st_size for name in writers},
        counts=dict(sorted(counts.items())),
    )
    write_whole(_mark_path(job, shard), json.dumps(asdict(mark)).encode())


def _check_names(job: MapJob, mapped: Mapped) -> None:
    unknown = set(mapped.tables) - set(job.outputs)
    if unknown:
        raise ConfigError(
            f"{job.name}: the function gave rows for {', '.join(sorted(unknown))}, but the job's "
            f"outputs are {', '.join(job.outputs)}; name them in MapJob.outputs"
        )


def _batches(job: MapJob, shard: Shard) -> Iterator[pa.Table]:
    groups = list(range(shard.first_group, shard.stop_group))
    try:
        # Not buffered ahead of its use: a column of a large row group would be held whole.
        with pq.ParquetFile(shard.path, pre_buffer=False, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(job.batch_rows, groups, columns=job.columns.names):
                yield pa.Table.from_batches([batch]).select(job.columns.names)
    except FileNotFoundError as error:
        raise InputDataError(
            f"{job.name}: {shard.path} cannot be seen from this node; put inputs and work folder "
            "where all nodes share them"
        ) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputDataError(
            f"{job.name}: row groups {groups[0]} to {groups[-1]} of {shard.path} cannot be read "
            f"({type(error).__name__}); the file is damaged; write it again"
        ) from error


class _OutputFile:
    """A Parquet file that appears whole at the end, in row groups of `ROW_GROUP_ROWS`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.num_rows = 0
        self._path, self._schema = path, schema
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished = unfinished_path(path)
        self._writer = pq.ParquetWriter(self._unfinished, schema, compression="zstd")

    def __enter__(self) -> "_OutputFile":
        return self

    def add(self, table: pa.Table) -> None:
        if not table.schema.equals(self._schema):
            raise ConfigError(
                f"output {self._path.parent.name}: the function gave columns {table.schema.names} "
                f"of other types or order than the job's outputs say: {self._schema.names}"
            )
        self._pending.append(table)
        self._num_pending += table.num_rows
        while self._num_pending >= ROW_GROUP_ROWS:
            self._write(ROW_GROUP_ROWS)

    def _write(self, count: int) -> None:
        pending = pa.concat_tables(self._pending)
        self._writer.write_table(pending.slice(0, count).combine_chunks(), row_group_size=count)
        self._pending = [pending.slice(count)]
        self._num_pending -= count
        self.num_rows += count

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self._num_pending:
                self._write(self._num_pending)
            self._writer.close()
            if error is None:
                os.replace(self._unfinished, self._path)
        finally:
            self._unfinished.unlink(missing_ok=True)
