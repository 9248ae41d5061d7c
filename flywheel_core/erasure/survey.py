"""Every artifact of a flywheel, which hold rows of erased users, and what was made of those.

Rows travel along the manifests' input refs, except through a model: who takes `production` as an
input reads its weights. Which of the rows further on are whose can no longer be told everywhere (a
supervised row names no user), so an artifact made from such rows loses all its row files.
"""

import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.artifacts import (
    ArtifactRef,
    Manifest,
    Tombstone,
    file_of,
    read_record,
    read_tombstone,
    tombstone_path,
)
from flywheel_core.erasure.users import LIST_FILE, Erasures, may_be_kept, without_erased
from flywheel_core.errors import ArtifactError, StoreMissing
from flywheel_core.store import LocalStore, Store

QUARANTINE_FILE = "quarantine.jsonl"
ROW_SUFFIXES = (".parquet", ".jsonl", ".csv")
ROW_FREE = (
    *("report.json", "metrics.json", "standards.json", "stopping.json", "result.json"),
    *("signals.json", "ledger.json", "ledger.svg"),
    LIST_FILE,
)
"""Files beside an artifact's models that hold no rows. Any other is taken to hold some."""


class Survey:
    """Every committed artifact by its ref, every tombstone, and what could not be checked; after a
    search for holders, which of the users looked for were `found` in one."""

    def __init__(self, store: Store, flywheel: str) -> None:
        self.store = store
        self.manifests: dict[ArtifactRef, Manifest] = {}
        self.tombstones: dict[ArtifactRef, Tombstone] = {}
        self.unchecked: list[str] = []
        self.found: set[str] = set()
        for ref in _all_refs(store, flywheel):
            self._take(ref)

    def _take(self, ref: ArtifactRef) -> None:
        tombstone = read_tombstone(self.store, ref)
        if tombstone is not None:
            self.tombstones[ref] = tombstone
        try:
            self.manifests[ref] = read_record(self.store, ref)
        except ArtifactError as error:
            if tombstone is None:
                self.unchecked.append(f"{ref.path}: {error}")

    def rows(self, ref: ArtifactRef) -> tuple[str, ...]:
        """Names of the artifact's files that hold, or may hold, rows."""
        names = (entry.name for entry in self.manifests[ref].files)
        return tuple(name for name in names if _may_hold_rows(name))

    def is_model(self, ref: ArtifactRef) -> bool:
        """Whether it serves as a model: then whoever takes it reads weights, not its rows."""
        return any(entry.name.startswith("model/") for entry in self.manifests[ref].files)

    def has_weights(self, ref: ArtifactRef) -> bool:
        """Whether it holds models, of whatever kind: each has a folder."""
        return any("/" in entry.name for entry in self.manifests[ref].files)

    def holders(self, erasures: Erasures, user_ids: frozenset[str]) -> set[ArtifactRef]:
        """Artifacts in which rows of erased users are found."""
        return {ref for ref in self.manifests if self._count(ref, erasures, user_ids)}

    def _count(self, ref: ArtifactRef, erasures: Erasures, user_ids: frozenset[str]) -> int:
        gone = self.tombstones[ref].removed if ref in self.tombstones else ()
        names = [name for name in self.rows(ref) if name not in gone]
        manifest = self.manifests[ref]
        try:
            counts = 0
            for name in names:
                counts += _count_erased(self.store, manifest, name, erasures, user_ids)
                self.found |= _found(self.store, manifest, name, user_ids - self.found)
            return counts
        except (pa.ArrowException, StoreMissing, OSError, ValueError, KeyError) as error:
            self.unchecked.append(f"{ref.path}: {type(error).__name__} in one of {names}")
            return 0

    def touched(self, holders: Iterable[ArtifactRef]) -> list[ArtifactRef]:
        """`holders`, what was retired before, and whatever was made from their rows."""
        retired = (ref for ref in self.tombstones if ref in self.manifests)
        return self.closure(
            [*holders, *retired], lambda ref: bool(self.rows(ref)) and not self.is_model(ref)
        )

    def closure(
        self, start: Iterable[ArtifactRef], passes_on: Callable[[ArtifactRef], bool]
    ) -> list[ArtifactRef]:
        """`start`, and every artifact that has an input in it which passes something on."""
        reached = set(start)
        while True:
            sources = {ref for ref in reached if passes_on(ref)}
            more = {
                ref
                for ref, manifest in self.manifests.items()
                if any(one.ref in sources for one in manifest.inputs.values())
            } - reached
            if not more:
                return sorted(reached, key=lambda ref: ref.path)
            reached |= more

    def retire(self, ref: ArtifactRef, record_number: int) -> tuple[str, ...]:
        """Put the tombstone, then remove the row files, whose names are returned: a reader never
        meets the gap unexplained. What was retired before is looked through again, because a
        run may have broken off, and a driver may have committed late."""
        if ref in self.tombstones:
            self.remove(ref, self.tombstones[ref].removed or self.rows(ref))
            return ()
        names = self.rows(ref)
        if names:
            put_tombstone(self.store, ref, record_number, names, usable=self.is_model(ref))
            self.remove(ref, names)
        return names

    def remove(self, ref: ArtifactRef, names: Collection[str]) -> None:
        """Delete those files, and every file of an attempt that never was committed."""
        manifest = self.manifests.get(ref)
        entries = manifest.files if manifest else ()
        kept = {file_of(manifest, e.name) for e in entries if manifest and e.name not in names}
        for path in self.store.list(f"{ref.path}/attempts"):
            if path not in kept:
                self.store.delete(path)


