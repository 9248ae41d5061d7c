"""At most one live driver for a key, also where Ray has lost sight of one.

Ray's refusal of a used submission id keeps two jobs apart while one Ray head lives. A head that is
started anew has forgotten its jobs, and a driver of the old one may still be running, on another
node or for a second more. So every driver *claims* its key in the store, append-only: the newest
claim holds, and a driver that finds a newer one than its own ends itself at once. Whoever finds
that the claim before its own was never given back waits until that driver must have noticed.

No clock is compared and no lock can be left behind. What remains (a driver frozen for longer than
the wait) meets whole-file shards and the put-if-absent commit.
"""

import contextlib
import os
import socket
import threading
import time
from types import TracebackType
from typing import Any

from flywheel_core.artifacts import ArtifactRef
from flywheel_core.errors import PointerConflict, Superseded
from flywheel_core.pointers import Pointer
from flywheel_core.store import Store

POLL_S = 2.0
GRACE_S = 1.5 * POLL_S + 1.0
EXIT_SUPERSEDED = 76

DRIVERS = "drivers"
CLAIMED, GIVEN_BACK = "claimed", "given back"


class Fence:
    """`with Fence(...) as fence:` holds the key; `fence.check()` before anything is committed.

    `driver` names who holds it, for people: the submission id of the Ray job.
    """

    def __init__(
        self, store: Store, ref: ArtifactRef, driver: str, *, poll_s: float = POLL_S
    ) -> None:
        name = f"{ref.stage}-{ref.key}"
        self._pointer = Pointer(store, ref.flywheel, name, area=DRIVERS)
        self._driver = driver
        self._poll_s = poll_s
        self._number = 0
        self._ended = threading.Event()

    def __enter__(self) -> "Fence":
        self._number = self._pointer.append(
            self._state(CLAIMED), by=self._driver, reason=CLAIMED
        ).number
        before = next((r for r in self._pointer.history() if r.number == self._number - 1), None)
        if before is not None and before.value["state"] == CLAIMED:
            print(f"waiting until {before.value['driver']} has surely ended", flush=True)
            time.sleep(GRACE_S * self._poll_s / POLL_S)
            self.check()
        threading.Thread(target=self._watch, name="fence", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        # Only right after its own claim: behind another's it would look like the newer driver.
        with contextlib.suppress(PointerConflict):
            self._pointer.move(
                self._state(GIVEN_BACK),
                expected_number=self._number,
                by=self._driver,
                reason=GIVEN_BACK,
            )

    def check(self) -> None:
        """Raise `Superseded` unless this driver's claim is still the newest."""
        newest = self._pointer.newest()
        if newest is not None and newest.number != self._number:
            raise Superseded(
                f"{self._driver}: {newest.value['driver']} has taken over "
                f"{self._pointer.name}; this driver ends and commits nothing"
            )

    def _state(self, state: str) -> dict[str, Any]:
        return {
            "driver": self._driver,
            "state": state,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }

    def _watch(self) -> None:
        """End this process, whatever it is doing, once its key belongs to another."""
        while not self._ended.wait(self._poll_s):
            try:
                self.check()
            except Superseded as error:
                print(f"error: {error}", flush=True)
                os._exit(EXIT_SUPERSEDED)
            except Exception as error:  # a store that is away must not end the watch
                print(f"fence: cannot look ({type(error).__name__}: {error})", flush=True)
