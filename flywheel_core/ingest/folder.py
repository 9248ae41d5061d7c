"""`flywheel ingest --out DIR`: a file of logged traffic becomes a folder of days, without a store.

`<day>.parquet` holds the day's rows (`records.TRAFFIC`), `<day>.quarantine.jsonl` those set aside,
and `report.json`, written last, what became of every row. The same command again finds it done; one
that broke off is repeated from the start of the file.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import file_sha256
from flywheel_core.erasure.users import NOBODY, Erasures
from flywheel_core.errors import InputDataError
from flywheel_core.folders import CLAIM_FILE, claim, unfinished_path, write_whole
from flywheel_core.ingest.sorting import OnRows, not_told, reader_of, said_of_rows, sorted_rows
from flywheel_core.ingest.topical_chat import HistoryLimits

REPORT_FILE = "report.json"


@dataclass(frozen=True)
class FolderReport:
    """What became of every row. `quarantined` counts by reason, `days` accepted rows by day. Rows
    of the `users_erased` users on the list of flywheel `erasures_of` were left out."""

    source: str
    file_format: str
    out: str
    read: int
    accepted: int
    quarantined: Mapping[str, int]
    days: Mapping[str, int]
    erasures_of: str | None = None
    users_erased: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        """A few lines for a person."""
        lines = said_of_rows(self.source, self.read, self.accepted, self.quarantined)
        if self.quarantined:
            lines.append(f"  rows set aside, with line and reason: {self.out}/*.quarantine.jsonl")
        lines += [f"  {self.out}/{day}.parquet: {rows} rows" for day, rows in self.days.items()]
        whose = f"of flywheel {self.erasures_of!r}" if self.erasures_of else "of nobody"
        lines.append(f"  erasure list applied: {whose}, {self.users_erased} users")
        return "\n".join(lines)


def ingest_to_folder(
    source: Path,
    file_format: str,
    out: Path,
    *,
    day: str | None = None,
    limits: HistoryLimits | None = None,
    erasures: Erasures = NOBODY,
    erasures_of: str | None = None,
    on_rows: OnRows = not_told,
) -> FolderReport:
    """Take a file in. `day` is for rows that carry none; `limits` are Topical-Chat's; `erasures_of`
    is the flywheel whose list `erasures` is."""
    limits = limits or HistoryLimits()
    read = reader_of(file_format, day, limits)
    if not source.is_file():
        raise InputDataError(f"{source}: no such file; give a Parquet, JSONL or Topical-Chat file")
    what = {"source": file_sha256(source), "format": file_format, "day": day, **asdict(limits)}
    what["erasures"] = erasures.digest
    if (out / CLAIM_FILE).exists():
        claim(out, "ingest", what)
    if (out / REPORT_FILE).exists():
        return FolderReport(**json.loads((out / REPORT_FILE).read_text()))
    with sorted_rows(source, file_format, read, erasures, on_rows) as sorter:
        claim(out, "ingest", what)  # not before: a file that is refused takes no folder
        for name, one in sorter.days.items():
            _publish(one.folder / "traffic.parquet", out / f"{name}.parquet")
            _publish(one.folder / "quarantine.jsonl", out / f"{name}.quarantine.jsonl")
        report = FolderReport(
            source=source.name,
            file_format=file_format,
            out=str(out),
            read=sorter.read,
            accepted=sum(one.rows for one in sorter.days.values()),
            quarantined=dict(sorted(sorter.reasons.items())),
            days={name: one.rows for name, one in sorted(sorter.days.items())},
            erasures_of=erasures_of,
            users_erased=len(erasures.hashes),
        )
    write_whole(out / REPORT_FILE, json.dumps(report.to_json(), indent=1).encode())
    return report


def _publish(source: Path, target: Path) -> None:
    """Copy a file, if there is one, so that it appears whole."""
    if source.exists():
        unfinished = unfinished_path(target)
        shutil.copyfile(source, unfinished)
        unfinished.replace(target)
