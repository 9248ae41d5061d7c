"""`flywheel ingest`: a file of logged traffic becomes day partitions.

A day is an artifact of stage `traffic_day` (`traffic.parquet`, and `quarantine.jsonl` where rows
were set aside), keyed by its content, and the pointer `traffic/<day>` names it. Ingesting other
content for a day appends a version; plans pinned before keep theirs. Ingesting the same content
again changes nothing and says so, unless `flywheel invalidate` called that artifact bad.
"""

import datetime
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from flywheel_core.artifacts import (
    ArtifactRef,
    Attempt,
    Manifest,
    file_sha256,
    is_done,
    read_manifest,
)
from flywheel_core.erasure.users import NOBODY, Erasures, may_be_kept, read_erasures
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.ingest.contract import BATCH_ROWS, BadRow, read_contract
from flywheel_core.ingest.topical_chat import HistoryLimits, read_topical_chat
from flywheel_core.keys import stage_key
from flywheel_core.pointers import Pointer
from flywheel_core.records import TRAFFIC
from flywheel_core.store import Store

STAGE, STAGE_VERSION, KIND = "traffic_day", 1, "traffic"
FORMATS = ("contract", "topical-chat")
ERASED = "user_id: on the list of erased users"
Reader = Callable[[Path], Iterator[dict[str, Any] | BadRow]]


@dataclass(frozen=True)
class DayReport:
    """One day: its rows, and the version that is in force. `changed` is False where exactly this
    content was there before."""

    day: str
    rows: int
    quarantined: int
    version: int
    key: str
    digest: str
    changed: bool


@dataclass(frozen=True)
class IngestReport:
    """What became of every row of a file. `quarantined` counts by reason."""

    source: str
    file_format: str
    flywheel: str
    read: int
    accepted: int
    quarantined: Mapping[str, int]
    days: tuple[DayReport, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [
            f"{self.source}: {self.read} rows read, {self.accepted} accepted, "
            f"{sum(self.quarantined.values())} quarantined"
        ]
        lines += [f"  quarantined {count}: {name}" for name, count in self.quarantined.items()]
        for one in self.days:
            state = "new version" if one.changed else "already there, nothing changed: version"
            lines.append(f"  {one.day}: {one.rows} rows, {state} {one.version} (key {one.key})")
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
    by: str = "flywheel ingest",
) -> IngestReport:
    """Take a file in. `day` is for rows that carry none; the two limits are Topical-Chat's."""
    source = Path(path)
    _check_flywheel(flywheel)
    read = _reader(file_format, day, HistoryLimits(max_history_turns, max_words))
    if not source.is_file():
        raise InputDataError(f"{source}: no such file; give a Parquet, JSONL or Topical-Chat file")
    erasures = read_erasures(store, flywheel)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as open_days:
        sorter = _Sorter(Path(scratch), open_days, erasures)
        sorter.take(read(source))
        open_days.close()
        if not sorter.days:
            raise InputDataError(_nothing_accepted(source, file_format, sorter))
        if read_erasures(store, flywheel).digest != erasures.digest:
            raise InputDataError(
                f"{source}: users were erased while it was read, so nothing of it was committed; "
                "run this again"
            )
        source_digest = file_sha256(source)
        days = tuple(
            _commit_day(store, flywheel, one, source, source_digest, by)
            for _, one in sorted(sorter.days.items())
        )
    return IngestReport(
        source=source.name,
        file_format=file_format,
        flywheel=flywheel,
        read=sorter.read,
        accepted=sum(one.rows for one in days),
        quarantined=dict(sorted(sorter.reasons.items())),
        days=days,
    )


def _check_flywheel(flywheel: str) -> None:
    try:
        ArtifactRef(flywheel=flywheel, generation=0, stage=STAGE, key="0")
    except ValidationError as error:
        raise ConfigError(
            f"flywheel: {flywheel!r} is not a name; use letters, digits, '_', '.' and '-'"
        ) from error


def _reader(file_format: str, day: str | None, limits: HistoryLimits) -> Reader:
    if file_format not in FORMATS:
        raise ConfigError(f"format: {file_format!r} is unknown; use one of {', '.join(FORMATS)}")
    if day is not None and not _is_date(day):
        raise ConfigError(f"day: {day!r} is not a date; write it as YYYY-MM-DD")
    given = {name: value for name, value in asdict(limits).items() if value is not None}
    for name, value in given.items():
        if value < 1:
            raise ConfigError(f"{name}: {value} must be at least 1, or left out")
    if file_format == "topical-chat":
        return partial(read_topical_chat, day=day, limits=limits)
    if given:
        raise ConfigError(
            f"{', '.join(given)}: only --format topical-chat cuts histories; rows of the "
            "contract carry theirs as it is; leave it out"
        )
    return partial(read_contract, day=day)


def _is_date(text: str) -> bool:
    try:
        return str(datetime.date.fromisoformat(text)) == text
    except ValueError:
        return False


