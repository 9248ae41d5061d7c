"""When, whom, and SIGKILL; and the supervisor that starts the dead anew meanwhile."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from flywheel_core.errors import StackError
from flywheel_core.stack import Stack, Supervisor
from tests.chaos.targets import TARGETS, find

APPEARS_TIMEOUT_S = 240.0
LOOK_S = 0.2
LIFE_S = {"task_worker": 1.5, "ray_worker": 20.0, "driver": 20.0}
"""How long a process of that kind lives, about: what is rare is waited for, and then killed at a
random moment of its life."""


@dataclass(frozen=True)
class Kill:
    """One SIGKILL that was sent: seconds since 1970, and how many processes it took at once."""

    number: int
    target: str
    at_s: float
    pids: tuple[int, ...]


@dataclass(frozen=True)
class PlannedKill:
    """`after_s` counts from the start of the chaos."""

    target: str
    after_s: float


def plan_kills(seed: int, num_kills: int, slot_s: float) -> list[PlannedKill]:
    """One kill at a uniformly random moment of every slot; every seven hit each target once."""
    rng = random.Random(seed)
    targets: list[str] = []
    while len(targets) < num_kills:
        targets += rng.sample(TARGETS, len(TARGETS))
    return [
        PlannedKill(target, (slot + rng.random()) * slot_s)
        for slot, target in enumerate(targets[:num_kills])
    ]


class Killer:
    """A thread that carries out a plan; `kills` is what it did, `missed` what never appeared."""

    def __init__(
        self, stack: Stack, planned: list[PlannedKill], seed: int, say: Callable[[str], None]
    ) -> None:
        self.kills: list[Kill] = []
        self.missed: list[str] = []
        self._stack = stack
        self._planned = planned
        self._rng = random.Random(seed + 1)
        self._say = say
        self._thread = threading.Thread(target=self._run, name="chaos-killer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        started_s = time.monotonic()
        for number, planned in enumerate(self._planned, start=1):
            time.sleep(max(0.0, started_s + planned.after_s - time.monotonic()))
            asked_s = time.monotonic()
            pids = self._wait_for(planned.target)
            started_s += time.monotonic() - asked_s  # waiting puts off the rest: no heap of kills
            if not pids:
                self.missed.append(planned.target)
                self._say(f"kill {number}: no {planned.target} in {APPEARS_TIMEOUT_S:.0f} s")
                continue
            kill = Kill(number, planned.target, time.time(), tuple(pids))
            for pid in pids:
                _kill(pid)
            self.kills.append(kill)
            self._say(f"kill {number}: {planned.target} {', '.join(map(str, pids))}")

    def _wait_for(self, target: str) -> list[int]:
        """The target at a random moment of its life; a process that ended before it is let go."""
        ends_s = time.monotonic() + APPEARS_TIMEOUT_S
        while time.monotonic() < ends_s:
            if self._find(target):
                time.sleep(self._rng.random() * LIFE_S.get(target, 0.0))
                pids = self._find(target)
                if pids:
                    return pids
            time.sleep(LOOK_S)
        return []

    def _find(self, target: str) -> list[int]:
        info = self._stack.info()
        try:
            return find(target, info, self._rng) if info else []
        except psutil.Error:  # it ended while it was looked at
            return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Restarter:
    """The product's supervisor in a thread, once a second, as `flywheel up` runs it."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self.failure: str | None = None
        self.restarts: list[tuple[str, float]] = []
        self._supervisor = Supervisor(stack, say)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(1.0):
            try:
                dead = self._supervisor.look()
            except StackError as error:
                self.failure = str(error)
                return
            self.restarts += [(name, time.time()) for name in dead]
