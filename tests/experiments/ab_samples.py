"""Logs of small experiments, and an independent reference: a loop over rows, in plain Python."""

import datetime
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST = datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)

EXPOSURES = pa.schema(
    [
        ("user_id", pa.string()),
        ("arm", pa.string()),
        ("exposed_at", pa.timestamp("us", "UTC")),
        ("locale", pa.string()),
        ("user_kind", pa.string()),
        ("pre_engaged_days", pa.int64()),
        ("pre_sends", pa.int64()),
    ]
)
EVENTS = pa.schema(
    [
        ("user_id", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("event_id", pa.int64()),
        ("sends", pa.int64()),
        ("reports", pa.int64()),
    ]
)


def moment(day: float) -> datetime.datetime:
    """A time `day` days after the window's start."""
    return FIRST + day * DAY


def exposure(user: str, arm: str, day: float, **more: Any) -> dict[str, Any]:
    row = {"locale": "en_US", "user_kind": "new", "pre_engaged_days": 0, "pre_sends": 0}
    return {"user_id": user, "arm": arm, "exposed_at": moment(day), **row, **more}


def event(user: str, day: float, event_id: int, sends: int = 1, reports: int = 0) -> dict[str, Any]:
    return {
        "user_id": user,
        "at": moment(day),
        "event_id": event_id,
        "sends": sends,
        "reports": reports,
    }


@dataclass
class Logs:
    """Rows of both logs; `write` puts them into files by day, in random order."""

    exposures: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path, seed: int = 0) -> tuple[Path, Path]:
        rng = np.random.default_rng(seed)
        for name, rows, at, schema in (
            ("exposures", self.exposures, "exposed_at", EXPOSURES),
            ("events", self.events, "at", EVENTS),
        ):
            by_day = defaultdict(list)
            for row in rows:
                by_day[row[at].date()].append(row)
            (folder / name).mkdir(parents=True)
            for day, some in by_day.items():
                order = rng.permutation(len(some))
                table = pa.Table.from_pylist([some[i] for i in order], schema=schema)
                pq.write_table(table, folder / name / f"day={day}.parquet", row_group_size=97)
        return folder / "exposures", folder / "events"


def clean_logs(
    num_users: int = 400, num_days: int = 7, seed: int = 0, lift: float = 0.0, harm: float = 0.0
) -> Logs:
    """Users of both arms, all of them exposed on day 0, who engage and send more in test by
    `lift`, and report more by `harm`."""
    rng = np.random.default_rng(seed)
    logs = Logs()
    number = 0
    for index in range(num_users):
        arm = "test" if index % 2 else "control"
        user = f"u{index:05d}"
        activity = rng.beta(2, 2)
        more = 1 + lift * (arm == "test")
        logs.exposures.append(
            exposure(
                user,
                arm,
                rng.uniform(0, 0.4),
                locale=str(rng.choice(["en_US", "es_MX"])),
                user_kind=str(rng.choice(["new", "returning"])),
                pre_engaged_days=int(rng.binomial(7, activity)),
                pre_sends=int(rng.poisson(20 * activity)),
            )
        )
        for day in range(num_days):
            if rng.random() < min(1.0, activity * more):
                sends = 1 + int(rng.poisson(4 * activity * more))
                reports = int(rng.random() < 0.02 + harm * (arm == "test"))
                at = day + rng.uniform(0.5, 0.9)
                logs.events.append(event(user, at, number, sends, reports))
                number += 1
    return logs


def messy_logs(seed: int = 0) -> Logs:
    """The clean ones with everything that may be wrong in a log that can still be read."""
    rng = np.random.default_rng([seed, 1])
    logs = clean_logs(600, seed=seed)
    for index in range(0, 600, 7):  # met again on later days, some with other attributes
        first = logs.exposures[index]
        again = {**first, "exposed_at": moment(rng.uniform(1, 6)), "locale": "es_ES"}
        logs.exposures.append(again)
    for index, day in ((1, 2.5), (44, 0.01), (45, 5.5)):  # these meet the other arm too
        other = "control" if index % 2 else "test"
        logs.exposures.append(exposure(f"u{index:05d}", other, day))
    for index in range(600, 640):  # exposed late, with events before, and a little before, that
        day = float(rng.uniform(1, 5))
        logs.exposures.append(exposure(f"u{index:05d}", "test" if index % 2 else "control", day))
        for offset in (-0.4, -30 / 86_400, 0.3):
            logs.events.append(event(f"u{index:05d}", day + offset, int(rng.integers(1e9)), 3))
    logs.events += [event("stranger", 1.5, 10**10), event("u00003", 7.5, 10**10 + 1)]
    logs.events += [dict(row) for row in logs.events[:200:9]]  # duplicates
    logs.events += [event("u00010", 3.1, 2 * 10**10 + i, 400) for i in range(4)]  # a bot from day 3
    logs.exposures.append(exposure("early", "test", -0.5))
    return logs


@dataclass
class Reference:
    """What a loop over all rows finds, by the definitions in words."""

    vectors: dict[str, dict[str, tuple[int, ...]]]
    both: int
    bots: dict[str, int]


def reference(logs: Logs, through_day: int, max_sends_per_day: int = 1000) -> Reference:
    """User vectors (engaged days, engaged, sends, pre days, pre sends, reports) by arm at the end
    of a day, by a dictionary for each user."""
    end, skew = moment(through_day + 1), datetime.timedelta(seconds=60)
    met: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in logs.exposures:
        if FIRST <= row["exposed_at"] < end:
            met[row["user_id"]].append(row)
    both = {user for user, rows in met.items() if len({row["arm"] for row in rows}) > 1}
    seen: set[tuple[str, int]] = set()
    sends: dict[str, dict[datetime.date, int]] = defaultdict(lambda: defaultdict(int))
    reports: dict[str, int] = defaultdict(int)
    for row in logs.events:
        user = row["user_id"]
        if user not in met or row["at"] >= end or (user, row["event_id"]) in seen:
            continue
        first = min(one["exposed_at"] for one in met[user])
        if row["at"] < first - skew:
            continue
        seen.add((user, row["event_id"]))
        sends[user][max(row["at"], first).date()] += row["sends"]
        reports[user] += row["reports"]
    bots = {
        user
        for user, by_day in sends.items()
        if max(by_day.values()) > max_sends_per_day and user not in both
    }
    found: dict[str, dict[str, tuple[int, ...]]] = {"control": {}, "test": {}}
    num_bots = {"control": 0, "test": 0}
    for user, rows in met.items():
        first_row = min(rows, key=lambda row: row["exposed_at"])
        if user in bots:
            num_bots[first_row["arm"]] += 1
        elif user not in both:
            total = sum(sends[user].values())
            found[first_row["arm"]][user] = (
                1,
                sum(1 for one in sends[user].values() if one > 0),
                int(total > 0),
                total,
                first_row["pre_engaged_days"],
                first_row["pre_sends"],
                reports[user],
            )
    return Reference(found, len(both), num_bots)


def met_every_day(logs: Logs) -> Logs:
    """Two users meet the experiment on every day, as a cumulative log has it."""
    for day in range(1, 7):
        logs.exposures += [exposure("u00006", "control", day), exposure("u00007", "test", day)]
    return logs
