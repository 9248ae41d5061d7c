"""The logs of a large experiment, and both ways to read them, each in a process of its own.

`python -m tests.bench.experiment_logs ours|pandas|analyze FOLDER` prints one line of JSON: wall and
CPU seconds, peak memory in bytes, and the sums found, which must be the same. `ours` and `pandas`
do the same work, the last day's sums; `analyze` is what ships, `flywheel ab analyze --json`: seven
days, CUPED and breakdowns.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = np.datetime64("2026-01-05T00:00:00", "us").astype(np.int64)
DAY_US = 86_400_000_000
NUM_DAYS = 7
KINDS = {
    "locale": ["en_US", "es_MX", "pt_BR", "hi_IN", "id_ID"],
    "language": ["en", "es", "pt"],
    "jtbd": ["chat", "advice", "play"],
    "user_kind": ["new", "returning"],
}


def write_logs(folder: Path, num_users: int, seed: int = 0) -> tuple[int, int]:
    """Seven days of both logs; returns the numbers of rows. A user meets the experiment on each
    day they come, and nine times in ten sends something then; one event row a user and day, as a
    product that counts before it logs writes them."""
    rng = np.random.default_rng(seed)
    test = rng.random(num_users) < 0.5
    chance = 1 / (1 + np.exp(-rng.normal(-0.2, 1.3, num_users) - 0.05 * test))
    rate = np.exp(rng.normal(1.2, 0.9, num_users) + 0.05 * test)
    first = np.minimum(rng.geometric(0.45, num_users) - 1, NUM_DAYS - 1)
    kinds = {name: rng.integers(0, len(values), num_users) for name, values in KINDS.items()}
    pre_days, pre_sends = rng.binomial(7, chance), rng.poisson(3 * rate)
    rows = [0, 0]
    for name in ("exposures", "events"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for day in range(NUM_DAYS):
        comes = (first == day) | ((first < day) & (rng.random(num_users) < chance))
        users = rng.permutation(np.flatnonzero(comes))
        at = START + day * DAY_US + rng.integers(0, DAY_US // 2, len(users))
        arm = pa.array(["control", "test"]).take(pa.array(test[users].astype(np.int8)))
        exposures = {"user_id": _ids(users), "arm": arm, "exposed_at": _times(at)}
        for kind, values in KINDS.items():
            exposures[kind] = pa.array(values).take(pa.array(kinds[kind][users]))
        exposures["pre_engaged_days"] = pa.array(pre_days[users].astype(np.int8))
        exposures["pre_sends"] = pa.array(pre_sends[users].astype(np.int32))
        pq.write_table(pa.table(exposures), folder / f"exposures/day={day}.parquet")
        users = users[rng.random(len(users)) < 0.9]
        at = START + day * DAY_US + rng.integers(DAY_US // 2, DAY_US, len(users))
        events = {
            "user_id": _ids(users),
            "at": _times(at),
            "event_id": pa.array(rows[1] + np.arange(len(users))),
            "sends": pa.array((1 + rng.poisson(rate[users])).astype(np.int32)),
        }
        pq.write_table(pa.table(events), folder / f"events/day={day}.parquet")
        rows = [rows[0] + len(comes.nonzero()[0]), rows[1] + len(users)]
    return rows[0], rows[1]


def _ids(users: np.ndarray) -> pa.Array:
    """`u000012345`: ten bytes each, made without a Python string a user."""
    digits = (users[:, None] // 10 ** np.arange(8, -1, -1)) % 10
    text = np.empty((len(users), 10), np.uint8)
    text[:, 0], text[:, 1:] = ord("u"), digits + ord("0")
    offsets = np.arange(0, 10 * (len(users) + 1), 10, dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text.tobytes())]
    return pa.StringArray.from_buffers(len(users), buffers[1], buffers[2])


def _times(at: np.ndarray) -> pa.Array:
    return pa.array(at).cast(pa.timestamp("us", "UTC"))


def read_ours(folder: Path) -> dict[str, list[int]]:
    """Our aggregation of what `read_with_pandas` computes, from the same columns."""
    from flywheel_core.experiments.aggregate import aggregate, open_log
    from flywheel_core.experiments.users import Cell, Window

    needed = ("user_id", "arm", "exposed_at")
    exposures = replace(open_log("exposures", folder / "exposures"), columns=needed)
    logs = exposures, open_log("events", folder / "events")
    window = Window(int(START), NUM_DAYS, (NUM_DAYS - 1,), 60_000_000, 1000)
    sums = aggregate(*logs, window, scratch=folder)
    found = [sums.moments[Cell(NUM_DAYS - 1, place)] for place in (0, 1)]
    return {
        arm: [int(one) for one in (*matrix[0], matrix[1, 1], matrix[3, 3])]
        for arm, matrix in zip(("control", "test"), found, strict=True)
    }


def analyze_all(folder: Path) -> dict[str, list[int]]:
    """`flywheel ab analyze --json` itself; the numbers of users that it read."""
    from typer.testing import CliRunner

    from flywheel_core.cli import app

    command = ["ab", "analyze", "--exposures", str(folder / "exposures"), "--events"]
    command += [str(folder / "events"), "--scratch", str(folder), "--json"]
    done = CliRunner().invoke(app, command)
    if done.exit_code:
        raise RuntimeError(f"ab analyze: {done.output[-2000:]}")
    found = json.loads(done.stdout)
    if not found["exploratory"]:
        raise RuntimeError("ab analyze: no breakdown was read")
    read = found["days"][-1]["metrics"]["breadth"]
    return {arm: [read[arm]["num_users"]] for arm in ("control", "test")}


def read_with_pandas(folder: Path) -> dict[str, list[int]]:
    """The same in the pandas one writes: first exposure, join, duplicates, bots, both arms."""
    import pandas as pd

    exposures = pd.read_parquet(folder / "exposures", columns=["user_id", "arm", "exposed_at"])
    met = exposures.sort_values("exposed_at").groupby("user_id")
    users = met.agg(first=("exposed_at", "first"), arm=("arm", "first"), arms=("arm", "nunique"))
    users = users[users["arms"] == 1][["first", "arm"]]
    del exposures, met
    columns = ["user_id", "at", "event_id", "sends"]
    events = pd.read_parquet(folder / "events", columns=columns)
    events = events.drop_duplicates(["user_id", "event_id"])
    events = events.merge(users, left_on="user_id", right_index=True)
    events = events[events["at"] >= events["first"] - pd.Timedelta(seconds=60)]
    start = pd.Timestamp(int(START), unit="us", tz="UTC")
    events["day"] = (events["at"] - start).dt.days
    by_day = events.groupby(["user_id", "day"])["sends"].sum().reset_index()
    del events
    users = users.drop(by_day[by_day["sends"] > 1000]["user_id"].unique())
    engaged = by_day[by_day["sends"] > 0].groupby("user_id")
    users = users.join(engaged.agg(days=("day", "nunique"), sends=("sends", "sum")))
    users = users.fillna({"days": 0, "sends": 0}).astype({"days": "int64", "sends": "int64"})
    return {
        str(arm): [
            len(rows),
            int(rows["days"].sum()),
            int((rows["sends"] > 0).sum()),
            int(rows["sends"].sum()),
            int((rows["days"] ** 2).sum()),
            int((rows["sends"] ** 2).sum()),
        ]
        for arm, rows in users.groupby("arm")
    }


SIDES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ours": read_ours,
    "pandas": read_with_pandas,
    "analyze": analyze_all,
}


def _peak_bytes() -> int:
    """This program's own peak. `ru_maxrss` would begin at the memory of the process that started
    it: Linux keeps that maximum through `exec`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    started_s = time.monotonic()
    sums = SIDES[sys.argv[1]](Path(sys.argv[2]))
    seconds = time.monotonic() - started_s
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": _peak_bytes(),
        "sums": sums,
    }
    print(json.dumps(found))
