"""The aggregation on a cluster: the same sums, by any executor (Ray Data, or this process).

Two mappings spread the rows of both logs over partitions of users, a third sums each partition.
All three are `engines.mapping` jobs: a node that dies loses its shards, not the work, and starting
again goes on from the first missing one. Sums of integers do not depend on who added them up, so
the result equals that of `aggregate` to the last digit.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.engines.base import Progress
from flywheel_core.engines.config import ExecutorConfig
from flywheel_core.engines.executor import Executor, make_executor
from flywheel_core.engines.mapping import MapJob, Mapped, MapResult
from flywheel_core.experiments.aggregate import MAX_PARTITIONS, Aggregator, Log, split
from flywheel_core.experiments.logs import normalise
from flywheel_core.experiments.users import Cell, Sums, Window, sum_users

SHARD_ROWS = 2_000_000
BATCH_ROWS = 1 << 17
ROWS_PER_PARTITION = 1 << 22
"""A partition is one file a shard: few and large, unlike the spill of one machine."""

INDEX = pa.schema(
    [
        pa.field("number", pa.int32(), nullable=False),
        pa.field("exposures", pa.list_(pa.string()), nullable=False),
        pa.field("events", pa.list_(pa.string()), nullable=False),
    ]
)
"""One partition a row: the files that hold it."""

PARTS = pa.schema(
    [
        pa.field("what", pa.string(), nullable=False),
        pa.field("day", pa.int32(), nullable=False),
        pa.field("arm", pa.int32(), nullable=False),
        pa.field("dimension", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("column", pa.int32(), nullable=False),
        pa.field("total", pa.int64(), nullable=False),
    ]
)
"""A partition's `Sums` as rows. `what` is `moment`, `histogram` (row: engaged days, column: sends)
or the name of a count."""


def spread(
    exposures: Log,
    events: Log,
    window: Window,
    *,
    executor: Executor,
    folder: Path,
    num_partitions: int,
    progress: Progress,
) -> Sums:
    """The sums over all users. `folder` is the work folder, shared by all nodes; what a run that
    was cut off left there is used."""
    found = [
        executor.run(_partitioning(log, folder / log.name, num_partitions), progress)
        for log in (exposures, events)
    ]
    index = folder / "partitions.parquet"
    _write_index(index, found, num_partitions)
    job = MapJob(
        name="sums by partition",
        function=partial(_sum_partition, window=window),
        config={"window": asdict(window)},
        inputs=(index,),
        columns=INDEX,
        outputs={"sums": PARTS},
        folder=folder / "sums",
        shard_rows=1,
        batch_rows=1,
    )
    total = Sums()
    for path in executor.run(job, progress).files["sums"]:
        total.add(_from_rows(pq.read_table(path), len(window.columns)))
    return total


def spread_over_ray(folder: Path, config: ExecutorConfig | None = None) -> Aggregator:
    """An aggregator on the Ray cluster of this process, or on one started on this machine."""
    executor = make_executor(config or ExecutorConfig(kind="ray_data"))

    def aggregator(exposures: Log, events: Log, window: Window) -> Sums:
        rows = exposures.num_rows + events.num_rows
        return spread(
            exposures,
            events,
            window,
            executor=executor,
            folder=folder,
            num_partitions=min(MAX_PARTITIONS, 1 + rows // ROWS_PER_PARTITION),
            progress=lambda done, total, what="": None,
        )

    return aggregator


def _partitioning(log: Log, folder: Path, num_partitions: int) -> MapJob:
    names = [_partition_name(number) for number in range(num_partitions)]
    raw = pq.read_schema(log.files[0])
    return MapJob(
        name=f"{log.name} by user",
        function=partial(
            _partition, name=log.name, schema=log.schema, num_partitions=num_partitions
        ),
        config={"columns": list(log.columns), "num_partitions": num_partitions},
        inputs=log.files,
        columns=pa.schema([raw.field(name) for name in log.columns]),
        outputs=dict.fromkeys(names, log.schema),
        folder=folder,
        shard_rows=SHARD_ROWS,
        batch_rows=BATCH_ROWS,
    )


def _partition_name(number: int) -> str:
    return f"p{number:04d}"


def _partition(batch: pa.Table, name: str, schema: pa.Schema, num_partitions: int) -> Mapped:
    rows = normalise(batch, schema, f"a shard of the {name}")
    return Mapped({_partition_name(n): piece for n, piece in split(rows, num_partitions)})


def _write_index(path: Path, found: list[MapResult], num_partitions: int) -> None:
    rows = [
        {
            "number": number,
            "exposures": [str(one) for one in found[0].files[_partition_name(number)]],
            "events": [str(one) for one in found[1].files[_partition_name(number)]],
        }
        for number in range(num_partitions)
    ]
    # A row group each: that is the least a shard can be.
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX), path, row_group_size=1)


def _sum_partition(batch: pa.Table, window: Window) -> Mapped:
    (row,) = batch.to_pylist()
    exposures, events = (
        pa.concat_tables([pq.read_table(path) for path in row[name]])
        for name in ("exposures", "events")
    )
    return Mapped({"sums": _to_rows(sum_users(exposures, events, window))})


def _to_rows(sums: Sums) -> pa.Table:
    rows: list[tuple[Any, ...]] = []
    for cell, matrix in sums.moments.items():
        for (row, column), total in zip(
            ((i, j) for i in range(len(matrix)) for j in range(len(matrix))),
            matrix.ravel().tolist(),
            strict=True,
        ):
            rows.append(
                ("moment", cell.day, cell.arm, cell.dimension, cell.value, row, column, total)
            )
    rows += [(what, day, arm, "", "", 0, 0, n) for (what, day, arm), n in sums.counts.items()]
    rows += [("histogram", 0, arm, "", "", d, s, n) for (arm, d, s), n in sums.histogram.items()]
    columns = list(zip(*rows, strict=True)) or [()] * len(PARTS)
    return pa.table([list(column) for column in columns], schema=PARTS)


def _from_rows(table: pa.Table, size: int) -> Sums:
    sums = Sums()
    for one in table.to_pylist():
        if one["what"] == "moment":
            cell = Cell(one["day"], one["arm"], one["dimension"], one["value"])
            matrix = sums.moments.setdefault(cell, np.zeros((size, size), np.int64))
            matrix[one["row"], one["column"]] = one["total"]
        elif one["what"] == "histogram":
            sums.histogram[one["arm"], one["row"], one["column"]] += one["total"]
        else:
            sums.counts[one["what"], one["day"], one["arm"]] += one["total"]
    return sums
