"""The traffic contract: Parquet or JSON lines in the columns of `records.TRAFFIC`.

Every row is checked by itself. A row that breaks the contract is set aside with its line and the
reason, and the rest goes on; nothing is dropped in silence. Columns that may be null may also be
absent. A reason never repeats the row's text: only the quarantine file holds that.
"""

import datetime
import gzip
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.errors import InputDataError
from flywheel_core.ingest.locales import is_known_locale, is_language_tag
from flywheel_core.ingest.personal import LABEL_CHARS_MAX, LABEL_SIGNS, is_label, privacy_rule_of
from flywheel_core.records import SIGNALS, SURFACES, TRAFFIC

TEXT_CHARS_MAX = 100_000
"""A turn longer than this is a fault of the source, not a chat; ours."""
NAME_CHARS_MAX = 200
BATCH_ROWS = 1_000
PARQUET_MAGIC, GZIP_MAGIC = b"PAR1", b"\x1f\x8b"

REQUIRED = tuple(field.name for field in TRAFFIC if not field.nullable)
NAMES = ("row_id", "conversation_id")
OPTIONAL_NAMES = ("user_id", "character_id", "locale", "language", "jtbd", "model_digest")
IDENTIFIERS = ("row_id", "conversation_id", "user_id", "character_id")
NEVER_PERSONAL = (*IDENTIFIERS, "jtbd", "model_digest")
COUNTS = ("turn_index", "depth")
COUNT_MAX = 2**31 - 1


class RowFault(Exception):
    """One row breaks the contract; the message is the reason, and holds none of its text."""


@dataclass(frozen=True)
class BadRow:
    """A row that was set aside: where it was (`line 7`), why, its day if known, and itself."""

    where: str
    reason: str
    row: Any
    day: str | None = None


def read_contract(path: Path, day: str | None = None) -> Iterator[dict[str, Any] | BadRow]:
    """Stream a file's rows, each checked. `day` is for rows that carry none (YYYY-MM-DD)."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == PARQUET_MAGIC:
        yield from _read_parquet(path, day)
    else:
        yield from _read_lines(path, day, zipped=magic.startswith(GZIP_MAGIC))


def _read_lines(path: Path, day: str | None, *, zipped: bool) -> Iterator[dict[str, Any] | BadRow]:
    with path.open("rb") as plain:
        lines: IO[bytes] = gzip.GzipFile(fileobj=plain) if zipped else plain  # type: ignore[assignment]
        for number, line in _numbered(lines, path):
            try:
                row = json.loads(line.decode())
            except UnicodeDecodeError:
                yield BadRow(f"line {number}", "not UTF-8", line.decode(errors="backslashreplace"))
            except (ValueError, RecursionError):
                yield BadRow(f"line {number}", "not JSON", line.decode())
            else:
                yield _checked(row, f"line {number}", day)


def _numbered(file: IO[bytes], path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, counted from 1."""
    try:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.rstrip(b"\r\n")
    except (EOFError, OSError, zlib.error) as error:
        raise InputDataError(
            f"{path}: breaks off ({error}); it is cut short or not gzip; copy it again"
        ) from error


def _read_parquet(path: Path, day: str | None) -> Iterator[dict[str, Any] | BadRow]:
    try:
        file = pq.ParquetFile(path)
        _check_columns(path, file.schema_arrow, day)
        number = 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for row in _batch_rows(batch):
                number += 1
                where = f"row {number}"
                yield (
                    BadRow(where, row, None) if isinstance(row, str) else _checked(row, where, day)
                )
    except (pa.ArrowInvalid, OSError) as error:
        raise InputDataError(
            f"{path}: not a readable Parquet file ({error}); it is cut short or damaged; "
            "write it again"
        ) from error


def _batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | str]:
    """The rows of a batch; in place of one that cannot be read, why."""
    try:
        return list(batch.to_pylist())
    except (UnicodeDecodeError, OverflowError) as error:
        if batch.num_rows == 1:
            unreadable = isinstance(error, UnicodeDecodeError)
            return ["not UTF-8" if unreadable else "a time or number out of range"]
        singles = (batch.slice(index, 1) for index in range(batch.num_rows))
        return [row for single in singles for row in _batch_rows(single)]


def _check_columns(path: Path, schema: pa.Schema, day: str | None) -> None:
    needed = [name for name in REQUIRED if not (name == "day" and day)]
    missing = [name for name in needed if name not in schema.names]
    unknown = [name for name in schema.names if name not in TRAFFIC.names]
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise InputDataError(
            f"{path}: columns {', '.join(twice)} are there more than once; each may be there once; "
            "drop all but one, or the others would be lost"
        )
    if missing or unknown:
        raise InputDataError(
            f"{path}: columns {', '.join(missing) or 'none'} are missing, and columns "
            f"{', '.join(unknown) or 'none'} are unknown; the contract is "
            f"{', '.join(TRAFFIC.names)} (flywheel_core/records.py); rename or drop them"
        )


