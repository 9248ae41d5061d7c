"""Experiments: how fast and in how much memory they are read, and how often they mislead."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench import Row
from tests.bench.experiment_logs import write_logs
from tests.bench.simulations import (
    ASSUMPTIONS_FAIL,
    ASSUMPTIONS_HOLD,
    Coverage,
    coverage,
    daily_looks,
)

NUM_USERS = int(os.environ.get("BENCH_EXPERIMENT_USERS", "10000000"))
OURS_REPEATS = 3


def rows() -> Iterator[Row]:
    """`ab_vs_pandas_speed`, `ab_vs_pandas_memory`, `ab_seconds_per_10m_users`,
    `fieller_coverage`, `sequential_false_alarm_rate`."""
    yield _coverage()
    yield _false_alarms()
    yield from _reading()


def _reading() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="fw-bench-ab-") as name:
        folder = Path(name)
        exposures, events = write_logs(folder, NUM_USERS)
        ours = [_side("ours", folder) for _ in range(OURS_REPEATS)]
        pandas = _side("pandas", folder)
    if any(one["sums"] != pandas["sums"] for one in ours):
        raise RuntimeError(f"the sums differ: {ours[0]['sums']} and {pandas['sums']}")
    seconds = statistics.median(one["seconds"] for one in ours)
    peak = max(one["peak_bytes"] for one in ours)
    size = (
        f"{NUM_USERS:,} users, {exposures:,} exposures, {events:,} event rows, 7 days, equal sums; "
        f"ours {_cost(seconds, ours[-1]['cpu_seconds'], peak)} (median of {OURS_REPEATS}), pandas "
        f"{_cost(pandas['seconds'], pandas['cpu_seconds'], pandas['peak_bytes'])}, a process each"
    )
    speed = pandas["seconds"] / seconds
    memory = peak / pandas["peak_bytes"]
    yield Row("ab_vs_pandas_speed", speed, "x", ">= 5", speed >= 5, size)
    yield Row("ab_vs_pandas_memory", memory, "x", "<= 0.34", memory <= 0.34, size)
    per_10m = seconds * 10_000_000 / NUM_USERS
    yield Row("ab_seconds_per_10m_users", per_10m, "s", "", None, size)


def _cost(seconds: float, cpu_seconds: float, peak_bytes: int) -> str:
    return f"{seconds:.1f} s wall, {cpu_seconds:.1f} s CPU, {peak_bytes / 1e9:.2f} GB"


def _side(name: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.experiment_logs", name, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found['seconds']:.1f} s, {found['peak_bytes'] / 1e9:.2f} GB", flush=True)
    return found


def _coverage() -> Row:
    held = [
        coverage(one, num_experiments=_experiments(one.shape), seed=1, num_bootstrapped=1000)
        for one in ASSUMPTIONS_HOLD
    ]
    failed = [
        coverage(one, num_experiments=_experiments(one.shape), seed=2, num_bootstrapped=1000)
        for one in ASSUMPTIONS_FAIL
    ]
    worst = max((one.fieller.estimate for one in held), key=lambda rate: abs(rate - 0.95))
    said = "; ".join(_said(one) for one in (*held, *failed))
    return Row(
        "fieller_coverage",
        worst,
        "share",
        "0.95 ± 0.005 where its assumptions hold",
        abs(worst - 0.95) <= 0.005,
        f"the worst of the first three; then where they fail: {said}",
    )


def _experiments(shape: str) -> int:
    return 100_000 if shape == "normal" else 20_000


def _said(found: Coverage) -> str:
    one = f"{found.scenario.name} (n = {found.scenario.num_users:,}): Fieller "
    one += f"{found.fieller.estimate:.4f}, delta {found.delta.estimate:.4f}"
    if found.bootstrap is not None:
        one += f", bootstrap {found.bootstrap.estimate:.3f} (of 1,000)"
    return one


def _false_alarms() -> Row:
    found = daily_looks(num_experiments=5000, users_per_arm=2000, seed=7)
    worst = max((one.sequential for one in found.values()), key=lambda one: one.upper)
    said = "; ".join(
        f"{name}: always valid {one.sequential.estimate:.4f}, naive daily look "
        f"{one.naive.estimate:.4f}, last day only {one.last_day_only.estimate:.4f}"
        for name, one in found.items()
    )
    return Row(
        "sequential_false_alarm_rate",
        worst.upper,
        "share",
        "upper 95 % bound <= 0.06",
        worst.upper <= 0.06,
        f"5,000 A/A experiments of 2,000 users an arm, looked at on 7 days; {said}",
    )
