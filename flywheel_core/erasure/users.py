"""The list of users whose rows may be in no artifact made from now on (§2.6; ours in detail).

The pointer `erasures` holds the list, and its digest is part of every key. What it holds of a user
is a salted hash: enough to recognise a row, so that the identifier itself can go from the store.
The salt is drawn once a flywheel and lies in the list, so it cannot be lost apart from it. It keeps
the lists of two flywheels from being matched and rules out ready-made tables; against a reader of
the store who tries every identifier it does not help, and identifiers here are pseudonyms already.

A plan carries the list as an artifact, and every stage that reads users' rows takes it as the input
`erasures`: a try next week leaves out whom the plan left out, no fewer and no more.
"""

import hashlib
import json
import secrets
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import KEY_HEX_DIGITS, ArtifactRef, Attempt, digest_of, is_done
from flywheel_core.errors import ArtifactCorrupt, ConfigError, InputDataError, PointerConflict
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.store import Store

POINTER = "erasures"
STAGE = "erasures"
LIST_FILE = "erasures.json"
HASH_HEX_DIGITS = 32
SALT_HEX_DIGITS = 16
USER_ID_CHARS_MAX = 200


@dataclass(frozen=True)
class Erasures:
    """Erased users as salted hashes. An empty list has no salt yet."""

    salt: str = ""
    hashes: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def hash_of(self, user_id: str) -> str:
        """What the list holds of a user; surrogates are kept apart, so no text fails."""
        data = user_id.encode("utf-8", "surrogatepass")
        salt = self.salt.encode()
        return hashlib.blake2b(data, digest_size=HASH_HEX_DIGITS // 2, salt=salt).hexdigest()

    def holds(self, user_id: str) -> bool:
        return self.hash_of(user_id) in self.hashes

    def among(self, user_ids: Iterable[str | None]) -> set[str]:
        """Those of `user_ids` that are on the list."""
        return {one for one in user_ids if one is not None and self.holds(one)}

    def value(self) -> dict[str, Any]:
        """What a pointer record or an artifact holds."""
        return {"salt": self.salt, "hashes": sorted(self.hashes)}

    @property
    def digest(self) -> str:
        """Digest of the list; that of an empty one depends on nothing."""
        return digest_of([self.salt, *sorted(self.hashes)] if self.hashes else [])


NOBODY = Erasures()


def parse(value: Mapping[str, Any], origin: str) -> Erasures:
    """A list as it was written. One that cannot be read is an error, never an empty list."""
    salt, hashes = value.get("salt"), value.get("hashes")
    if not (isinstance(salt, str) and len(salt) == SALT_HEX_DIGITS and _are_hashes(hashes)):
        raise ArtifactCorrupt(
            f"{origin} is not a list of erased users, and without it nobody can be left out; "
            "restore it from a copy, or erase the users again with `flywheel erase`"
        )
    return Erasures(salt, frozenset(hashes or ()))


def _are_hashes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, str) and len(one) == HASH_HEX_DIGITS for one in value)
    )


def read_erasures(store: Store, flywheel: str) -> Erasures:
    """The list in force."""
    newest = Pointer(store, flywheel, POINTER).newest()
    return _of_record(newest, flywheel)


def _of_record(record: PointerRecord | None, flywheel: str) -> Erasures:
    if record is None:
        return Erasures()
    return parse(record.value, f"record {record.number} of {flywheel}'s pointer {POINTER}")


@dataclass(frozen=True)
class Added:
    """The list after users were added: the record in force, and how many were new to it."""

    erasures: Erasures
    record_number: int
    num_new: int


def add_users(
    store: Store, flywheel: str, user_ids: Collection[str], *, by: str, reason: str
) -> Added:
    """Put users on the list; those that are on it already change nothing."""
    check_user_ids(user_ids)
    pointer = Pointer(store, flywheel, POINTER)
    while True:
        newest = pointer.newest()
        number = newest.number if newest else 0
        before = _of_record(newest, flywheel)
        if not before.salt:
            before = Erasures(secrets.token_hex(SALT_HEX_DIGITS // 2))
        hashes = frozenset(before.hash_of(one) for one in user_ids)
        if hashes <= before.hashes:
            return Added(before, number, 0)
        after = Erasures(before.salt, before.hashes | hashes)
        try:
            record = pointer.move(after.value(), expected_number=number, by=by, reason=reason)
        except PointerConflict:
            continue
        return Added(after, record.number, len(hashes - before.hashes))


def check_user_ids(user_ids: Collection[str]) -> None:
    """Refuse what cannot be a user, without repeating it."""
    if not user_ids:
        raise ConfigError("user: none was given; use --user ID, or --file with one ID a line")
    for number, one in enumerate(user_ids, start=1):
        if not one.strip() or len(one) > USER_ID_CHARS_MAX:
            raise ConfigError(
                f"user {number} of {len(user_ids)}: an ID of {len(one)} characters; it must have "
                f"1 to {USER_ID_CHARS_MAX}, as in the column user_id"
            )


def list_ref(flywheel: str, erasures: Erasures) -> ArtifactRef:
    """The list as an artifact."""
    key = erasures.digest[:KEY_HEX_DIGITS]
    return ArtifactRef(flywheel=flywheel, generation=0, stage=STAGE, key=key)


def commit_list(store: Store, flywheel: str, erasures: Erasures) -> ArtifactRef:
    """The list as an artifact, made unless it is there."""
    ref = list_ref(flywheel, erasures)
    if not is_done(store, ref):
        with tempfile.TemporaryDirectory() as scratch:
            attempt = Attempt(store, ref, Path(scratch))
            (attempt.folder / LIST_FILE).write_text(json.dumps(erasures.value()))
            attempt.commit(kind=STAGE, stage_version=1, row_counts={"users": len(erasures.hashes)})
    return ref


def of_inputs(inputs: Mapping[str, Path]) -> Erasures:
    """The list a stage was given; a plan from before any erasure gives none."""
    if STAGE not in inputs:
        return Erasures()
    path = inputs[STAGE] / LIST_FILE
    return parse(json.loads(path.read_text()), str(path))


def may_be_kept(row: Any, erasures: Erasures) -> bool:
    """Whether a row that was set aside may be stored with its text: it must say whose it is, and
    that user must not be on the list. With an empty list every row may."""
    if not erasures:
        return True
    if not isinstance(row, Mapping) or "user_id" not in row:
        return False
    user_id = row["user_id"]
    return user_id is None or (isinstance(user_id, str) and not erasures.holds(user_id))


def without_erased(table: Any, erasures: Erasures) -> Any:
    """The Arrow table without the rows of erased users; rows without a user stay."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not erasures:
        return table
    if "user_id" not in table.column_names:
        raise InputDataError(
            "user_id: no such column, so erased users cannot be left out; give the whole table"
        )
    column = table.column("user_id")
    found = sorted(erasures.among(pc.unique(column).to_pylist()))
    if not found:
        return table
    return table.filter(pc.invert(pc.is_in(column, value_set=pa.array(found, pa.string()))))
