"""A file's rows, checked, sorted to their days on scratch disk: each accepted or set aside.

Both ways of ingesting share it: into the store as day partitions, or into a folder.
"""

import datetime
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from flywheel_core.erasure.users import NOBODY, Erasures, may_be_kept
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.ingest.contract import BATCH_ROWS, BadRow, read_contract
from flywheel_core.ingest.topical_chat import HistoryLimits, read_topical_chat
from flywheel_core.records import TRAFFIC
from flywheel_core.row_groups import write_row_groups

FORMATS = ("flywheel", "topical-chat")
"""`flywheel` is rows of `records.TRAFFIC`."""
OLDER_NAMES = ("contract",)
"""Of `flywheel`: still taken, no longer recommended."""

ERASED = "user_id: on the list of erased users"
PROGRESS_ROWS = 10_000
CHARS_HELD_MAX = 16 * 2**20
"""Rows in memory over all days, as JSON; then every day writes its own out."""

Reader: TypeAlias = Callable[[Path], Iterator[dict[str, Any] | BadRow]]
OnRows: TypeAlias = Callable[[int], None]
"""Called every `PROGRESS_ROWS` rows with the number read."""


def not_told(rows: int) -> None:
    """For callers that show no progress."""


def said_of_rows(
    source: str, read: int, accepted: int, quarantined: Mapping[str, int]
) -> list[str]:
    """What became of a file's rows, in lines for a person."""
    counts = f"{read} rows read, {accepted} accepted, {sum(quarantined.values())} quarantined"
    reasons = [f"  quarantined {count}: {name}" for name, count in quarantined.items()]
    return [f"{source}: {counts}", *reasons]


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
    with tempfile.TemporaryDirectory() as scratch:
        sorter = Sorter(Path(scratch), erasures)
        sorter.take(read(source), on_rows)
        if not sorter.days:
            raise InputDataError(_nothing_accepted(source, file_format, sorter))
        yield sorter


def reader_of(file_format: str, day: str | None, limits: HistoryLimits) -> Reader:
    if file_format not in (*FORMATS, *OLDER_NAMES):
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
    """One day's rows as they come. Memory holds a few, scratch the rest, and between two writes no
    file is open: a source of a thousand days needs no thousand open files."""

    def __init__(self, day: str, folder: Path) -> None:
        self.day, self.folder = day, folder
        folder.mkdir()
        self._batch: list[dict[str, Any]] = []
        self._spool = folder / "rows.arrows"
        self._content = hashlib.sha256()
        self.rows = self.quarantined = 0

    def add(self, row: dict[str, Any]) -> int:
        """Take a row; returns its size in characters."""
        self.rows += 1
        line = json.dumps(row, sort_keys=True)
        self._content.update(line.encode() + b"\n")
        self._batch.append(row)
        if len(self._batch) >= BATCH_ROWS:
            self.write_out()
        return len(line)

    def set_aside(self, line: str) -> None:
        self.quarantined += 1
        self._content.update(line.encode() + b"\n")
        with (self.folder / "quarantine.jsonl").open("a") as file:
            file.write(line + "\n")

    def write_out(self) -> None:
        """Rows in memory to scratch: one Arrow stream behind the other."""
        if self._batch:
            table = pa.Table.from_pylist(self._batch, schema=TRAFFIC)
            with self._spool.open("ab") as file, pa.ipc.new_stream(file, TRAFFIC) as stream:
                stream.write_table(table)
            self._batch = []

    def close(self) -> None:
        """All of it as `traffic.parquet`."""
        self.write_out()
        write_row_groups(self.folder / "traffic.parquet", self._spooled(), TRAFFIC)
        self._spool.unlink()

    def _spooled(self) -> Iterator[pa.Table]:
        num_bytes = self._spool.stat().st_size
        with self._spool.open("rb") as file:
            while file.tell() < num_bytes:
                with pa.ipc.open_stream(file) as stream:
                    yield from (pa.Table.from_batches([batch]) for batch in stream)

    @property
    def content_digest(self) -> str:
        return self._content.hexdigest()


class Sorter:
    """Rows to their days. Bad rows lie with their day, or with the oldest where it is unknown;
    which that is shows at the end, so until then they wait on scratch, in their order.

    Rows of erased users are counted, and nothing of them is stored; once anybody is erased, that
    goes for the text of a bad row which does not say whose it is, too.
    """

    def __init__(self, scratch: Path, erasures: Erasures = NOBODY) -> None:
        self.scratch, self.erasures = scratch, erasures
        self.days: dict[str, Day] = {}
        self.read = 0
        self.reasons: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self._bad = scratch / "bad.jsonl"
        self._chars_held = 0

    def take(self, rows: Iterable[dict[str, Any] | BadRow], on_rows: OnRows = not_told) -> None:
        """Every row to its day, and all days closed."""
        with self._bad.open("w") as bad_rows:
            for number, row in enumerate(rows, start=1):
                self.read = number
                if number % PROGRESS_ROWS == 0:
                    on_rows(number)
                bad = self._take(row, number)
                if bad is not None:
                    self.reasons[bad.reason] += 1
                    bad_rows.write(f"{bad.day or ''}\t{_line(bad)}\n")
        self._deal_out_bad_rows()
        for day in self.days.values():
            day.close()

    def _take(self, row: dict[str, Any] | BadRow, number: int) -> BadRow | None:
        """Add a row to its day, or return it as a bad one."""
        if isinstance(row, BadRow):
            return row if may_be_kept(row.row, self.erasures) else replace(row, row=None)
        if not may_be_kept(row, self.erasures):
            return BadRow(f"row {number}", ERASED, None, row["day"])
        if not self._is_new(row["row_id"]):
            return BadRow(f"row {number}", "row_id: seen before", row, row["day"])
        self._chars_held += self._day(row["day"]).add(row)
        if self._chars_held > CHARS_HELD_MAX:
            self._write_out()
        return None

    def _write_out(self) -> None:
        for day in self.days.values():
            day.write_out()
        self._chars_held = 0

    def _deal_out_bad_rows(self) -> None:
        if self.days:
            oldest = self.days[min(self.days)]
            with self._bad.open() as bad_rows:
                for said in bad_rows:
                    day, line = said.rstrip("\n").split("\t", 1)
                    self.days.get(day, oldest).set_aside(line)
        self._bad.unlink()

    def _is_new(self, row_id: str) -> bool:
        digest = hashlib.blake2b(row_id.encode(), digest_size=8).digest()
        known = digest in self._seen
        self._seen.add(digest)
        return not known

    def _day(self, day: str) -> Day:
        if day not in self.days:
            self.days[day] = Day(day, self.scratch / day)
        return self.days[day]


def _line(bad: BadRow) -> str:
    """One line of JSON: tabs, line ends and lone surrogates in it are escaped."""
    said = {"where": bad.where, "reason": bad.reason, "row": bad.row}
    return json.dumps(said, sort_keys=True, default=str)
