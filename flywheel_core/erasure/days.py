"""New versions of the days of traffic that hold rows of erased users."""

import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from flywheel_core.artifacts import ArtifactRef, Attempt, Manifest, file_of, is_done, read_manifest
from flywheel_core.days import ingested_days
from flywheel_core.erasure.survey import QUARANTINE_FILE, batches, may_stay
from flywheel_core.erasure.users import Added, may_be_kept, without_erased
from flywheel_core.ingest.ingest import KIND, STAGE, STAGE_VERSION
from flywheel_core.keys import stage_key
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.records import TRAFFIC
from flywheel_core.store import Store

TRAFFIC_FILE = "traffic.parquet"


@dataclass(frozen=True)
class RewrittenDay:
    """A day's new version, and how many rows it has less."""

    day: str
    version: int
    rows_removed: int
    old_key: str
    new_key: str


@dataclass(frozen=True)
class Rewriter:
    """Rewrites days without the users of a list; `user_ids` are those just put on it."""

    store: Store
    flywheel: str
    added: Added
    user_ids: frozenset[str]
    by: str

    def rewrite_days(
        self, holders: Collection[ArtifactRef], manifests: Mapping[ArtifactRef, Manifest]
    ) -> list[RewrittenDay]:
        """Every day whose version in force is among `holders`."""
        done = []
        for day in ingested_days(self.store, self.flywheel):
            pointer = Pointer(self.store, self.flywheel, f"traffic/{day}")
            newest = pointer.newest()
            if newest is None:
                continue
            ref = ArtifactRef.model_validate(newest.value["ref"])
            if ref in holders:
                done.append(self._rewrite(day, pointer, newest, manifests[ref]))
        return done

    def _rewrite(
        self, day: str, pointer: Pointer, newest: PointerRecord, old: Manifest
    ) -> RewrittenDay:
        """Commit the day anew, then point to it, unless the pointer has moved meanwhile."""
        new = self._commit(day, old)
        value = newest.value | {
            "ref": new.ref.model_dump(),
            "digest": new.digest,
            "rows": new.row_counts["rows"],
        }
        reason = f"rows of erased users left out (record {self.added.record_number})"
        record = pointer.move(value, expected_number=newest.number, by=self.by, reason=reason)
        removed = new.row_counts["rows_erased"]
        return RewrittenDay(day, record.number, removed, old.ref.key, new.ref.key)

    def _commit(self, day: str, old: Manifest) -> Manifest:
        """The old version is named in the config, not as an input: its rows are not all here."""
        asked_for = {
            "stage": STAGE,
            "version": STAGE_VERSION,
            "day": day,
            "rewritten_from": old.ref.key,
            "erasures": self.added.erasures.digest,
        }
        key = stage_key(self.store, self.flywheel, asked_for)
        ref = ArtifactRef(flywheel=self.flywheel, generation=0, stage=STAGE, key=key)
        if is_done(self.store, ref):
            return read_manifest(self.store, ref)
        with tempfile.TemporaryDirectory() as scratch:
            attempt = Attempt(self.store, ref, Path(scratch))
            before, after = self._write_rows(old, attempt.folder / TRAFFIC_FILE)
            quarantined = self._write_quarantine(old, attempt.folder / QUARANTINE_FILE)
            return attempt.commit(
                kind=KIND,
                stage_version=STAGE_VERSION,
                row_counts={
                    "rows": after,
                    "rows_erased": before - after,
                    "quarantined": quarantined,
                },
                config={
                    "day": day,
                    "source": old.config.get("source"),
                    "rewritten_from": old.ref.key,
                    "erasure": self.added.record_number,
                },
            )

    def _write_rows(self, old: Manifest, path: Path) -> tuple[int, int]:
        """The traffic without their rows; rows before and after."""
        before = after = 0
        with pq.ParquetWriter(path, TRAFFIC, compression="zstd") as writer:
            for batch in batches(self.store, old, TRAFFIC_FILE):
                kept = without_erased(batch, self.added.erasures)
                before, after = before + batch.num_rows, after + kept.num_rows
                writer.write_table(kept.select(TRAFFIC.names).cast(TRAFFIC))
        return before, after

    def _write_quarantine(self, old: Manifest, path: Path) -> int:
        """The rows that were set aside; those of erased users, or of nobody known, without text."""
        if all(entry.name != QUARANTINE_FILE for entry in old.files):
            return 0
        lines = self.store.get(file_of(old, QUARANTINE_FILE)).splitlines()
        with path.open("w") as file:
            for line in lines:
                said = json.loads(line)
                keeps = may_be_kept(said["row"], self.added.erasures)
                if not (keeps and may_stay(line, self.added.erasures, self.user_ids)):
                    said["row"] = None
                file.write(json.dumps(said, sort_keys=True) + "\n")
        return len(lines)
