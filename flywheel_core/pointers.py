"""Pointers: append-only sequences of records; the newest one wins.

`production`, `candidate`, days of traffic, revisions and the freeze switch are pointers. Moving
one puts record n+1 if absent, so two movers cannot both win, and the sequence is the history,
the audit trail and the way back.
"""

import json
from typing import Any

from pydantic import Field, ValidationError

from flywheel_core.artifacts import SCHEMA_VERSION, Record
from flywheel_core.errors import ArtifactCorrupt, PointerConflict, SchemaTooNew
from flywheel_core.store import Store


class PointerRecord(Record):
    """One move of a pointer: what it names now, who moved it and why."""

    schema_version: int = SCHEMA_VERSION
    number: int = Field(ge=1)
    value: dict[str, Any]
    by: str
    reason: str


class Pointer:
    """A named sequence below `<flywheel>/pointers/`, or below another `area`.

    Whoever may write to `pointers/` may move production: jobs keep their own sequences elsewhere.
    """

    def __init__(self, store: Store, flywheel: str, name: str, *, area: str = "pointers") -> None:
        self.store = store
        self.name = name
        self.folder = f"{flywheel}/{area}/{name}"

    def history(self) -> list[PointerRecord]:
        """Every record, oldest first."""
        return [self._read(path) for path in self.store.list(self.folder)]

    def newest(self) -> PointerRecord | None:
        """The record in force, or None before the first move."""
        paths = self.store.list(self.folder)
        return self._read(paths[-1]) if paths else None

    def move(
        self, value: dict[str, Any], *, expected_number: int, by: str, reason: str
    ) -> PointerRecord:
        """Append record `expected_number + 1`; `PointerConflict` if that is no longer next."""
        newest = self.newest()
        found = newest.number if newest else 0
        record = PointerRecord(number=expected_number + 1, value=value, by=by, reason=reason)
        if found != expected_number or not self.store.put_if_absent(
            self._path(record.number), record.model_dump_json(indent=1).encode()
        ):
            raise PointerConflict(
                f"pointer {self.name}: expected to follow record {expected_number}, but another "
                "move came first; look at `flywheel status` and decide again"
            )
        return record

    def append(self, value: dict[str, Any], *, by: str, reason: str) -> PointerRecord:
        """Move after whatever is newest, trying again when another mover wins."""
        while True:
            newest = self.newest()
            try:
                return self.move(
                    value, expected_number=newest.number if newest else 0, by=by, reason=reason
                )
            except PointerConflict:
                continue

    def _path(self, number: int) -> str:
        return f"{self.folder}/{number:08d}.json"

    def _read(self, path: str) -> PointerRecord:
        try:
            data = json.loads(self.store.get(path))
        except ValueError as error:
            raise ArtifactCorrupt(
                f"{path} is not JSON ({error}); restore it from a copy"
            ) from error
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise SchemaTooNew(f"{path} was written by a newer flywheel; upgrade this one")
        try:
            record = PointerRecord.model_validate(data)
        except ValidationError as error:
            raise ArtifactCorrupt(f"{path} is not a pointer record: {error}") from error
        if self._path(record.number) != path:
            raise ArtifactCorrupt(f"{path} holds record {record.number}: it was copied or edited")
        return record