def _checked(row: Any, where: str, day: str | None) -> dict[str, Any] | BadRow:
    try:
        return check_row(row, day)
    except RowFault as fault:
        return BadRow(where, str(fault), row, _readable_day(row))


def _readable_day(row: Any) -> str | None:
    try:
        return _day(row.get("day"))
    except (RowFault, AttributeError):
        return None


def check_row(row: Any, day: str | None = None) -> dict[str, Any]:
    """The row with exactly the contract's columns; `RowFault` with the first fault found."""
    if not isinstance(row, Mapping):
        raise RowFault("not an object")
    unknown = set(row) - set(TRAFFIC.names)
    if unknown:
        raise RowFault(f"unknown fields: {len(unknown)}")
    made: dict[str, Any] = {name: row.get(name) for name in TRAFFIC.names}
    made["day"] = _day(day if made["day"] is None else made["day"])
    for name in (*NAMES, *(name for name in OPTIONAL_NAMES if made[name] is not None)):
        _check_text(name, made[name], NAME_CHARS_MAX)
    _check_labels(made)
    _check_identifiers(made)
    _check_nobody_named(made)
    for name in COUNTS:
        _check_count(name, made[name])
    for name in SIGNALS:
        if not (made[name] is None or isinstance(made[name], bool)):
            raise RowFault(f"{name}: must be true, false or null")
    if made["surface"] not in SURFACES:
        raise RowFault(f"surface: must be one of {', '.join(SURFACES)}")
    _check_text("response", made["response"], TEXT_CHARS_MAX)
    made["messages"] = checked_messages(made["messages"])
    num_user_turns = sum(turn["role"] == "user" for turn in made["messages"])
    if made["depth"] < num_user_turns - 1:
        raise RowFault("depth: smaller than the number of earlier user turns in messages")
    return made


def _check_identifiers(made: Mapping[str, Any]) -> None:
    """Whoever erases a user must find the identifier again, so it has to be as it looks."""
    for name in IDENTIFIERS:
        value = made[name]
        if value is not None and (value != value.strip() or not value.isprintable()):
            raise RowFault(f"{name}: begins or ends in whitespace, or holds what does not print")


def _check_nobody_named(made: Mapping[str, Any]) -> None:
    for name in NEVER_PERSONAL:
        rule = privacy_rule_of(made[name]) if made[name] is not None else None
        if rule is not None:
            raise RowFault(f"{name}: reads as personal data ({rule}); give a pseudonym, as a hash")


def _check_labels(made: Mapping[str, Any]) -> None:
    if made["locale"] is not None and not is_known_locale(made["locale"]):
        raise RowFault("locale: unknown; write it as language_REGION, for example en_US")
    if made["language"] is not None and not is_language_tag(made["language"]):
        raise RowFault("language: not a BCP 47 tag; write it as in en, hi-Latn or es-419")
    if made["jtbd"] is not None and not is_label(made["jtbd"]):
        raise RowFault(
            f"jtbd: not a label; at most {LABEL_CHARS_MAX} letters, digits and signs of "
            f"{LABEL_SIGNS!r}, a letter or digit first"
        )


def _day(value: Any) -> str:
    if not isinstance(value, str):
        raise RowFault("day: must be a date YYYY-MM-DD")
    try:
        date = datetime.date.fromisoformat(value)
    except ValueError as error:
        raise RowFault("day: must be a date YYYY-MM-DD") from error
    if str(date) != value:
        raise RowFault("day: must be a date YYYY-MM-DD")
    return value


def _check_count(name: str, value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 0 <= value <= COUNT_MAX:
        raise RowFault(f"{name}: must be a whole number from 0")


def _check_text(name: str, value: Any, num_chars_max: int) -> None:
    if not isinstance(value, str) or not value.strip():
        raise RowFault(f"{name}: must be a text that is not empty")
    if len(value) > num_chars_max:
        raise RowFault(f"{name}: longer than {num_chars_max} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowFault(f"{name}: holds a lone surrogate, so it is not text") from error


def checked_messages(value: Any) -> list[dict[str, str]]:
    """The turns, or a fault: a system turn, then user and assistant in alternation (either may
    begin: an assistant turn that begins is a welcome message), and a user turn last."""
    if not isinstance(value, list) or not value:
        raise RowFault("messages: must be a list of turns")
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
            raise RowFault("messages: each turn must have exactly role and content")
        turns.append({"role": turn["role"], "content": turn["content"]})
    roles = [turn["role"] for turn in turns]
    if roles[0] != "system":
        raise RowFault("messages: the first turn must be the system turn")
    spoken = roles[1:]
    if any(role not in ("user", "assistant") for role in spoken):
        raise RowFault("messages: roles after the first must be user or assistant")
    if any(one == other for one, other in itertools.pairwise(spoken)):
        raise RowFault("messages: user and assistant must alternate")
    if not spoken or spoken[-1] != "user":
        raise RowFault("messages: the last turn must be the user's")
    for turn in turns:
        _check_text("messages", turn["content"], TEXT_CHARS_MAX)
    return turns
