"""What the store tests share: refs, a written artifact, and a store that dies at the n-th write."""

from pathlib import Path

from flywheel_core.artifacts import ArtifactRef, Attempt, Manifest
from flywheel_core.store import Store

REF = ArtifactRef(flywheel="test", generation=7, stage="traffic", key="0123456789abcdef")

FILES = {"rows.jsonl": b'{"row": 1}\n', "model/weights.bin": bytes(range(256))}


def write_artifact(
    store: Store, scratch: Path, ref: ArtifactRef = REF, files: dict[str, bytes] = FILES
) -> Manifest:
    """One attempt at `ref`, from its first file to its commit."""
    attempt = Attempt(store, ref, scratch)
    for name, data in files.items():
        target = attempt.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return attempt.commit(kind="rows", stage_version=1, row_counts={"rows": 1}, seed=3)


class Crash(RuntimeError):
    """The process died here."""


class CrashingStore:
    """A store whose n-th write (counted from 0) raises before it happens, and every later one.

    With `after=True` the n-th write happens and the crash comes right behind it: what a writer
    sees that lost its connection before the answer came.
    """

    def __init__(self, store: Store, crash_at: int, *, after: bool = False) -> None:
        self.store, self.root = store, store.root
        self.crash_at, self.after, self.writes = crash_at, after, 0

    def _write(self, name: str, *arguments: object) -> object:
        number, self.writes = self.writes, self.writes + 1
        if number > self.crash_at or (number == self.crash_at and not self.after):
            raise Crash(f"write {number}: {name} {arguments[-1]!r:.60}")
        result = getattr(self.store, name)(*arguments)
        if number == self.crash_at:
            raise Crash(f"after write {number}: {name}")
        return result

    def put(self, path: str, data: bytes) -> None:
        self._write("put", path, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return bool(self._write("put_if_absent", path, data))

    def upload(self, source: Path, path: str) -> None:
        self._write("upload", source, path)

    def delete(self, path: str) -> None:
        self._write("delete", path)

    def get(self, path: str) -> bytes:
        return self.store.get(path)

    def exists(self, path: str) -> bool:
        return self.store.exists(path)

    def list(self, prefix: str) -> list[str]:
        return self.store.list(prefix)

    def download(self, path: str, target: Path) -> None:
        self.store.download(path, target)
