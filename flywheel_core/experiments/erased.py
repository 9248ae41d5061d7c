"""Experiment logs and the list of erased users: their rows are in no readout made from then on.

`flywheel erase` takes the rows out of the files (`erasure/experiments.py`) and leaves a mark beside
the logs of each experiment that held some. A reading leaves out by the list as well, because a slow
server may log rows of an erased user later. What was summed before stays as it is: aggregates, in
readouts that lie under their digest, and the decision of a day names the one it rests on. A day
that is decided is only told again, so its figures do not change; one that is still open is read
anew without those users, says so in its notes, and is another readout: an answer to the old one no
longer counts.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_core.erasure.users import Erasures
from flywheel_core.errors import InputDataError
from flywheel_core.store import Store


def marks_folder(experiment_folder: str) -> str:
    """Where `flywheel erase` leaves its marks, one for each record of the list."""
    return f"{experiment_folder}/erasures"


def notes_on_erasures(store: Store, experiment_folder: str, rows_left_out: int) -> list[str]:
    """What a readout must say about rows that are not there."""
    marks = store.list(marks_folder(experiment_folder))
    records = [str(int(Path(path).stem)) for path in marks]
    notes = []
    if records:
        word = "record" if len(records) == 1 else "records"
        notes.append(
            f"rows of erased users were taken out of these logs ({word} {', '.join(records)} of "
            "the erasure list): readouts made before count them, this one does not"
        )
    if rows_left_out:
        notes.append(
            f"{rows_left_out:,} rows of erased users were logged since, and were left out; run "
            "`flywheel erase` again, which removes them"
        )
    return notes


def erased_in(path: Path, erasures: Erasures) -> tuple[int, frozenset[str]]:
    """How many rows of a log's file are of erased users, and of whom."""
    rows, users = 0, set()
    for ids in _user_ids(path):
        found = erasures.among(pc.unique(ids).to_pylist())
        if found:
            users |= found
            rows += pc.sum(_is_in(ids, found)).as_py()
    return rows, frozenset(users)


def write_without(path: Path, target: Path, users: frozenset[str]) -> None:
    """The file without the rows of `users`; every other row, column and type stays."""
    with (
        pq.ParquetFile(path) as file,
        pq.ParquetWriter(target, file.schema_arrow, compression="zstd") as writer,
    ):
        for batch in file.iter_batches():
            table = pa.Table.from_batches([batch])
            ids = table.column("user_id").cast(pa.string())
            writer.write_table(table.filter(pc.invert(_is_in(ids, users))))


def leave_out(folder: Path, erasures: Erasures) -> int:
    """Rewrite the files below `folder`, a copy of a log, without rows of erased users; how many
    rows that were."""
    rows = 0
    for path in sorted(folder.rglob("*.parquet")) if erasures else ():
        found, users = erased_in(path, erasures)
        if found:
            kept = path.with_suffix(".kept")
            write_without(path, kept, users)
            kept.replace(path)
            rows += found
    return rows


def _is_in(ids: pa.ChunkedArray, users: set[str] | frozenset[str]) -> pa.ChunkedArray:
    """False where there is no user."""
    return pc.is_in(ids, value_set=pa.array(sorted(users), pa.string()))


def _user_ids(path: Path) -> Iterator[pa.ChunkedArray]:
    with pq.ParquetFile(path) as file:
        if "user_id" not in file.schema_arrow.names:
            raise InputDataError(
                f"{path.name}: it has no column user_id, so rows of erased users cannot be told"
            )
        for batch in file.iter_batches(columns=["user_id"]):
            yield pa.chunked_array([batch.column(0)]).cast(pa.string())
