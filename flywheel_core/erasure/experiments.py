"""Rows of erased users in the logs of a flywheel's experiments.

Each file of the logs that holds some is replaced by one without them, under the same name: at no
moment are rows there twice or gone, and a server that writes the old rows again finds its file
there and adds nothing. A mark beside the logs, put first, makes every later readout say that rows
were taken out. Readouts and decisions stay: they hold sums over users, and none of a user.
"""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from flywheel_core.erasure.users import Added
from flywheel_core.errors import FlywheelError
from flywheel_core.experiments.erased import erased_in, marks_folder, write_without
from flywheel_core.experiments.journal import Journal
from flywheel_core.store import Store

LOGS = ("exposures", "events")


@dataclass(frozen=True)
class ErasedExperiment:
    """What was taken out of one experiment's logs."""

    experiment: str
    exposures_removed: int
    events_removed: int
    files_rewritten: int

    def summary(self) -> str:
        return (
            f"  experiment {self.experiment}: {self.exposures_removed:,} exposures and "
            f"{self.events_removed:,} events less ({self.files_rewritten} files); readouts made "
            "before keep their sums, a day that is not decided is read again without these users "
            "and says so"
        )


@dataclass
class LogSurvey:
    """Takes the rows out, experiment by experiment; `found` are the users met there."""

    store: Store
    flywheel: str
    added: Added
    unchecked: list[str]
    found: set[str] = field(default_factory=set)

    def erase(self) -> list[ErasedExperiment]:
        """Every experiment that held rows of erased users."""
        root = f"{self.flywheel}/experiments"
        folders = {"/".join(path.split("/")[:3]) for path in self.store.list(root)}
        done = []
        for folder in sorted(folders):
            self._check_allocation(folder)
            removed = self._erase(folder)
            if removed.files_rewritten:
                done.append(removed)
        return done

    def _erase(self, folder: str) -> ErasedExperiment:
        rows, files = dict.fromkeys(LOGS, 0), 0
        for log in LOGS:
            for path in self.store.list(f"{folder}/{log}"):
                if path.endswith(".parquet"):
                    removed = self._erase_file(folder, path)
                    rows[log] += removed
                    files += bool(removed)
        name = folder.rsplit("/", 1)[-1]
        return ErasedExperiment(name, rows["exposures"], rows["events"], files)

    def _erase_file(self, folder: str, path: str) -> int:
        with tempfile.TemporaryDirectory() as scratch:
            old, new = Path(scratch) / "old.parquet", Path(scratch) / "new.parquet"
            try:
                self.store.download(path, old)
                rows, users = erased_in(old, self.added.erasures)
                self.found |= users
                if rows:
                    self._leave_mark(folder)
                    write_without(old, new, users)
                    self.store.put(path, new.read_bytes())
            except (pa.ArrowException, FlywheelError, OSError) as error:
                self.unchecked.append(f"{path}: {type(error).__name__}")
                return 0
        return rows

    def _leave_mark(self, folder: str) -> None:
        record = self.added.record_number
        path = f"{marks_folder(folder)}/{record:08d}.json"
        self.store.put_if_absent(path, json.dumps({"record": record}).encode())

    def _check_allocation(self, folder: str) -> None:
        """An allocation may leave users out by name, and its history is not rewritten."""
        journal = Journal(self.store, self.flywheel, folder.rsplit("/", 1)[-1])
        try:
            named = any(
                self.added.erasures.among(state.allocation.eligibility.excluded_users)
                for state in journal.states()
            )
        except FlywheelError as error:
            self.unchecked.append(f"{folder}: its allocation: {type(error).__name__}")
            return
        if named:
            self.unchecked.append(
                f"{folder}: its allocation leaves out an erased user by name (`excluded_users`); "
                "end the experiment and delete its records below pointers/"
            )
