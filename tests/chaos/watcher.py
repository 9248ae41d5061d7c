"""Looks at the living five times a second: drivers of each key, and manifests once committed."""

import threading
import time
from dataclasses import dataclass, field

from flywheel_core.artifacts import ArtifactRef
from flywheel_core.plan import PinnedPlan, plan_path
from flywheel_core.store import LocalStore
from tests.chaos.chaos_stack import FLYWHEEL
from tests.chaos.targets import DriverCommand, drivers

EVERY_S = 0.2


@dataclass
class DriverLife:
    """When a driver was first and last seen, in seconds since 1970."""

    key: str
    pid: int
    first_s: float
    last_s: float


@dataclass
class Watcher:
    """A thread between `start` and `stop`; what it saw is in its fields."""

    store: LocalStore
    lives: dict[tuple[str, int], DriverLife] = field(default_factory=dict)
    overlaps: dict[str, set[int]] = field(default_factory=dict)
    changed_manifests: dict[str, str] = field(default_factory=dict)
    num_looks: int = 0

    def __post_init__(self) -> None:
        self._refs: dict[DriverCommand, ArtifactRef] = {}
        self._committed: dict[str, tuple[int, int]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="chaos-watcher", daemon=True)

    def follow(self, plan: PinnedPlan) -> None:
        """Watch the keys of this plan from now on."""
        path = plan_path(FLYWHEEL, plan.run_id)
        self._refs |= {
            DriverCommand(stage.name, self.store.root, path): stage.ref for stage in plan.stages
        }

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(EVERY_S):
            self.num_looks += 1
            self._look_at_drivers(time.time())
            for ref in list(self._refs.values()):
                self._look_at_manifest(ref)

    def _look_at_drivers(self, now_s: float) -> None:
        for driver, pids in drivers().items():
            ref = self._refs.get(driver)
            if ref is None:
                continue
            if len(pids) > 1:
                self.overlaps.setdefault(ref.key, set()).update(pids)
            for pid in pids:
                life = self.lives.setdefault((ref.key, pid), DriverLife(ref.key, pid, now_s, now_s))
                life.last_s = now_s

    def _look_at_manifest(self, ref: ArtifactRef) -> None:
        """A committed manifest is the same file for ever: its inode and times never change."""
        path = self.store.local_path(f"{ref.path}/manifest.json")
        try:
            found = path.stat()
        except FileNotFoundError:
            if ref.path in self._committed:
                self.changed_manifests[ref.path] = "vanished"
            return
        seen = self._committed.setdefault(ref.path, (found.st_ino, found.st_mtime_ns))
        if seen != (found.st_ino, found.st_mtime_ns):
            self.changed_manifests[ref.path] = "was written a second time"
