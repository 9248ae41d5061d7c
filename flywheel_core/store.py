"""Where artifacts lie: one small protocol, three stores.

A store maps a relative POSIX path to bytes. Its one hard promise is `put_if_absent`: of any
number of concurrent writers to a path exactly one succeeds. Manifests, plans and pointers are
all written with it, so a commit needs no lock and no database. `tests/store` runs one
conformance suite against every store.
"""

import errno
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Protocol

from flywheel_core.errors import (
    ConfigError,
    StoreError,
    StoreFull,
    StoreMissing,
    StoreRefused,
)

NEVER_IN_A_PATH = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff]|\?versionId=")
"""A backslash, control characters, halves of a surrogate pair (no file name), and s3fs's mark of a
version, with which two paths would mean one object."""


class Store(Protocol):
    """Bytes by relative path. Paths use `/`, are never absolute and never contain `..`."""

    root: str

    def put(self, path: str, data: bytes) -> None:
        """Write or overwrite; readers see the old bytes or the new ones, never a mixture."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Write if nothing lies at `path`; False, and no change, if something does."""

    def get(self, path: str) -> bytes:
        """Raise `StoreMissing` if nothing lies at `path`."""

    def exists(self, path: str) -> bool:
        """Whether bytes lie at exactly `path`."""

    def list(self, prefix: str) -> list[str]:
        """Every path below the folder `prefix`, sorted."""

    def delete(self, path: str) -> None:
        """Remove the bytes at `path`; nothing there is no error."""

    def upload(self, source: Path, path: str) -> None:
        """Copy a local file to `path`."""

    def download(self, path: str, target: Path) -> None:
        """Copy `path` to a local file, appearing whole or not at all."""


def open_store(root: str) -> Store:
    """A store from its root: `s3://bucket/prefix`, `memory://name`, or a local folder."""
    if root.startswith("s3://"):
        return S3Store(root)
    if root.startswith("memory://"):
        return MemoryStore.named(root)
    if "://" in root:
        scheme = root.split("://", 1)[0]
        raise ConfigError(
            f"store root: scheme {scheme!r} in {root!r} is unknown; use a local folder or s3://bucket/prefix"
        )
    return LocalStore(root)


def checked_path(path: str) -> str:
    """`path`, or an error where it could leave the root."""
    pure = PurePosixPath(path)
    unclean = not pure.parts or str(pure) != path or bool(NEVER_IN_A_PATH.search(path))
    if unclean or pure.is_absolute() or ".." in pure.parts:
        raise StoreRefused(
            f"store path {path!r} is not allowed: use a clean relative path without '..'"
        )
    return path


