"""One measured run, in a process of its own so that its memory is its own.

    python -m tests.bench.curation_run ours FOLDER WORK     Phase I on Ray Data, Phase III
    python -m tests.bench.curation_run bare FOLDER          the same rules and solver, bare

`bare` is what somebody would write in an afternoon: two processes, each over half of the files,
the same rules on each row, then the same solver. It writes nothing and survives nothing. Prints one
line of JSON with seconds.
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.curation.columns import INDEX, IndexRows, index_of
from flywheel_core.curation.constraints import balance
from flywheel_core.curation.filters import RuleSafetyClassifier, filter_rows
from flywheel_core.curation.pipeline import TrafficFiles, Workshop, phase_one_job
from flywheel_core.engines.config import ExecutorConfig
from flywheel_core.engines.ray_executor import RayDataExecutor, join_cluster
from flywheel_core.erasure.users import NOBODY

WORKERS = 2
CAPS = {"first_turn_share_min": 0.10, "character_share_max": 0.03}


def ours(folder: Path, work: Path) -> dict[str, Any]:
    config = ExecutorConfig(kind="ray_data", num_workers=WORKERS, object_store_gib=1.0)
    traffic = TrafficFiles(tuple(sorted(folder.glob("*.parquet"))), "bench", {})
    executor = RayDataExecutor(config)
    workshop = Workshop(executor, config, work, lambda done, total, what="": None)
    started_s = time.monotonic()
    join_cluster(config)
    ready_s = time.monotonic()
    result = executor.run(phase_one_job(traffic, NOBODY, workshop), workshop.progress)
    filtered_s = time.monotonic()
    kept = _balance(IndexRows.of_files(result.files["index"]))
    return {
        "start_s": ready_s - started_s,
        "phase_one_s": filtered_s - ready_s,
        "phase_three_s": time.monotonic() - filtered_s,
        "rows": result.rows_in,
        "filtered": result.rows["kept"],
        "kept": kept,
    }


def bare(folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("*.parquet"))
    started_s = time.monotonic()
    with ProcessPoolExecutor(WORKERS) as workers:
        indices = list(workers.map(_bare_loop, [files[n::WORKERS] for n in range(WORKERS)]))
    filtered_s = time.monotonic()
    index = pa.concat_tables(indices)
    kept = _balance(IndexRows.of_table(index))
    return {
        "phase_one_s": filtered_s - started_s,
        "phase_three_s": time.monotonic() - filtered_s,
        "filtered": index.num_rows,
        "kept": kept,
    }


def _bare_loop(files: list[Path]) -> pa.Table:
    """The rules on every row of some files, and what the solver needs of those kept."""
    parts = [INDEX.empty_table()]
    classifier = RuleSafetyClassifier()
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(1_000):
            table = pa.Table.from_batches([batch])
            messages = table.column("messages").to_pylist()
            said = table.column("response").to_pylist()
            rows = [{"messages": m, "response": r} for m, r in zip(messages, said, strict=True)]
            kept = filter_rows(rows, classifier).kept
            parts.append(index_of(table.take(kept), [messages[one] for one in kept]))
    return pa.concat_tables(parts)


def _balance(rows: IndexRows) -> int:
    return len(balance(rows, range(len(rows)), **CAPS).kept)


if __name__ == "__main__":
    chosen = {"ours": ours, "bare": bare}[sys.argv[1]]
    print(json.dumps(chosen(*(Path(one) for one in sys.argv[2:]))), flush=True)
