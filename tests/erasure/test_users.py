"""The list of erased users: salted hashes, appended by many at once, and never half read."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from flywheel_core.erasure.users import (
    NOBODY,
    add_users,
    may_be_kept,
    parse,
    read_erasures,
    without_erased,
)
from flywheel_core.errors import ArtifactCorrupt, ConfigError, InputDataError
from flywheel_core.pointers import Pointer
from flywheel_core.store import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def add(store: MemoryStore, *user_ids: str, flywheel: str = "test") -> Any:
    return add_users(store, flywheel, user_ids, by="dpo", reason="asked for")


def test_the_list_recognises_its_users_and_holds_none_of_their_ids(store: MemoryStore) -> None:
    added = add(store, "ann", "José", "lone \ud800")
    assert (added.num_new, added.record_number) == (3, 1)
    erasures = read_erasures(store, "test")
    assert erasures.among(["ann", "bob", None, "José", "lone \ud800"]) == {
        "ann",
        "José",
        "lone \ud800",
    }
    assert not any(b"ann" in store.get(path) for path in store.list(""))


def test_the_same_users_again_change_nothing(store: MemoryStore) -> None:
    first = add(store, "ann", "bob")
    again = add(store, "bob")
    assert (again.num_new, again.record_number, again.erasures) == (0, 1, first.erasures)
    more = add(store, "bob", "cleo")
    assert (more.num_new, more.record_number) == (1, 2)
    assert more.erasures.salt == first.erasures.salt
    assert len({NOBODY.digest, first.erasures.digest, more.erasures.digest}) == 3


def test_the_lists_of_two_flywheels_cannot_be_matched(store: MemoryStore) -> None:
    one, other = add(store, "ann"), add(store, "ann", flywheel="other")
    assert one.erasures.hashes.isdisjoint(other.erasures.hashes)


def test_of_many_who_add_at_once_nobody_is_lost(store: MemoryStore) -> None:
    with ThreadPoolExecutor(8) as people:
        list(people.map(lambda n: add(store, f"user{n}"), range(24)))
    assert len(read_erasures(store, "test").hashes) == 24
    assert all(read_erasures(store, "test").holds(f"user{n}") for n in range(24))


@pytest.mark.parametrize(
    "value",
    [{}, {"salt": "", "hashes": []}, {"salt": "0" * 16, "hashes": []}, {"salt": "0" * 16},
     {"salt": "0" * 16, "hashes": ["short"]}, {"salt": 7, "hashes": ["0" * 32]},
     {"salt": "0" * 16, "hashes": [7]}, {"user_ids": ["ann"]}],
)  # fmt: skip
def test_a_list_that_cannot_be_read_is_no_empty_list(
    store: MemoryStore, value: dict[str, Any]
) -> None:
    with pytest.raises(ArtifactCorrupt, match="restore it from a copy"):
        parse(value, "record 1")
    Pointer(store, "test", "erasures").append(value, by="x", reason="y")
    with pytest.raises(ArtifactCorrupt, match="record 1 of test's pointer erasures"):
        read_erasures(store, "test")


def test_who_cannot_be_a_user_is_refused_without_being_named(store: MemoryStore) -> None:
    with pytest.raises(ConfigError, match="none was given"):
        add(store)
    for wrong in ("", "   ", "x" * 201):
        with pytest.raises(ConfigError, match=f"user 2 of 2: an ID of {len(wrong)} characters"):
            add(store, "ann", wrong)
    assert store.list("") == []


def test_rows_of_erased_users_go_and_rows_of_nobody_stay(store: MemoryStore) -> None:
    erasures = add(store, "ann").erasures
    table = pa.table({"user_id": ["ann", "bob", None, "ann"], "number": [1, 2, 3, 4]})
    assert without_erased(table, erasures)["number"].to_pylist() == [2, 3]
    assert without_erased(table, NOBODY) is table
    nobody = pa.table({"user_id": pa.array([None, None], pa.string())})
    assert without_erased(nobody, erasures).num_rows == 2
    with pytest.raises(InputDataError, match="user_id: no such column"):
        without_erased(table.select(["number"]), erasures)


def test_a_row_set_aside_keeps_its_text_only_if_it_says_whose_it_is(store: MemoryStore) -> None:
    erasures = add(store, "ann").erasures
    kept = [{"user_id": "bob"}, {"user_id": None}]
    withheld = [{"user_id": "ann"}, {}, "torn", None, ["ann"], {"user_id": 7}]
    assert all(may_be_kept(row, erasures) for row in kept)
    assert not any(may_be_kept(row, erasures) for row in withheld)
    assert all(may_be_kept(row, NOBODY) for row in kept + withheld)
