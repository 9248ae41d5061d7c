"""Processes with their own group, found again after a crash, and nothing left running.

Every process of a stack inherits `FLYWHEEL_STACK_ID` and the name of its part, and belongs to the
session of a part we started, unless it made one of its own (Ray's workers) or overwrote its
environment with a new title (Airflow's workers). Stopping ends whatever has either mark: never a
process of somebody else, never by name.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict

from flywheel_core.errors import StackError

STACK_ID_VARIABLE = "FLYWHEEL_STACK_ID"
PART_VARIABLE = "FLYWHEEL_STACK_PART"
HOST = "127.0.0.1"
LAST_LOG_LINES = 15
LEFTOVERS_TIMEOUT_S = 10.0


class Part(BaseModel):
    """One process we started: `started_at` tells it from a later process of the same id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int
    started_at: float
    log: str


def start(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Part:
    """Start a command in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env={**environment, PART_VARIABLE: name},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,
        )
    return Part(
        name=name,
        pid=process.pid,
        started_at=psutil.Process(process.pid).create_time(),
        log=str(log),
    )


def is_alive(part: Part) -> bool:
    """Whether the very process we started still runs."""
    try:
        process = psutil.Process(part.pid)
        started_at: float = process.create_time()
        runs: bool = process.status() != psutil.STATUS_ZOMBIE
        return runs and abs(started_at - part.started_at) < 1.0
    except psutil.NoSuchProcess:
        return False


def stop(parts: Sequence[Part], stack_id: str, *, grace_s: float) -> None:
    """Ask every part to end, wait, then end what is left of this stack."""

    def left() -> list["psutil.Process"]:
        return members(parts, stack_id)

    for part in parts:
        if is_alive(part):
            _signal_group(part.pid, signal.SIGTERM)
    wait_until(lambda: not left(), timeout_s=grace_s)
    for attempt in (signal.SIGTERM, signal.SIGKILL):
        for process in left():
            _signal(process, attempt)
        if wait_until(lambda: not left(), timeout_s=5.0):
            return
    names = ", ".join(f"{process.pid} {process.name()}" for process in left())
    if names:
        raise StackError(f"these processes of the stack could not be stopped: {names}; end them")


def members(parts: Sequence[Part], stack_id: str) -> list["psutil.Process"]:
    """Every live process of this stack, the calling one excepted."""
    sessions = {part.pid for part in parts if _owns_its_session(part)}
    return _marked(sessions, {STACK_ID_VARIABLE: stack_id})


def members_of(part: Part, stack_id: str) -> list["psutil.Process"]:
    """Every live process of one part, dead or not: of a Ray head its jobs' drivers as well."""
    sessions = {part.pid} if _owns_its_session(part) else set()
    return _marked(sessions, {STACK_ID_VARIABLE: stack_id, PART_VARIABLE: part.name})


def end_leftovers(part: Part, stack_id: str) -> int:
    """End what a dead part left behind, before it is started anew; how many processes that was.

    An old head's driver would be a second live job beside its successor, and an old API server
    would hold the port. SIGKILL, because an orphaned Airflow worker takes SIGTERM for a person's
    kill and stops the Ray job that its successor is attached to.
    """
    ended = set()

    def left() -> bool:
        found = members_of(part, stack_id)
        for process in found:
            ended.add(process.pid)
            _signal(process, signal.SIGKILL)
        return bool(found)

    if not wait_until(lambda: not left(), timeout_s=LEFTOVERS_TIMEOUT_S, every_s=0.1):
        raise StackError(
            f"{part.name}: processes of its last life do not end: "
            f"{', '.join(str(process.pid) for process in members_of(part, stack_id))}; end them, "
            "then run `flywheel up`"
        )
    return len(ended)


def _owns_its_session(part: Part) -> bool:
    """Whether the session that carries the part's id is still that part's: not when another
    process has been given the id since. A dead part whose parent has not noticed yet counts."""
    try:
        started_at: float = psutil.Process(part.pid).create_time()
    except psutil.NoSuchProcess:
        return True
    return abs(started_at - part.started_at) < 1.0


def _marked(sessions: set[int], marks: Mapping[str, str]) -> list["psutil.Process"]:
    """Our live processes in one of the sessions, or with all of the marks in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) in sessions or marks.items() <= process.environ().items():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            continue
    return found


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _signal(process: "psutil.Process", number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def wait_until(condition: Callable[[], bool], *, timeout_s: float, every_s: float = 0.3) -> bool:
    """Whether the condition came true in time."""
    ends_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > ends_s:
            return False
        time.sleep(every_s)
    return True


def last_lines(log: Path | str, count: int = LAST_LOG_LINES) -> str:
    """The end of a log, indented for an error message."""
    path = Path(log)
    if not path.is_file():
        return "  (no log)"
    lines = path.read_text(errors="replace").splitlines()[-count:]
    return "\n".join(f"  {line}" for line in lines) or "  (empty log)"


def port_is_free(port: int) -> bool:
    """Whether a server could listen on that port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_port(asked: int | None, preferred: Sequence[int], what: str) -> int:
    """The port that was asked for, or the first free one; an error where the asked is taken."""
    if asked is not None:
        if not port_is_free(asked):
            raise StackError(
                f"{what}: port {asked} on {HOST} is in use; stop what listens there, give another "
                "port, or give none and a free one is chosen"
            )
        return asked
    for port in preferred:
        if port_is_free(port):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
