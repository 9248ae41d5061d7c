"""A day's version in force, and which of its rows a new version would no longer have.

Ingesting a day again appends a version that takes the place of the one in force (DESIGN, pinned
plans keep theirs). A file of the next day with one straggler in it would so replace a whole day by
one row; such a version is refused unless the caller asks for it.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.artifacts import ArtifactRef, read_manifest
from flywheel_core.erasure.survey import batches
from flywheel_core.errors import ArtifactError, StoreMissing
from flywheel_core.pointers import PointerRecord
from flywheel_core.row_ids import SeenIds, are_in, hashes_of
from flywheel_core.store import Store


@dataclass(frozen=True)
class RefusedDay:
    """A day that was not taken in: its `rows` and `quarantined` lie in the source only. The
    `version` in force has `rows_in_force`, of which the source lacks `rows_missing`."""

    day: str
    rows: int
    quarantined: int
    version: int
    rows_in_force: int
    rows_missing: int

    def summary(self) -> str:
        return (
            f"  {self.day}: NOT TAKEN IN ({self.rows} rows, {self.quarantined} quarantined): "
            f"version {self.version} in force has {self.rows_in_force} rows, and "
            f"{self.rows_missing} of them are not in this file; give the whole day, or --replace"
        )


def rows_missing(store: Store, in_force: PointerRecord, traffic: Path) -> int:
    """How many rows of the version in force have no row of the same id in `traffic`. Of a version
    that cannot be read, all of them: nobody can say otherwise."""
    ours = SeenIds()
    with pq.ParquetFile(traffic) as file:
        for batch in file.iter_batches(columns=["row_id"]):
            ours.are_new(batch.column("row_id").to_pylist())
    known, missing = ours.sorted_hashes(), 0
    try:
        manifest = read_manifest(store, ArtifactRef.model_validate(in_force.value["ref"]))
        for table in batches(store, manifest, "traffic.parquet", ["row_id"]):
            theirs = hashes_of(table.column("row_id").to_pylist())
            missing += len(theirs) - int(are_in(theirs, known).sum())
    except (ArtifactError, StoreMissing, pa.ArrowException, OSError):
        return int(in_force.value["rows"])
    return missing
