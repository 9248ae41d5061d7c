"""Pointers on every store: append-only, compare-and-swap, history."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flywheel_core.errors import ArtifactCorrupt, PointerConflict, SchemaTooNew
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.store import Store


def test_the_newest_record_wins_and_the_sequence_is_the_history(store: Store) -> None:
    pointer = Pointer(store, "test", "production")
    assert pointer.newest() is None
    assert pointer.history() == []
    for number in range(1, 12):
        moved = pointer.move(
            {"model": number}, expected_number=number - 1, by="rm", reason=f"move {number}"
        )
        assert pointer.newest() == moved
    assert [record.value["model"] for record in pointer.history()] == list(range(1, 12))
    assert [record.number for record in pointer.history()] == list(range(1, 12))
    assert store.list("test/pointers/production")[-1].endswith("00000011.json")


def test_pointers_do_not_see_each_other(store: Store) -> None:
    Pointer(store, "test", "traffic/2026-01-05").append({"a": 1}, by="x", reason="r")
    Pointer(store, "test", "traffic/2026-01-06").append({"a": 2}, by="x", reason="r")
    Pointer(store, "test", "production").append({"a": 3}, by="x", reason="r")
    Pointer(store, "test", "production2").append({"a": 4}, by="x", reason="r")
    newest = Pointer(store, "test", "production").newest()
    assert newest is not None
    assert newest.value == {"a": 3}
    assert len(Pointer(store, "test", "traffic/2026-01-05").history()) == 1


def test_of_20_movers_from_one_record_exactly_one_wins(store: Store) -> None:
    pointer = Pointer(store, "test", "production")
    pointer.append({"model": "old"}, by="flywheel", reason="start")
    start = threading.Barrier(20)

    def move(number: int) -> PointerRecord | None:
        start.wait()
        try:
            return pointer.move({"model": number}, expected_number=1, by=f"rm{number}", reason="r")
        except PointerConflict:
            return None

    with ThreadPoolExecutor(20) as movers:
        won = [record for record in movers.map(move, range(20)) if record is not None]
    assert len(won) == 1
    assert pointer.newest() == won[0]
    assert len(pointer.history()) == 2


def test_8_appends_at_once_all_land_without_a_gap(store: Store) -> None:
    pointer = Pointer(store, "test", "erasures")
    with ThreadPoolExecutor(8) as movers:
        records = list(movers.map(lambda n: pointer.append({"n": n}, by="x", reason="r"), range(8)))
    assert sorted(record.number for record in records) == list(range(1, 9))
    assert sorted(record.value["n"] for record in pointer.history()) == list(range(8))


@pytest.mark.parametrize("expected_number", [0, 2, 7])
def test_a_stale_or_impossible_move_is_a_conflict(store: Store, expected_number: int) -> None:
    pointer = Pointer(store, "test", "production")
    pointer.append({"model": 1}, by="x", reason="r")
    with pytest.raises(PointerConflict, match=f"record {expected_number}"):
        pointer.move({"model": 2}, expected_number=expected_number, by="x", reason="r")
    assert len(pointer.history()) == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"number": 2}, ArtifactCorrupt),
        ({"extra": 1}, ArtifactCorrupt),
        ({"value": 3}, ArtifactCorrupt),
        ({"schema_version": 99}, SchemaTooNew),
    ],
    ids=["copied", "extra", "type", "newer"],
)
def test_an_edited_record_is_refused(
    store: Store, change: dict[str, object], error: type[Exception]
) -> None:
    pointer = Pointer(store, "test", "production")
    pointer.append({"model": 1}, by="x", reason="r")
    path = "test/pointers/production/00000001.json"
    store.put(path, json.dumps(json.loads(store.get(path)) | change).encode())
    with pytest.raises(error, match=r"00000001\.json"):
        pointer.newest()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"], ids=["none", "torn", "list", "bytes"])
def test_a_torn_record_is_refused(store: Store, data: bytes) -> None:
    pointer = Pointer(store, "test", "production")
    store.put("test/pointers/production/00000001.json", data)
    with pytest.raises(ArtifactCorrupt, match=r"00000001\.json"):
        pointer.newest()
