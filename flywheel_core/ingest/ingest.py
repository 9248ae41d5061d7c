"""`flywheel ingest`: a file of logged traffic becomes day partitions.

A day is an artifact of stage `traffic_day` (`traffic.parquet`, and `quarantine.jsonl` where rows
were set aside), keyed by its content, and the pointer `traffic/<day>` names it. Ingesting other
content for a day appends a version; plans pinned before keep theirs. A version that lacks rows of
the one in force is refused unless `replace` is set, and the other days are taken in. Ingesting the
same content again changes nothing and says so, unless `flywheel invalidate` called it bad.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flywheel_core.artifacts import (
    ArtifactRef,
    Attempt,
    Manifest,
    file_sha256,
    is_done,
    read_manifest,
)
from flywheel_core.erasure.users import read_erasures
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.ingest.sorting import Day, OnRows, not_told, reader_of, said_of_rows, sorted_rows
from flywheel_core.ingest.topical_chat import HistoryLimits
from flywheel_core.ingest.versions import RefusedDay, rows_missing
from flywheel_core.keys import stage_key
from flywheel_core.pointers import Pointer
from flywheel_core.store import Store

STAGE, STAGE_VERSION, KIND = "traffic_day", 1, "traffic"


@dataclass(frozen=True)
class DayReport:
    """One day: its rows, and the version that is in force. `changed` is False where exactly this
    content was there before. `rows_before` is what the version before had, None where this is the
    first, and `rows_dropped` how many of those are in this one no longer."""

    day: str
    rows: int
    quarantined: int
    version: int
    key: str
    digest: str
    changed: bool
    rows_before: int | None = None
    rows_dropped: int = 0

    def summary(self) -> str:
        if not self.changed:
            state = "already there, nothing changed: version"
        elif self.rows_before is None:
            state = "new version"
        else:
            gone = f", of which {self.rows_dropped} are dropped" if self.rows_dropped else ""
            state = f"in place of {self.rows_before}{gone}: new version"
        return f"  {self.day}: {self.rows} rows, {state} {self.version} (key {self.key})"


@dataclass(frozen=True)
class IngestReport:
    """What became of every row of a file. `quarantined` counts by reason; `accepted` rows lie in
    `days`, and those of `refused` days nowhere but in the file."""

    source: str
    file_format: str
    flywheel: str
    read: int
    accepted: int
    quarantined: Mapping[str, int]
    days: tuple[DayReport, ...]
    refused: tuple[RefusedDay, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        """A few lines for a person."""
        lines = said_of_rows(self.source, self.read, self.accepted, self.quarantined)
        lines += [one.summary() for one in self.days]
        lines += [one.summary() for one in self.refused]
        return "\n".join(lines)


def ingest(
    path: Path | str,
    file_format: str,
    store: Store,
    flywheel: str,
    *,
    day: str | None = None,
    max_history_turns: int | None = None,
    max_words: int | None = None,
    replace: bool = False,
    by: str = "flywheel ingest",
    on_rows: OnRows = not_told,
) -> IngestReport:
    """Take a file in. `day` is for rows that carry none; the two limits are Topical-Chat's;
    `replace` lets a day's version lose rows that the one in force has;
    `on_rows` hears now and then how many rows were read."""
    source = Path(path)
    _check_flywheel(flywheel)
    read = reader_of(file_format, day, HistoryLimits(max_history_turns, max_words))
    erasures = read_erasures(store, flywheel)
    with sorted_rows(source, file_format, read, erasures, on_rows) as sorter:
        if read_erasures(store, flywheel).digest != erasures.digest:
            raise InputDataError(
                f"{source}: users were erased while it was read, so nothing of it was committed; "
                "run this again"
            )
        source_digest = file_sha256(source)
        outcomes = [
            _take_day(store, flywheel, one, source, source_digest, by, replace=replace)
            for _, one in sorted(sorter.days.items())
        ]
    days = tuple(one for one in outcomes if isinstance(one, DayReport))
    return IngestReport(
        source=source.name,
        file_format=file_format,
        flywheel=flywheel,
        read=sorter.read,
        accepted=sum(one.rows for one in days),
        quarantined=dict(sorted(sorter.reasons.items())),
        days=days,
        refused=tuple(one for one in outcomes if isinstance(one, RefusedDay)),
    )


def _check_flywheel(flywheel: str) -> None:
    try:
        ArtifactRef(flywheel=flywheel, generation=0, stage=STAGE, key="0")
    except ValidationError as error:
        raise ConfigError(
            f"flywheel: {flywheel!r} is not a name; use letters, digits, '_', '.' and '-'"
        ) from error


def _take_day(
    store: Store,
    flywheel: str,
    one: Day,
    source: Path,
    source_digest: str,
    by: str,
    *,
    replace: bool,
) -> DayReport | RefusedDay:
    """Commit the day's artifact unless it is there, and point to it unless the pointer does."""
    asked_for = {
        "stage": STAGE,
        "version": STAGE_VERSION,
        "day": one.day,
        "content": one.content_digest,
    }
    key = stage_key(store, flywheel, asked_for)
    ref = ArtifactRef(flywheel=flywheel, generation=0, stage=STAGE, key=key)
    pointer = Pointer(store, flywheel, f"traffic/{one.day}")
    newest = pointer.newest()
    if newest is not None and newest.value["ref"] == ref.model_dump():
        digest = read_manifest(store, ref).digest
        return DayReport(one.day, one.rows, one.quarantined, newest.number, key, digest, False)
    before, missing = None, 0
    if newest is not None:
        before = int(newest.value["rows"])
        missing = rows_missing(store, newest, one.folder / "traffic.parquet")
        if missing and not replace:
            return RefusedDay(one.day, one.rows, one.quarantined, newest.number, before, missing)
    manifest = (
        read_manifest(store, ref)
        if is_done(store, ref)
        else _commit_files(store, ref, one, source, source_digest)
    )
    value = {
        "ref": ref.model_dump(),
        "digest": manifest.digest,
        "rows": one.rows,
        "source": source.name,
    }
    record = pointer.move(
        value,
        expected_number=newest.number if newest else 0,
        by=by,
        reason=f"ingested from {source.name}",
    )
    return DayReport(
        one.day,
        one.rows,
        one.quarantined,
        record.number,
        key,
        manifest.digest,
        changed=True,
        rows_before=before,
        rows_dropped=missing,
    )


def _commit_files(
    store: Store, ref: ArtifactRef, one: Day, source: Path, source_digest: str
) -> Manifest:
    with tempfile.TemporaryDirectory() as scratch:
        attempt = Attempt(store, ref, Path(scratch))
        for file in one.folder.iterdir():
            (attempt.folder / file.name).write_bytes(file.read_bytes())
        return attempt.commit(
            kind=KIND,
            stage_version=STAGE_VERSION,
            row_counts={"rows": one.rows, "quarantined": one.quarantined},
            config={"day": one.day, "source": source.name, "source_sha256": source_digest},
        )
