"""The cumulative exposure log: who met the experiment on which day, written once.

A day lies at `<folder>/day=2026-01-05/<digest>.parquet`. Writing the same rows again changes
nothing; more rows of a day (a late server) are a second file beside the first. Nothing is ever
taken out but the rows of erased users (`erased`), so a later read sees all else that an earlier one
saw.
"""

import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_core.artifacts import file_sha256
from flywheel_core.erasure.users import NOBODY, Erasures, without_erased
from flywheel_core.errors import InputDataError
from flywheel_core.experiments.logs import ARMS
from flywheel_core.store import Store, checked_path

DIGEST_DIGITS = 16


def append_day(
    store: Store,
    folder: str,
    day: datetime.date,
    rows: pa.Table,
    at: str,
    *,
    erasures: Erasures = NOBODY,
) -> bool:
    """Add a day's rows, whose times lie in column `at`, without those of users on the list of
    `erasures`; False where exactly they are there, or none is left."""
    _check_day(day, rows, at)
    rows = without_erased(rows, erasures)
    if rows.num_rows == 0:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "rows.parquet"
        pq.write_table(rows, path, compression="zstd")
        name = checked_path(f"{folder}/day={day}/{file_sha256(path)[:DIGEST_DIGITS]}.parquet")
        return store.put_if_absent(name, path.read_bytes())


def _check_day(day: datetime.date, rows: pa.Table, at: str) -> None:
    if rows.num_rows == 0:
        raise InputDataError(f"{day}: no rows; a day without any is not written, but looked for")
    dates = pc.cast(rows.column(at), pa.date32())
    other = [one for one in pc.unique(dates).to_pylist() if one != day]
    if other:
        raise InputDataError(
            f"{day}: column {at!r} holds a row of {other[0]}; write each day's rows to its own day"
        )
    if "arm" in rows.column_names:
        arms = set(pc.unique(rows.column("arm")).to_pylist()) - set(ARMS)
        if arms:
            raise InputDataError(f"{day}: arm {sorted(map(str, arms))[0]!r} is not an arm")


def days_logged(store: Store, folder: str) -> tuple[datetime.date, ...]:
    """The days there are, oldest first."""
    return tuple(sorted({day for _, day in _files(store, folder)}))


def _files(store: Store, folder: str) -> Iterator[tuple[str, datetime.date]]:
    """The log's files with their days, without the marks that writers leave (`_SUCCESS`)."""
    for path in store.list(folder):
        parts = path.removeprefix(f"{folder}/").split("/")
        if any(part.startswith(("_", ".")) for part in parts):
            continue
        try:
            yield path, datetime.date.fromisoformat(parts[0].removeprefix("day="))
        except ValueError as error:
            raise InputDataError(
                f"{path}: {parts[0]!r} is no day; a log's files lie in folders such as "
                "day=2026-01-05, take this one away"
            ) from error


def fetch_days(store: Store, folder: str, through: datetime.date, target: Path) -> Path:
    """Copy the log up to `through` below `target`; later days are left where they are."""
    for path, day in _files(store, folder):
        if day <= through:
            store.download(path, target / path.removeprefix(f"{folder}/"))
    if not target.is_dir():
        raise InputDataError(f"{folder}: no day up to {through} is there; nothing was logged yet")
    return target
