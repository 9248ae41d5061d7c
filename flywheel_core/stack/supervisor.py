"""Restarts what has died, as Kubernetes restarts a container, until that is plainly no use."""

import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Protocol

from flywheel_core.errors import StackError

MAX_DEATHS = 5
WITHIN_S = 300.0


class Restarts(Protocol):
    """The part of a `Stack` we use."""

    def restart_dead(self) -> tuple[str, ...]:
        """Start anew what has died; its names."""

    def log_of(self, name: str) -> str:
        """Where that part's log lies."""


class Supervisor:
    """Looks after a stack: `look` once a second.

    A part that dies `MAX_DEATHS` times within `WITHIN_S` seconds is in a crash loop, which is an
    error: starting it once more would only hide why it dies.
    """

    def __init__(
        self,
        stack: Restarts,
        progress: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stack = stack
        self._progress = progress
        self._clock = clock
        self._deaths: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_DEATHS))

    def look(self) -> tuple[str, ...]:
        """Start anew every part that has died since the last look; their names."""
        dead = self._stack.restart_dead()
        for name in dead:
            deaths = self._deaths[name]
            deaths.append(self._clock())
            if len(deaths) == MAX_DEATHS and deaths[-1] - deaths[0] <= WITHIN_S:
                raise StackError(
                    f"{name} died {MAX_DEATHS} times within {WITHIN_S:.0f} s; its log "
                    f"{self._stack.log_of(name)} says why; mend that, then run `flywheel up`"
                )
            self._progress(f"{name} had died: started again, on its own state")
        return dead
