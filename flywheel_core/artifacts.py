"""Artifacts: immutable folders with a manifest, found by key and verified by digest.

A stage's output lies at `<flywheel>/gen-0007/<stage>/<key>/`. Each attempt writes its files
under `attempts/<id>/`; `manifest.json` is put last and if-absent, and its presence means done.
A half-written attempt is never visible, and a losing writer gets the winner's manifest.

A *key* names what was asked for (config and inputs); a *digest* names the bytes that came out.
They are apart because GPU runs do not repeat bit for bit.

A manifest is never changed. Where the rows of erased users force data out (`erasure/`), a
*tombstone* is put beside it that says what was removed, and every reader meets a clear error.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flywheel_core.errors import (
    ArtifactCorrupt,
    ArtifactError,
    ArtifactMissing,
    ArtifactRetired,
    SchemaTooNew,
    StoreMissing,
)
from flywheel_core.provenance import CodeVersion, code_version, package_versions
from flywheel_core.store import LocalStore, Store, checked_path

SCHEMA_VERSION = 1
KEY_HEX_DIGITS = 16


class Record(BaseModel):
    """Base of everything written to the store: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ArtifactRef(Record):
    """The name of an artifact: enough to find it, before or after it exists."""

    flywheel: str
    generation: int = Field(ge=0)
    stage: str
    key: str

    @field_validator("flywheel", "stage", "key")
    @classmethod
    def _one_path_part(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
            raise ValueError(f"{value!r} is not one plain path part (letters, digits, _ . -)")
        return value

    @property
    def path(self) -> str:
        return f"{self.flywheel}/gen-{self.generation:04d}/{self.stage}/{self.key}"


class FileEntry(Record):
    """One file of an artifact, by its name relative to the artifact."""

    name: str
    num_bytes: int = Field(ge=0)
    sha256: str

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        return checked_path(value)


class InputRecord(Record):
    """An input as it was read: what was asked for, and the bytes that were there."""

    ref: ArtifactRef
    digest: str


class Manifest(Record):
    """What an artifact is, what it was made of, and how. Written last, never changed."""

    schema_version: int = SCHEMA_VERSION
    ref: ArtifactRef
    kind: str
    stage_version: int
    attempt: str
    files: tuple[FileEntry, ...]
    row_counts: dict[str, int] = {}
    metrics: dict[str, Any] = {}
    config: dict[str, Any] = {}
    inputs: dict[str, InputRecord] = {}
    seed: int = 0
    code: CodeVersion
    packages: dict[str, str] = {}
    timings_s: dict[str, float] = {}

    @property
    def digest(self) -> str:
        """Digest of the content: names and bytes of the files, in order of name."""
        listing = [(entry.name, entry.sha256) for entry in sorted(self.files, key=lambda e: e.name)]
        return digest_of(listing)


class Tombstone(Record):
    """What was removed from an artifact because it held rows of erased users, and why.

    `removed` are names of its files (all that a late commit would bring, where it is not made
    yet). A *usable* artifact still serves as a model: only rows beside its weights are gone.
    `erasure` is the number of the record in the pointer `erasures`.
    """

    schema_version: int = SCHEMA_VERSION
    ref: ArtifactRef
    erasure: int = Field(ge=1)
    removed: tuple[str, ...]
    usable: bool


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: sorted keys, no spaces, NaN refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Attempt:
    """One try at making an artifact. Write files below `folder`, then `commit`."""

    def __init__(self, store: Store, ref: ArtifactRef, scratch: Path) -> None:
        self.store = store
        self.ref = ref
        self.id = uuid.uuid4().hex[:12]
        if isinstance(store, LocalStore):
            self.folder = store.local_path(f"{ref.path}/attempts/{self.id}")
        else:
            self.folder = scratch / ref.key / self.id
        self.folder.mkdir(parents=True)

    def commit(
        self,
        *,
        kind: str,
        stage_version: int,
        row_counts: Mapping[str, int] | None = None,
        metrics: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        inputs: Mapping[str, InputRecord] | None = None,
        seed: int = 0,
        timings_s: Mapping[str, float] | None = None,
    ) -> Manifest:
        """Upload the files and put the manifest; returns the winner's if another was first."""
        manifest = Manifest(
            ref=self.ref,
            kind=kind,
            stage_version=stage_version,
            attempt=self.id,
            files=self._entries(),
            row_counts=dict(row_counts or {}),
            metrics=dict(metrics or {}),
            config=dict(config or {}),
            inputs=dict(inputs or {}),
            seed=seed,
            code=code_version(),
            packages=package_versions(),
            timings_s=dict(timings_s or {}),
        )
        for entry in manifest.files:
            self.store.upload(
                self.folder / entry.name, f"{self.ref.path}/attempts/{self.id}/{entry.name}"
            )
        retired = read_tombstone(self.store, self.ref)
        if retired is not None:
            self.drop()
            raise ArtifactRetired(_retired(retired))
        data = manifest.model_dump_json(indent=1).encode()
        if self.store.put_if_absent(f"{self.ref.path}/manifest.json", data):
            self._tidy()
            return manifest
        winner = read_manifest(self.store, self.ref)
        if winner.attempt != self.id:  # else it is ours: the put was repeated after a lost answer
            self.drop()
        self._tidy()
        return winner

    def _tidy(self) -> None:
        """Leave no second copy of what has been uploaded on this machine."""
        if not isinstance(self.store, LocalStore):
            shutil.rmtree(self.folder, ignore_errors=True)

    def drop(self) -> None:
        """Remove what this attempt wrote, here and in the store."""
        for path in self.store.list(f"{self.ref.path}/attempts/{self.id}"):
            self.store.delete(path)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _entries(self) -> tuple[FileEntry, ...]:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        if not files:
            raise ArtifactError(
                f"{self.ref.path}: the stage wrote no file, so there is no artifact"
            )
        return tuple(
            FileEntry(
                name=path.relative_to(self.folder).as_posix(),
                num_bytes=path.stat().st_size,
                sha256=file_sha256(path),
            )
            for path in files
        )


def model_digest(manifest: Manifest) -> str:
    """Digest of a model artifact's `model/` folder: what production, traffic rows, verdicts and
    approvals all mean by "this model"."""
    entries = sorted(
        [entry.name.removeprefix("model/"), entry.sha256]
        for entry in manifest.files
        if entry.name.startswith("model/")
    )
    if not entries:
        raise ArtifactError(f"{manifest.ref.path} holds no model/ folder")
    return digest_of(entries)


def folder_model_digest(folder: Path) -> str:
    """`model_digest` of a model folder that is not committed yet."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return digest_of(
        sorted([file.relative_to(folder).as_posix(), file_sha256(file)] for file in files)
    )


def is_done(store: Store, ref: ArtifactRef) -> bool:
    """Whether nothing is left to make: the artifact was committed, or retired in advance (then
    reading it says so)."""
    return store.exists(f"{ref.path}/manifest.json") or store.exists(tombstone_path(ref))


def read_tombstone(store: Store, ref: ArtifactRef) -> Tombstone | None:
    """What was removed from the artifact, if anything was."""
    path = tombstone_path(ref)
    try:
        return Tombstone.model_validate_json(store.get(path))
    except StoreMissing:
        return None
    except ValidationError as error:
        raise ArtifactCorrupt(f"{path} is not a tombstone ({error}); restore it") from error


def tombstone_path(ref: ArtifactRef) -> str:
    return f"{ref.path}/retired.json"


def _retired(tombstone: Tombstone) -> str:
    ref = tombstone.ref
    return (
        f"{ref.stage} of generation {ref.generation} (key {ref.key}) was retired by record "
        f"{tombstone.erasure} of the erasure list, because it holds or would hold rows of erased "
        "users; a plan pinned before that cannot go on: start a new run, which leaves those "
        "users out"
    )


def read_manifest(store: Store, ref: ArtifactRef) -> Manifest:
    """The committed manifest; a missing, unreadable, retired or newer one is an error of its
    own."""
    retired = read_tombstone(store, ref)
    if retired is not None and not retired.usable:
        raise ArtifactRetired(_retired(retired))
    return read_record(store, ref)


def read_record(store: Store, ref: ArtifactRef) -> Manifest:
    """The manifest as a record of what was, whether or not its data was removed since."""
    path = f"{ref.path}/manifest.json"
    try:
        data = json.loads(store.get(path))
    except StoreMissing as error:
        raise ArtifactMissing(
            f"{ref.stage} of generation {ref.generation} is not done: no {path}; "
            "run that stage first"
        ) from error
    except ValueError as error:
        raise ArtifactCorrupt(
            f"{path} is not JSON ({error}); `flywheel invalidate {ref.key}` makes it anew"
        ) from error
    return _parse_manifest(data, path, ref)


def _parse_manifest(data: Any, path: str, ref: ArtifactRef) -> Manifest:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"{path} has schema version {version}, this flywheel reads up to {SCHEMA_VERSION}; "
            "upgrade the flywheel"
        )
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise ArtifactCorrupt(
            f"{path} is not a manifest ({error.error_count()} faults, first: "
            f"{error.errors()[0]['msg']}); `flywheel invalidate {ref.key}` makes it anew"
        ) from error
    if manifest.ref != ref:
        raise ArtifactCorrupt(f"{path} describes {manifest.ref.path}: it was copied or edited")
    return manifest


def materialise(store: Store, ref: ArtifactRef, cache_folder: Path) -> Path:
    """A local folder with the artifact's files, every byte verified against the manifest.

    A local store's own folder is returned as it is; from elsewhere the files are downloaded
    once into `cache_folder`, by digest. What a tombstone says was removed is not there.
    """
    manifest = read_manifest(store, ref)
    retired = read_tombstone(store, ref)
    removed = set(retired.removed) if retired else set()
    files = [entry for entry in manifest.files if entry.name not in removed]
    base = f"{ref.path}/attempts/{manifest.attempt}"
    if isinstance(store, LocalStore):
        folder = store.local_path(base)
        for entry in files:
            _verify(folder / entry.name, entry, ref)
        return folder
    folder = cache_folder / manifest.digest
    for entry in files:
        _fetch(store, f"{base}/{entry.name}", folder / entry.name, entry, ref)
    return folder


def _fetch(store: Store, path: str, target: Path, entry: FileEntry, ref: ArtifactRef) -> None:
    """One verified file in the cache; what a cache holds wrongly is downloaded again."""
    if target.is_file():
        try:
            _verify(target, entry, ref)
        except ArtifactCorrupt:
            target.unlink()
        else:
            return
    try:
        store.download(path, target)
    except StoreMissing as error:
        raise _gone(entry.name, ref) from error
    try:
        _verify(target, entry, ref)
    except ArtifactCorrupt:
        target.unlink()
        raise


def _gone(name: str, ref: ArtifactRef) -> ArtifactCorrupt:
    return ArtifactCorrupt(
        f"{ref.path}: {name} is gone; `flywheel invalidate {ref.key}` makes it anew"
    )


def _verify(path: Path, entry: FileEntry, ref: ArtifactRef) -> None:
    if not path.is_file():
        raise _gone(entry.name, ref)
    if path.stat().st_size != entry.num_bytes or file_sha256(path) != entry.sha256:
        raise ArtifactCorrupt(
            f"{ref.path}: {entry.name} differs from its manifest (expected sha256 "
            f"{entry.sha256[:12]}…); `flywheel invalidate {ref.key}` makes it anew"
        )


def file_of(manifest: Manifest, name: str) -> str:
    """Store path of one file of a committed artifact."""
    if all(entry.name != name for entry in manifest.files):
        known = ", ".join(sorted(entry.name for entry in manifest.files))
        raise ArtifactError(f"{manifest.ref.path} has no file {name!r}; it has: {known}")
    return str(PurePosixPath(manifest.ref.path) / "attempts" / manifest.attempt / name)


def read_file(store: Store, ref: ArtifactRef, name: str) -> bytes:
    """One small file of a committed artifact, verified."""
    manifest = read_manifest(store, ref)
    retired = read_tombstone(store, ref)
    if retired is not None and name in retired.removed:
        raise ArtifactRetired(_retired(retired))
    try:
        data = store.get(file_of(manifest, name))
    except StoreMissing as error:
        raise _gone(name, ref) from error
    expected = next(entry.sha256 for entry in manifest.files if entry.name == name)
    if hashlib.sha256(data).hexdigest() != expected:
        raise ArtifactCorrupt(
            f"{ref.path}: {name} differs from its manifest; `flywheel invalidate {ref.key}` "
            "makes it anew"
        )
    return data
