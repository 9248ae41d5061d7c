"""The seven kinds of process that are killed, found by the stack's own marks, never by name alone.

`task_worker`  Airflow's process of a running task: the executor's worker with its child, or the
               child alone (a seeded choice)
`triggerer`, `scheduler`, `api_server`   the part's main process; what it leaves is orphaned
`ray_worker`   the training's actor
`driver`       the Ray job's own process
`head`         everything of the Ray head but the drivers, which live on as orphans: the worst
               that can be left to its successor
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from flywheel_core.stack import StackInfo
from flywheel_core.stack.processes import Part, is_alive, members_of
from tests.chaos.chaos_stack import STAGES

TARGETS = (
    "task_worker",
    "triggerer",
    "scheduler",
    "api_server",
    "ray_worker",
    "driver",
    "head",
)


def find(target: str, info: StackInfo, rng: random.Random) -> list[int]:
    """Ids of the processes to kill now; empty while there is none of that kind."""
    finders: dict[str, Callable[[StackInfo, random.Random], list[int]]] = {
        "task_worker": _task_worker,
        "triggerer": lambda info, rng: _part(info, "triggerer"),
        "scheduler": lambda info, rng: _part(info, "scheduler"),
        "api_server": lambda info, rng: _part(info, "api-server"),
        "ray_worker": _ray_worker,
        "driver": _driver,
        "head": _head,
    }
    return finders[target](info, rng)


def _named(info: StackInfo, name: str) -> Part | None:
    return next((part for part in info.parts if part.name == name and is_alive(part)), None)


def _part(info: StackInfo, name: str) -> list[int]:
    part = _named(info, name)
    return [part.pid] if part else []


def _task_worker(info: StackInfo, rng: random.Random) -> list[int]:
    scheduler = _named(info, "scheduler")
    if scheduler is None:
        return []
    workers = [
        process
        for process in members_of(scheduler, info.stack_id)
        if _title(process).startswith("airflow worker -- LocalExecutor") and process.children()
    ]
    if not workers:
        return []
    worker = rng.choice(workers)
    task = [child.pid for child in worker.children(recursive=True)]
    return task if rng.random() < 0.5 else [worker.pid, *task]


def _ray_worker(info: StackInfo, rng: random.Random) -> list[int]:
    head = _named(info, "ray")
    found = members_of(head, info.stack_id) if head else []
    workers = [process.pid for process in found if _title(process).startswith("ray::ChaosTrainer")]
    return [rng.choice(workers)] if workers else []


def _driver(info: StackInfo, rng: random.Random) -> list[int]:
    head = _named(info, "ray")
    ours = {process.pid for process in members_of(head, info.stack_id)} if head else set()
    found = sorted(ours & set(_pids_of_drivers()))
    return [rng.choice(found)] if found else []


def _head(info: StackInfo, rng: random.Random) -> list[int]:
    head = _named(info, "ray")
    if head is None:
        return []
    spared = {_session(pid) for pid in _pids_of_drivers()}
    found = members_of(head, info.stack_id)
    return [process.pid for process in found if _session(process.pid) not in spared]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _pids_of_drivers() -> list[int]:
    return [pid for pids in drivers().values() for pid in pids]


@dataclass(frozen=True)
class DriverCommand:
    """What a driver was started to make: the stage of a plan in a store."""

    stage: str
    store: str
    plan: str


def drivers() -> dict[DriverCommand, list[int]]:
    """Live drivers of chaos jobs and their process ids.

    Read from /proc, five times a second: the shell around a driver is none, and neither is the
    moment between a driver's fork and the exec of what it calls.
    """
    seen: dict[int, DriverCommand] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            found = _driver_of(name)
            if found:
                seen[int(name)] = found
    live: dict[DriverCommand, list[int]] = {}
    for pid, found in seen.items():
        if _parent(pid) not in seen:
            live.setdefault(found, []).append(pid)
    return live


def _driver_of(pid: str) -> DriverCommand | None:
    try:
        command = Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if not Path(command[0]).name.startswith("python") or not {"--store", "--plan"} <= set(command):
        return None
    if command[1] != "-m" or command[2] not in STAGES:
        return None
    store, plan = (command[command.index(name) + 1] for name in ("--store", "--plan"))
    return DriverCommand(command[2], store, plan)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return -1
