"""From two logs to sums over users, in bounded memory on one machine.

The logs are streamed once. Where they are large, each row is spilled to the partition of its user
(a hash of the id), and the partitions are then summed one after the other: memory holds a few
pieces of the logs and the partitions in work, whatever the number of users and events. The spill
takes about the logs' uncompressed size on disk and is gone afterwards. `spread` does the same on a
cluster.
"""

import errno
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.errors import ConfigError, InputDataError, StoreFull
from flywheel_core.experiments.logs import (
    LogName,
    columns_of,
    describe_columns,
    event_id_type,
    log_files,
    normal_schema,
    partition_of,
    read_batches,
)
from flywheel_core.experiments.memory import reused_memory
from flywheel_core.experiments.users import Sums, Window, sum_users

Aggregator = Callable[["Log", "Log", Window], Sums]
"""Who sums over the users: this machine (`aggregate`) or a cluster (`spread`)."""

PARTITION_ROWS = 1 << 18
"""Rows of both logs that a partition aims at: about 30 MB while it is summed, and a hash table
that fits the processor's cache."""
MAX_PARTITIONS = 512
OTHER_FILES = 128
"""Files that the process may hold open beside the spill's."""
MIN_PARTITIONS = 16
"""However few files are allowed: with less, a partition would be a large part of the logs."""
NUM_THREADS = 2


@dataclass(frozen=True)
class Log:
    """One log: its files, the columns to read and those that are not known."""

    name: LogName
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    ignored: tuple[str, ...]
    event_id: pa.DataType | None

    @property
    def schema(self) -> pa.Schema:
        return normal_schema(self.name, self.columns, self.event_id)

    @property
    def num_rows(self) -> int:
        return sum(pq.read_metadata(path).num_rows for path in self.files)

    def batches(self) -> Iterator[pa.Table]:
        return read_batches(self.files, self.name, self.columns, self.event_id)


def open_log(name: LogName, folder: Path, guardrails: Sequence[str] = ()) -> Log:
    """The log below `folder`; an unreadable file or a missing column is an `InputDataError`."""
    files = log_files(folder)
    found = columns_of(files)
    wanted, ignored = describe_columns(name, found, guardrails)
    return Log(name, files, tuple(wanted), tuple(ignored), event_id_type(files, found))


def aggregate(
    exposures: Log,
    events: Log,
    window: Window,
    *,
    scratch: Path | None = None,
    num_threads: int = NUM_THREADS,
    partition_rows: int = PARTITION_ROWS,
) -> Sums:
    """The sums over all users. The spill goes to `scratch` (default: the system's)."""
    rows = exposures.num_rows + events.num_rows
    num_partitions = min(_most_partitions(), -(-rows // partition_rows))
    total = Sums()
    if num_partitions <= 1:
        total.add(sum_users(_whole(exposures), _whole(events), window))
        return total
    with reused_memory(), tempfile.TemporaryDirectory(prefix="flywheel-ab-", dir=scratch) as folder:
        try:
            # A thread a log: each log's rows keep their order, so nothing depends on timing.
            with ThreadPoolExecutor(num_threads) as pool:
                spilled = list(
                    pool.map(
                        lambda log: _spill(log, Path(folder), num_partitions), (exposures, events)
                    )
                )
        except OSError as error:
            raise _spill_error(error, folder, rows, num_partitions) from error

        def one(number: int) -> Sums:
            return sum_users(spilled[0].take(number), spilled[1].take(number), window)

        with ThreadPoolExecutor(num_threads) as pool:
            for part in pool.map(one, range(num_partitions)):
                total.add(part)
    return total


def _most_partitions() -> int:
    """Both logs are spilled at once, and each holds a file open for each of its partitions."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return MAX_PARTITIONS
    return max(MIN_PARTITIONS, min(MAX_PARTITIONS, (allowed - OTHER_FILES) // 2))


def _spill_error(error: OSError, folder: str, rows: int, num_partitions: int) -> Exception:
    """What a spill that failed is told as."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            f"{folder}: no space is left for the spill of {rows:,} rows; give --scratch a "
            "folder with room for the logs' uncompressed size"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return ConfigError(
            f"{folder}: too many open files (this process may hold {allowed}, the spill needs "
            f"{2 * num_partitions} of them); raise the limit, for example by `ulimit -n 4096`"
        )
    return error


def _whole(log: Log) -> pa.Table:
    return pa.concat_tables([log.schema.empty_table(), *log.batches()])


@dataclass(frozen=True)
class _Spill:
    """A log's partitions, one Arrow file each."""

    folder: Path
    schema: pa.Schema

    def path(self, number: int) -> Path:
        return self.folder / f"{number:04d}.arrow"

    def take(self, number: int) -> pa.Table:
        """A partition, whose file is gone afterwards."""
        path = self.path(number)
        with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
            table = reader.read_all()
        path.unlink()
        return table


def _spill(log: Log, folder: Path, num_partitions: int) -> _Spill:
    spill = _Spill(folder / log.name, log.schema)
    spill.folder.mkdir()
    with ExitStack() as stack:
        writers = [
            stack.enter_context(pa.ipc.new_stream(str(spill.path(number)), log.schema))
            for number in range(num_partitions)
        ]
        for batch in log.batches():
            for number, piece in split(batch, num_partitions):
                writers[number].write_table(piece)
    return spill


def split(batch: pa.Table, num_partitions: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a piece by the partition of their user, in their order."""
    number = partition_of(batch.column("user_id"), num_partitions)
    order = np.argsort(number, kind="stable")
    sorted_batch = batch.take(pa.array(order))
    counts = np.bincount(number, minlength=num_partitions)
    ends = np.cumsum(counts)
    for partition in np.flatnonzero(counts):
        start = ends[partition] - counts[partition]
        yield int(partition), sorted_batch.slice(start, counts[partition])


def first_exposure_us(exposures: Log) -> int:
    """The earliest time in the exposure log (microseconds since 1970), from the files' footers
    where these say it."""
    earliest: list[int] = []
    for path in exposures.files:
        found = _from_footer(path)
        if found is None:
            column = ("exposed_at",)
            for batch in read_batches((path,), "exposures", column, None):
                if batch.num_rows:
                    earliest.append(pa.compute.min(batch.column("exposed_at")).as_py())
        else:
            earliest += found
    if not earliest:
        raise InputDataError(
            "exposures: the log has no row, so nobody was exposed; wait for the first day"
        )
    return min(earliest)


def _from_footer(path: Path) -> list[int] | None:
    """Each row group's earliest exposure; None where the footer does not say all of them."""
    metadata = pq.read_metadata(path)
    kind = pq.read_schema(path).field("exposed_at").type
    if not pa.types.is_timestamp(kind):
        return None
    # By the path: a nested column before it takes several places.
    leaves = [metadata.schema.column(one).path for one in range(metadata.num_columns)]
    place = leaves.index("exposed_at")
    found = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(place).statistics
        if metadata.row_group(group).num_rows == 0:
            continue
        if statistics is None or not statistics.has_min_max:
            return None
        moment = pa.scalar(statistics.min, kind)
        found.append(moment.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()).as_py())
    return found