def put_tombstone(
    store: Store, ref: ArtifactRef, record_number: int, removed: tuple[str, ...], *, usable: bool
) -> None:
    tombstone = Tombstone(ref=ref, erasure=record_number, removed=removed, usable=usable)
    store.put_if_absent(tombstone_path(ref), tombstone.model_dump_json(indent=1).encode())


def _all_refs(store: Store, flywheel: str) -> Iterator[ArtifactRef]:
    """Every artifact with a manifest or a tombstone."""
    pattern = re.compile(
        re.escape(flywheel) + r"/gen-(\d{4,})/([^/]+)/([^/]+)/(?:manifest|retired)\.json"
    )
    found = (pattern.fullmatch(path) for path in store.list(flywheel))
    named = {(int(m.group(1)), m.group(2), m.group(3)) for m in found if m}
    for generation, stage, key in sorted(named):
        yield ArtifactRef(flywheel=flywheel, generation=generation, stage=stage, key=key)


def _may_hold_rows(name: str) -> bool:
    """Tables do, wherever they lie; beside the model folders, so does what is not known not to."""
    return name.endswith(ROW_SUFFIXES) or ("/" not in name and name not in ROW_FREE)


def _count_erased(
    store: Store, manifest: Manifest, name: str, erasures: Erasures, user_ids: frozenset[str]
) -> int:
    """Rows of erased users in one file; 0 for a file that names no users."""
    if name == QUARANTINE_FILE:
        lines = store.get(file_of(manifest, name)).splitlines()
        return sum(not may_stay(line, erasures, user_ids) for line in lines)
    if not name.endswith(".parquet"):
        return 0
    return sum(
        batch.num_rows - without_erased(batch, erasures).num_rows
        for batch in batches(store, manifest, name, ["user_id"])
    )


def _found(store: Store, manifest: Manifest, name: str, user_ids: frozenset[str]) -> frozenset[str]:
    """Which of `user_ids` one file names."""
    if not user_ids:
        return user_ids
    if name == QUARANTINE_FILE:
        lines = store.get(file_of(manifest, name)).splitlines()
        return frozenset(one for one in user_ids if any(_holds(line, one) for line in lines))
    if not name.endswith(".parquet"):
        return frozenset()
    found: set[str] = set()
    for batch in batches(store, manifest, name, ["user_id"]):
        found |= user_ids.intersection(batch.column("user_id").unique().to_pylist())
    return frozenset(found)


def _holds(line: bytes, user_id: str) -> bool:
    return json.dumps(user_id)[1:-1].encode() in line


def batches(
    store: Store, manifest: Manifest, name: str, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """A Parquet file of an artifact in batches; none where it lacks one of `columns`."""
    with tempfile.TemporaryDirectory() as scratch:
        if isinstance(store, LocalStore):
            path = store.local_path(file_of(manifest, name))
        else:
            path = Path(scratch) / "file.parquet"
            store.download(file_of(manifest, name), path)
        with pq.ParquetFile(path) as file:
            if columns and set(columns) - set(file.schema_arrow.names):
                return
            for batch in file.iter_batches(columns=columns):
                yield pa.Table.from_batches([batch])


def may_stay(line: bytes, erasures: Erasures, user_ids: Collection[str]) -> bool:
    """Whether a quarantined line may keep its text. One that names no user may, unless it holds
    one of the identifiers just given."""
    row = json.loads(line)["row"]
    if row is None:
        return True
    if any(_holds(line, one) for one in user_ids):
        return False
    names_nobody = not isinstance(row, Mapping) or "user_id" not in row
    return names_nobody or may_be_kept(row, erasures)