class LocalStore:
    """A folder. `put_if_absent` is a hard link of a finished temporary file: atomic on POSIX."""

    def __init__(self, root: str) -> None:
        self.root = str(Path(root).expanduser().absolute())

    def local_path(self, path: str) -> Path:
        """The file behind `path`; refuses symbolic links that lead out of the root."""
        target = Path(self.root) / checked_path(path)
        base = os.path.realpath(self.root)
        if os.path.commonpath([base, os.path.realpath(target)]) != base:
            raise StoreRefused(f"store path {path!r} leaves the root {self.root!r} through a link")
        return target

    @contextmanager
    def _reached(self, path: str) -> Iterator[None]:
        """Errors of the file system as ours, with what to do."""
        try:
            yield
        except (FileNotFoundError, IsADirectoryError) as error:
            raise StoreMissing(f"nothing at {path!r} in {self.root!r}") from error
        except PermissionError as error:
            raise StoreRefused(
                f"{self.root!r}, path {path!r}: {error}; give the user that runs this job or "
                "this Airflow the right to it"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreFull(
                f"{self.root!r}, path {path!r}: {error.strerror}; free some space (nothing "
                "half-written counts as done), then run this again"
            ) from error

    def put(self, path: str, data: bytes) -> None:
        target = self.local_path(path)
        with self._reached(path):
            os.replace(self.temporary(target, data), target)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        target = self.local_path(path)
        if target.exists():
            return False
        with self._reached(path):
            temporary = self.temporary(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                os.unlink(temporary)
            _sync_folder(target.parent)
        return True

    def get(self, path: str) -> bytes:
        with self._reached(path):
            return self.local_path(path).read_bytes()

    def exists(self, path: str) -> bool:
        return self.local_path(path).is_file()

    def list(self, prefix: str) -> list[str]:
        base = self.local_path(prefix) if prefix else Path(self.root)
        found: list[str] = []
        # os.walk forgives folders that vanish meanwhile: other writers drop their attempts.
        for folder, subfolders, names in os.walk(base):
            subfolders[:] = [name for name in subfolders if not name.startswith(".tmp-")]
            files = (Path(folder) / name for name in names if not name.startswith(".tmp-"))
            found += [
                file.relative_to(self.root).as_posix()
                for file in files
                if file.is_file() and not file.is_symlink()
            ]
        return sorted(found)

    def delete(self, path: str) -> None:
        self.local_path(path).unlink(missing_ok=True)

    def upload(self, source: Path, path: str) -> None:
        target = self.local_path(path)
        if source.absolute() == target:
            return
        with self._reached(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent)) / "file"
            try:
                shutil.copyfile(source, temporary)
                os.replace(temporary, target)
            finally:
                shutil.rmtree(temporary.parent, ignore_errors=True)

    def download(self, path: str, target: Path) -> None:
        if not self.exists(path):
            raise StoreMissing(f"nothing at {path!r} in {self.root!r}")
        _copy_whole(self.local_path(path), target)

    @staticmethod
    def temporary(target: Path, data: bytes) -> str:
        """A synced file with these bytes beside `target`, for a rename or a link to it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".tmp-", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.unlink(name)
            raise
        return name


class MemoryStore:
    """A dictionary behind a lock: the fake that ships, for tests and dry runs in one process."""

    _named: ClassVar[dict[str, "MemoryStore"]] = {}

    def __init__(self, root: str = "memory://") -> None:
        self.root = root
        self._data: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @classmethod
    def named(cls, root: str) -> "MemoryStore":
        """The one store of this process with that name."""
        return cls._named.setdefault(root, cls(root))

    def put(self, path: str, data: bytes) -> None:
        with self._lock:
            self._data[checked_path(path)] = bytes(data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        with self._lock:
            if checked_path(path) in self._data:
                return False
            self._data[path] = bytes(data)
            return True

    def get(self, path: str) -> bytes:
        try:
            return self._data[checked_path(path)]
        except KeyError as error:
            raise StoreMissing(f"nothing at {path!r} in {self.root!r}") from error

    def exists(self, path: str) -> bool:
        return checked_path(path) in self._data

    def list(self, prefix: str) -> list[str]:
        folder = f"{checked_path(prefix)}/" if prefix else ""
        with self._lock:
            return sorted(path for path in self._data if path.startswith(folder))

    def delete(self, path: str) -> None:
        with self._lock:
            self._data.pop(checked_path(path), None)

    def upload(self, source: Path, path: str) -> None:
        self.put(path, source.read_bytes())

    def download(self, path: str, target: Path) -> None:
        write_whole(target, self.get(path))


class S3Store:
    """An S3 bucket and prefix. `put_if_absent` is a conditional put (`If-None-Match: *`)."""

    def __init__(self, root: str, **filesystem_options: Any) -> None:
        import s3fs

        self.root = root.rstrip("/")
        self._base = self.root.removeprefix("s3://")
        self._files: Any = s3fs.S3FileSystem(
            use_listings_cache=False, skip_instance_cache=True, **filesystem_options
        )

    def _key(self, path: str) -> str:
        return f"{self._base}/{checked_path(path)}"

    @contextmanager
    def _reached(self, path: str) -> Iterator[None]:
        """Errors of the service as ours: nothing there, or not readable and why."""
        try:
            yield
        except FileNotFoundError as error:
            raise StoreMissing(f"nothing at {path!r} in {self.root!r}: {error}") from error
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
            if isinstance(error, PermissionError):
                raise StoreRefused(
                    f"{self.root!r}, path {path!r}: {error}; give this deployment's credentials "
                    "the right to it"
                ) from error
            step = (
                "; this machine's clock is wrong: set it by NTP"
                if "RequestTimeTooSkewed" in str(error)
                else ""
            )
            raise StoreError(f"{self.root!r}, path {path!r}: {error}{step}") from error

    def put(self, path: str, data: bytes) -> None:
        with self._reached(path):
            self._files.pipe_file(self._key(path), data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        try:
            with self._reached(path):
                self._files.pipe_file(self._key(path), data, mode="create")
        except FileExistsError:
            return False
        return True

    def get(self, path: str) -> bytes:
        with self._reached(path):
            return bytes(self._files.cat_file(self._key(path)))

    def exists(self, path: str) -> bool:
        with self._reached(path):
            return bool(self._files.isfile(self._key(path)))

    def list(self, prefix: str) -> list[str]:
        folder = f"{self._key(prefix) if prefix else self._base}/"
        start = len(self._base) + 1
        try:
            with self._reached(prefix):
                found = self._files.find(folder)
        except StoreMissing:
            self._check_bucket()
            return []
        return sorted(name[start:] for name in found if name.startswith(folder))

    def delete(self, path: str) -> None:
        try:
            with self._reached(path):
                self._files.rm_file(self._key(path))
        except StoreMissing:
            return

    def upload(self, source: Path, path: str) -> None:
        with self._reached(path):
            self._files.put_file(str(source), self._key(path))

    def download(self, path: str, target: Path) -> None:
        key = self._key(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".tmp-{os.getpid()}-{threading.get_ident()}-{target.name}")
        try:
            with self._reached(path):
                self._files.get_file(key, str(temporary))
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _check_bucket(self) -> None:
        bucket = self._base.split("/", 1)[0]
        if not self._files.exists(bucket):
            raise StoreRefused(
                f"store root {self.root!r}: there is no bucket {bucket!r}; create it, or mend "
                "FLYWHEEL_STORE"
            )


def _copy_whole(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{threading.get_ident()}-{target.name}")
    shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def write_whole(target: Path, data: bytes) -> None:
    """Write a local file that appears whole or not at all, also when the machine loses power."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(LocalStore.temporary(target, data), target)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
