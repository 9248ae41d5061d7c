"""Curation of a day's traffic: speed against a bare loop, growth, and memory.

`BENCH_CURATION_ROWS` sets the size (1,000,000); the growth is over a quarter, a half and all of
it, and the memory is compared with twice as much.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tests.bench import Row, embedding, pii
from tests.bench.conversations import write_conversations

GOAL_ROWS = 1_000_000
ROWS = int(os.environ.get("BENCH_CURATION_ROWS", "1000000"))
SAMPLE_S = 0.5
GIB = 1 << 30
EXPONENT_MIN = 0.5
"""A smaller slope says that something disturbed the smaller runs: then nothing is claimed."""
EXPONENT_MAX, RATIO_MAX, PEAK_GIB_MAX, FLAT_MAX = 1.1, 1.3, 4.0, 1.2


@dataclass(frozen=True)
class Measured:
    """A run's own figures, and the largest sum of PSS over all its processes."""

    said: dict[str, Any]
    peak_gib: float

    @property
    def seconds(self) -> float:
        return float(self.said["phase_one_s"] + self.said["phase_three_s"])


def rows() -> Iterator[Row]:
    """`curation_rows_per_s`, `curation_vs_bare_loop`, `curation_growth_exponent`, …"""
    sizes = (ROWS // 4, ROWS // 2, ROWS)
    with tempfile.TemporaryDirectory(prefix="fw-bench-curation-") as scratch:
        folder = Path(scratch)
        runs = {size: _ours(folder, size) for size in sizes}
        bare = _measure("bare", _traffic(folder, ROWS))
        yield from _speed(runs[ROWS], bare)
        yield _growth(runs)
        yield from _memory(runs[ROWS], _ours(folder, 2 * ROWS))
    yield from embedding.rows()
    yield from pii.rows()


def _speed(ours: Measured, bare: Measured) -> Iterator[Row]:
    said = ours.said
    rate = ROWS / ours.seconds
    how = (
        f"{ROWS:,} conversations, phases I and III: {said['phase_one_s']:.1f} s on Ray Data with 2 "
        f"workers + {said['phase_three_s']:.1f} s; {said['filtered']:,} pass, {said['kept']:,} kept"
    )
    yield Row("curation_rows_per_s", rate, "rows/s", "", None, how)
    ratio = ours.seconds / bare.seconds
    how = (
        f"same files, rules and solver; bare: two processes, {bare.said['phase_one_s']:.1f} + "
        f"{bare.said['phase_three_s']:.1f} s, writes nothing; Ray's start of "
        f"{said['start_s']:.1f} s not counted"
    )
    yield Row(
        "curation_vs_bare_loop", ratio, "x", f"<= {RATIO_MAX}", _holds(ratio <= RATIO_MAX), how
    )


def _growth(runs: dict[int, Measured]) -> Row:
    times = [run.seconds for run in runs.values()]
    exponent = float(np.polyfit(np.log(list(runs)), np.log(times), 1)[0])
    said = ", ".join(f"{size:,}: {run.seconds:.1f} s" for size, run in runs.items())
    return Row(
        "curation_growth_exponent",
        exponent,
        "",
        f"<= {EXPONENT_MAX}",
        _holds(exponent <= EXPONENT_MAX) if exponent >= EXPONENT_MIN else None,
        f"slope of log time over log rows, phases I and III: {said}",
    )


def _memory(one: Measured, two: Measured) -> Iterator[Row]:
    how = "largest sum of PSS over all processes, Ray's own included, its object store capped at 1"
    yield Row(
        "curation_peak_rss_gib",
        one.peak_gib,
        "GiB",
        f"<= {PEAK_GIB_MAX}",
        _holds(one.peak_gib <= PEAK_GIB_MAX),
        how,
    )
    ratio = two.peak_gib / one.peak_gib
    how = f"{2 * ROWS:,} rows: {two.peak_gib:.2f} GiB against {one.peak_gib:.2f}"
    yield Row(
        "curation_rss_2m_over_1m", ratio, "x", f"<= {FLAT_MAX}", _holds(ratio <= FLAT_MAX), how
    )


def _holds(met: bool) -> bool | None:
    """The goals are for the full size; of a smaller run nothing is claimed."""
    return met if ROWS >= GOAL_ROWS else None


def _ours(folder: Path, size: int) -> Measured:
    work = folder / "work"
    measured = _measure("ours", _traffic(folder, size), work)
    shutil.rmtree(work)
    return measured


def _traffic(folder: Path, size: int) -> Path:
    traffic = folder / f"traffic-{size}"
    if not traffic.exists():
        write_conversations(traffic, size)
    return traffic


def _measure(kind: str, *paths: Path) -> Measured:
    """Run it in a process of its own, and watch the memory of the whole family."""
    command = [sys.executable, "-m", "tests.bench.curation_run", kind, *map(str, paths)]
    with tempfile.TemporaryFile("w+") as output:
        running = subprocess.Popen(command, stdout=output, text=True)
        peak = 0
        while running.poll() is None:
            peak = max(peak, _family_pss(running.pid))
            time.sleep(SAMPLE_S)
        output.seek(0)
        said = output.read()
    if running.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {running.returncode}:\n{said}")
    return Measured(json.loads(said.splitlines()[-1]), peak / GIB)


def _family_pss(pid: int) -> int:
    """Bytes of PSS of a process and all below it: shared pages are counted once over all."""
    total = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return total