def _nothing_accepted(source: Path, file_format: str, sorter: "_Sorter") -> str:
    if not sorter.read:
        return f"{source}: holds no row; there is no day of traffic in it"
    reasons = "; ".join(f"{name} ({count})" for name, count in sorter.reasons.most_common(3))
    return (
        f"{source}: none of {sorter.read} rows follows the format {file_format!r}: {reasons}. "
        f"Formats are {', '.join(FORMATS)}; the contract is in flywheel_core/records.py"
    )


class _Day:
    """One day's rows as they come, written through to scratch; memory holds one batch."""

    def __init__(self, day: str, folder: Path) -> None:
        self.day, self.folder = day, folder
        folder.mkdir()
        self._writer = pq.ParquetWriter(folder / "traffic.parquet", TRAFFIC, compression="zstd")
        self._batch: list[dict[str, Any]] = []
        self._content = hashlib.sha256()
        self.rows = self.quarantined = 0

    def add(self, row: dict[str, Any]) -> None:
        self.rows += 1
        self._content.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        self._batch.append(row)
        if len(self._batch) >= BATCH_ROWS:
            self._flush()

    def set_aside(self, bad: BadRow) -> None:
        self.quarantined += 1
        line = json.dumps(
            {"where": bad.where, "reason": bad.reason, "row": bad.row}, sort_keys=True, default=str
        )
        self._content.update(line.encode() + b"\n")
        with (self.folder / "quarantine.jsonl").open("a") as file:
            file.write(line + "\n")

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._batch:
            self._writer.write_table(pa.Table.from_pylist(self._batch, schema=TRAFFIC))
            self._batch = []

    @property
    def content_digest(self) -> str:
        return self._content.hexdigest()


class _Sorter:
    """Rows to their days. Bad rows lie with their day, or with the oldest where it is unknown.

    Rows of erased users are counted, and nothing of them is stored; once anybody is erased, that
    goes for the text of a bad row which does not say whose it is, too.
    """

    def __init__(self, scratch: Path, open_days: ExitStack, erasures: Erasures = NOBODY) -> None:
        self.scratch, self.open_days, self.erasures = scratch, open_days, erasures
        self.days: dict[str, _Day] = {}
        self.read = 0
        self.reasons: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._bad: list[BadRow] = []

    def take(self, rows: Iterable[dict[str, Any] | BadRow]) -> None:
        for number, row in enumerate(rows, start=1):
            self.read = number
            if isinstance(row, BadRow):
                kept = row.row if may_be_kept(row.row, self.erasures) else None
                self._reject(replace(row, row=kept))
            elif not may_be_kept(row, self.erasures):
                self._reject(BadRow(f"row {number}", ERASED, None, row["day"]))
            elif self._is_new(row["row_id"]):
                self._day(row["day"]).add(row)
            else:
                self._reject(BadRow(f"row {number}", "row_id: seen before", row, row["day"]))
        if self.days:
            oldest = min(self.days)
            for bad in self._bad:
                self.days.get(bad.day or oldest, self.days[oldest]).set_aside(bad)

    def _reject(self, bad: BadRow) -> None:
        self.reasons[bad.reason] += 1
        self._bad.append(bad)

    def _is_new(self, row_id: str) -> bool:
        digest = hashlib.blake2b(row_id.encode(), digest_size=8).digest()
        known = digest in self._seen
        self._seen.add(digest)
        return not known

    def _day(self, day: str) -> _Day:
        if day not in self.days:
            self.days[day] = _Day(day, self.scratch / day)
            self.open_days.callback(self.days[day].close)
        return self.days[day]


def _commit_day(
    store: Store, flywheel: str, one: _Day, source: Path, source_digest: str, by: str
) -> DayReport:
    """Commit the day's artifact unless it is there, and point to it unless the pointer does."""
    asked_for = {
        "stage": STAGE,
        "version": STAGE_VERSION,
        "day": one.day,
        "content": one.content_digest,
    }
    key = stage_key(store, flywheel, asked_for)
    ref = ArtifactRef(flywheel=flywheel, generation=0, stage=STAGE, key=key)
    if is_done(store, ref):
        manifest = read_manifest(store, ref)
    else:
        manifest = _commit_files(store, ref, one, source, source_digest)
    pointer = Pointer(store, flywheel, f"traffic/{one.day}")
    newest = pointer.newest()
    changed = newest is None or newest.value["ref"] != ref.model_dump()
    if newest is None or changed:
        value = {
            "ref": ref.model_dump(),
            "digest": manifest.digest,
            "rows": one.rows,
            "source": source.name,
        }
        newest = pointer.append(value, by=by, reason=f"ingested from {source.name}")
    return DayReport(
        one.day, one.rows, one.quarantined, newest.number, ref.key, manifest.digest, changed
    )


def _commit_files(
    store: Store, ref: ArtifactRef, one: _Day, source: Path, source_digest: str
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
