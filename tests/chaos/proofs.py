"""From what was seen to what was violated. Every violation names its key, process and number."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import ArtifactRef, is_done, materialise, read_manifest
from flywheel_core.errors import FlywheelError
from flywheel_core.store import LocalStore
from tests.chaos.chaos_stack import SHARDS, STEPS
from tests.chaos.killer import Kill
from tests.chaos.targets import DriverCommand
from tests.chaos.watcher import DriverLife, Watcher

DUPLICATE_JOB = "duplicate job"
STOPPED_JOB = "job stopped by a restart"
SECOND_COMMIT = "second commit"
LOST_ARTIFACT = "lost artifact"
WRONG_END_STATE = "wrong end state"
REPEATED_WORK = "repeated work"

SEEN_LATE_S = 3.0
"""A killed process may be seen a moment longer, and a loser's end takes a moment to show."""

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Violation:
    """One broken promise, and the evidence."""

    kind: str
    said: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.said}"


@dataclass(frozen=True)
class Unit:
    """What a stage may lose at most: `units` of its work, out of `total`."""

    units: int
    total: int
    what: str


BOUNDS = {
    "chaos_generate": Unit(1, int(SHARDS["num_shards"]), "shards"),
    "chaos_train": Unit(int(STEPS["checkpoint_every_steps"]), int(STEPS["num_steps"]), "steps"),
}


def by_key(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Events of each key, in the order they were written."""
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event["key"]].append(event)
    return found


def never_two_jobs(events: Sequence[Event], watcher: Watcher) -> Iterator[Violation]:
    """No moment with two drivers of a key, and nothing from a worker whose successor has begun."""
    for key, pids in watcher.overlaps.items():
        yield Violation(DUPLICATE_JOB, f"key {key}: drivers {sorted(pids)} were alive at once")
    for key, found in by_key(events).items():
        for role in ("started", "resumed"):
            yield from _late_events(key, found, role)


def _late_events(key: str, events: Sequence[Event], role: str) -> Iterator[Violation]:
    """`role` is the event a process of that kind begins with; each begins when the last ended."""
    pids = [event["pid"] for event in events if event["event"] == role]
    current = 0
    for event in events:
        if event["pid"] not in pids:
            continue
        place = pids.index(event["pid"])
        if place < current:
            yield Violation(
                DUPLICATE_JOB,
                f"key {key}: process {event['pid']} wrote {event['event']!r} {event['number']} "
                f"after its successor {pids[current]} had begun",
            )
            return
        current = place


def little_work_is_repeated(events: Sequence[Event]) -> Iterator[Violation]:
    """Each successor begins at most one unit before the end of what was there."""
    for key, found in by_key(events).items():
        bound = BOUNDS[found[0]["stage"]]
        for redone, pid in redone_work(found):
            if redone > bound.units:
                yield Violation(
                    REPEATED_WORK,
                    f"{found[0]['stage']} (key {key}): process {pid} made {redone} {bound.what} "
                    f"again, allowed is {bound.units}",
                )
        missing = set(range(bound.total)) - {
            event["number"] for event in found if event["event"] == "begun"
        }
        if missing:
            yield Violation(WRONG_END_STATE, f"key {key}: never made {bound.what} {missing}")


def redone_work(events: Sequence[Event]) -> list[tuple[int, int]]:
    """For every process but the first: how many units it made again, and its id."""
    newest = -1
    redone: list[tuple[int, int]] = []
    seen: set[int] = set()
    for event in (event for event in events if event["event"] == "begun"):
        if event["pid"] not in seen:
            if seen:
                redone.append((newest - event["number"] + 1, event["pid"]))
            seen.add(event["pid"])
        newest = max(newest, event["number"])
    return redone


def only_kills_end_jobs(
    events: Sequence[Event], watcher: Watcher, kills: Sequence[Kill]
) -> Iterator[Violation]:
    """A driver that ended before its output was killed, or lost its worker or its head."""
    finished = {(event["key"], event["pid"]) for event in events if event["event"] == "output"}
    trainers = {event["pid"]: event["key"] for event in events if event["event"] == "resumed"}
    for life in watcher.lives.values():
        if (life.key, life.pid) in finished:
            continue
        if not any(_explains(kill, life, trainers) for kill in kills):
            yield Violation(
                STOPPED_JOB,
                f"key {life.key}: driver {life.pid} ended {life.last_s:.1f} without output, though "
                "neither it nor its worker nor its head was killed",
            )


def _explains(kill: Kill, life: DriverLife, trainers: Mapping[int, str]) -> bool:
    if not life.first_s - SEEN_LATE_S <= kill.at_s <= life.last_s + SEEN_LATE_S:
        return False
    if kill.target == "ray_worker":
        return any(trainers.get(pid) == life.key for pid in kill.pids)
    return kill.target == "head" or life.pid in kill.pids


def one_commit_each(watcher: Watcher) -> Iterator[Violation]:
    for path, what in watcher.changed_manifests.items():
        kind = LOST_ARTIFACT if what == "vanished" else SECOND_COMMIT
        yield Violation(kind, f"{path}/manifest.json {what}")


def nothing_is_lost(
    store: LocalStore, refs: Sequence[ArtifactRef], expected: Mapping[str, Mapping[str, str]]
) -> Iterator[Violation]:
    """Every artifact is there, verified, and has the bytes of the undisturbed run."""
    for ref in refs:
        if not is_done(store, ref):
            yield Violation(LOST_ARTIFACT, f"{ref.path} was never committed")
            continue
        try:
            materialise(store, ref, Path("unused"))
        except FlywheelError as error:
            yield Violation(LOST_ARTIFACT, str(error))
            continue
        found = digests(store, ref)
        if found != expected[ref.stage]:
            yield Violation(
                LOST_ARTIFACT, f"{ref.path}: {found}, undisturbed {expected[ref.stage]}"
            )


def digests(store: LocalStore, ref: ArtifactRef) -> dict[str, str]:
    """File name to SHA-256 of a committed artifact."""
    return {entry.name: entry.sha256 for entry in read_manifest(store, ref).files}


def ends_well(
    states: Mapping[str, Mapping[str, str | None]], run_states: Mapping[str, str | None]
) -> Iterator[Violation]:
    """Every run and every task succeeded."""
    for run_id, state in run_states.items():
        tasks = ", ".join(f"{task} {found}" for task, found in states[run_id].items())
        if state != "success":
            yield Violation(WRONG_END_STATE, f"run {run_id} is {state}: {tasks}")


def nothing_lives_on(
    jobs: Mapping[str, str],
    drivers: Mapping[DriverCommand, list[int]],
    refs: Sequence[ArtifactRef],
    store: LocalStore,
) -> Iterator[Violation]:
    """After the end no job of a key is live in Ray, and no driver outside it."""
    keys = {ref.key for ref in refs}
    for submission_id, status in jobs.items():
        if status in ("PENDING", "RUNNING") and any(key in submission_id for key in keys):
            yield Violation(WRONG_END_STATE, f"Ray job {submission_id} is still {status}")
    for driver, pids in drivers.items():
        if driver.store == store.root:
            yield Violation(DUPLICATE_JOB, f"orphaned drivers {pids} of {driver} live on")


def collect(*promises: Callable[[], Iterator[Violation]]) -> list[Violation]:
    """All violations of the promises, in order."""
    return [violation for promise in promises for violation in promise()]
