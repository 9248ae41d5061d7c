"""A file's rows, checked, sorted to their days on scratch disk: each accepted or set aside.

Both ways of ingesting share it: into the store as day partitions, or into a folder.
"""

import datetime
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.erasure.users import NOBODY, Erasures, may_be_kept
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.ingest.contract import BATCH_ROWS, BadRow, read_contract
from flywheel_core.ingest.topical_chat import HistoryLimits, read_topical_chat
from flywheel_core.records import TRAFFIC

FORMATS = ("flywheel", "contract", "topical-chat")
"""`contract` is the older name of `flywheel`: rows of `records.TRAFFIC`."""

ERASED = "user_id: on the list of erased users"
PROGRESS_ROWS = 10_000

Reader: TypeAlias = Callable[[Path], Iterator[dict[str, Any] | BadRow]]
OnRows: TypeAlias = Callable[[int], None]
"""Called every `PROGRESS_ROWS` rows with the number read."""


def not_told(rows: int) -> None:
    """For callers that show no progress."""


@contextmanager
def sorted_rows(
    source: Path,
    file_format: str,
    read: Reader,
    erasures: Erasures = NOBODY,
    on_rows: OnRows = not_told,
) -> Iterator["Sorter"]:
    """The file's days, closed and on scratch disk until the end of the block."""
    if not source.is_file():
        raise InputDataError(f"{source}: no such file; give a Parquet, JSONL or Topical-Chat file")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as open_days:
        sorter = Sorter(Path(scratch), open_days, erasures)
        sorter.take(read(source), on_rows)
        open_days.close()
        if not sorter.days:
            raise InputDataError(_nothing_accepted(source, file_format, sorter))
        yield sorter


def reader_of(file_format: str, day: str | None, limits: HistoryLimits) -> Reader:
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


def _nothing_accepted(source: Path, file_format: str, sorter: "Sorter") -> str:
    if not sorter.read:
        return f"{source}: holds no row; there is no day of traffic in it"
    reasons = "; ".join(f"{name} ({count})" for name, count in sorter.reasons.most_common(3))
    return (
        f"{source}: none of {sorter.read} rows follows the format {file_format!r}: {reasons}. "
        f"Formats are {', '.join(FORMATS)}; the contract is in flywheel_core/records.py"
    )


class Day:
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


class Sorter:
    """Rows to their days. Bad rows lie with their day, or with the oldest where it is unknown.

    Rows of erased users are counted, and nothing of them is stored; once anybody is erased, that
    goes for the text of a bad row which does not say whose it is, too.
    """

    def __init__(self, scratch: Path, open_days: ExitStack, erasures: Erasures = NOBODY) -> None:
        self.scratch, self.open_days, self.erasures = scratch, open_days, erasures
        self.days: dict[str, Day] = {}
        self.read = 0
        self.reasons: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._bad: list[BadRow] = []

    def take(self, rows: Iterable[dict[str, Any] | BadRow], on_rows: OnRows = not_told) -> None:
        for number, row in enumerate(rows, start=1):
            self.read = number
            if number % PROGRESS_ROWS == 0:
                on_rows(number)
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

    def _day(self, day: str) -> Day:
        if day not in self.days:
            self.days[day] = Day(day, self.scratch / day)
            self.open_days.callback(self.days[day].close)
        return self.days[day]
