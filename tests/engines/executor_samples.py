"""A table of rows, and functions over it that a Ray worker can import."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_core.engines.mapping import MapJob, Mapped

ROWS = pa.schema([("number", pa.int64()), ("text", pa.string())])
OUTPUTS = {"kept": ROWS, "odd": ROWS}


def sort_by_parity(batch: pa.Table) -> Mapped:
    """Even rows are kept in capitals, odd ones as they are."""
    is_odd = pc.equal(pc.bit_wise_and(batch["number"], 1), 1)
    kept = batch.filter(pc.invert(is_odd))
    kept = kept.set_column(1, "text", pc.utf8_upper(kept["text"]))
    odd = batch.filter(is_odd)
    return Mapped({"kept": kept, "odd": odd}, {"rows": batch.num_rows, "odd": odd.num_rows})


def slowly_on_a_node(batch: pa.Table, log: Path, timeout_s: float = 120) -> Mapped:
    """No shard goes on before two nodes have begun one, and none on the node named in `dying`, so
    that it is inside a shard when it is killed, however busy the machine. `log` holds which node
    began and ended which shard (100 rows, so its last batch has 10)."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    shard = batch["number"][0].as_py() // 100
    log.mkdir(exist_ok=True)
    (log / f"{shard}-{node}-started").touch()
    deadline_s = time.monotonic() + timeout_s
    while len(nodes_in(log)) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    time.sleep(0.15)
    dying = log.with_name("dying")
    while dying.exists() and dying.read_text() == node:
        time.sleep(0.05)
    if batch.num_rows == 10:
        (log / f"{shard}-{node}-ended").touch()
    return sort_by_parity(batch)


def nodes_in(log: Path) -> set[str]:
    return {path.name.split("-")[1] for path in log.glob("*-started")}


def failing_at_250(batch: pa.Table) -> Mapped:
    """Fails on one row, with a message that quotes it."""
    if 250 in batch["number"].to_pylist():
        raise KeyError("the secret of row 250")
    return sort_by_parity(batch)


def killing_itself_once(batch: pa.Table, marker: Path) -> Mapped:
    """The process dies in the middle of a shard, the first time."""
    if 250 in batch["number"].to_pylist() and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return sort_by_parity(batch)


def write_rows(path: Path, first: int, count: int, row_group_rows: int = 50) -> Path:
    numbers = range(first, first + count)
    table = pa.table({"number": list(numbers), "text": [f"row {n}" for n in numbers]}, schema=ROWS)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_rows)
    return path


def make_job(folder: Path, inputs: tuple[Path, ...], **changes: Any) -> MapJob:
    arguments: dict[str, Any] = {
        "name": "parity",
        "function": sort_by_parity,
        "config": {"version": 1},
        "inputs": inputs,
        "columns": ROWS,
        "outputs": OUTPUTS,
        "folder": folder,
        "shard_rows": 100,
        "batch_rows": 30,
    }
    return MapJob(**(arguments | changes))


def all_bytes(folder: Path) -> dict[str, bytes]:
    """Every output and mark by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
