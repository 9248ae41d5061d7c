"""Days as versioned partitions: new, unchanged, changed; and nothing is lost on the way."""

import json
from pathlib import Path

import pytest
from ingest_samples import (
    REAL_FILE,
    conversation,
    traffic_row,
    write_jsonl,
    write_topical,
)

from flywheel_core.artifacts import ArtifactRef, materialise, read_file, read_manifest
from flywheel_core.errors import InputDataError
from flywheel_core.ingest.ingest import ingest
from flywheel_core.plan import ingested_days, invalidate
from flywheel_core.pointers import Pointer
from flywheel_core.records import TRAFFIC, read_table, write_table
from flywheel_core.store import LocalStore, MemoryStore, Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(str(tmp_path / "store")) if request.param == "local" else MemoryStore()


def two_days() -> list[dict[str, object]]:
    return [traffic_row(number, day=f"2026-01-0{5 + number % 2}") for number in range(6)]


def test_each_day_becomes_an_artifact_and_a_pointer(store: Store, tmp_path: Path) -> None:
    report = ingest(write_jsonl(tmp_path / "chats.jsonl", two_days()), "contract", store, "test")
    assert ingested_days(store, "test") == ("2026-01-05", "2026-01-06")
    assert [(day.day, day.outcome, day.rows) for day in report.days] == [
        ("2026-01-05", "new", 3),
        ("2026-01-06", "new", 3),
    ]
    newest = Pointer(store, "test", "traffic/2026-01-06").newest()
    assert newest is not None
    ref = ArtifactRef.model_validate(newest.value["ref"])
    manifest = read_manifest(store, ref)
    assert (ref.generation, ref.stage, manifest.kind) == (0, "traffic_day", "traffic")
    assert newest.value["digest"] == manifest.digest
    assert (newest.value["rows"], newest.value["source"]) == (3, "chats.jsonl")
    folder = materialise(store, ref, tmp_path / "cache")
    table = read_table(folder / "traffic.parquet", TRAFFIC)
    assert table.to_pylist() == [row for row in two_days() if row["day"] == "2026-01-06"]
    assert json.loads(json.dumps(report.to_json()))["rows"] == 6


def test_the_same_content_again_is_a_no_op_that_says_so(store: Store, tmp_path: Path) -> None:
    rows = two_days()
    ingest(write_jsonl(tmp_path / "chats.jsonl", rows), "contract", store, "test")
    before = store.list("")
    write_table(tmp_path / "chats.parquet", rows, TRAFFIC)
    report = ingest(tmp_path / "chats.parquet", "contract", store, "test")
    assert store.list("") == before
    assert {day.outcome for day in report.days} == {"unchanged"}
    assert "nothing to do" in report.summary()


def test_changed_content_is_a_new_version_of_its_day_only(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    rows = two_days()
    first = ingest(write_jsonl(path, rows), "contract", store, "test")
    rows[0]["response"] = "Another reply."
    second = ingest(write_jsonl(path, rows), "contract", store, "test")
    assert [(day.outcome, day.version) for day in second.days] == [
        ("changed", 2),
        ("unchanged", 1),
    ]
    old = ArtifactRef.model_validate(first.days[0].ref)
    assert read_manifest(store, old).digest == first.days[0].digest
    rows[0]["response"] = "Hi there."
    third = ingest(write_jsonl(path, rows), "contract", store, "test")
    assert (third.days[0].version, third.days[0].ref) == (3, first.days[0].ref)


def test_an_invalidated_day_is_made_anew(store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", two_days())
    first = ingest(path, "contract", store, "test")
    invalidate(store, "test", first.days[0].ref["key"], by="x", reason="bad")
    again = ingest(path, "contract", store, "test")
    assert again.days[0].outcome == "changed"
    assert again.days[0].ref != first.days[0].ref


def test_quarantine_lies_beside_the_day_with_place_and_reason(store: Store, tmp_path: Path) -> None:
    rows = [
        *two_days(),
        traffic_row(7, surface="public"),
        "{torn",
        traffic_row(8, day="2026-02-01", depth=-1),
    ]
    report = ingest(write_jsonl(tmp_path / "chats.jsonl", rows), "contract", store, "test")
    assert [day.quarantined for day in report.days] == [1, 2]
    assert report.rows + len(report.quarantine) == len(rows)
    lines = [
        json.loads(line)
        for day in report.days
        for line in read_file(
            store, ArtifactRef.model_validate(day.ref), "quarantine.jsonl"
        ).splitlines()
    ]
    assert [line["where"] for line in lines] == ["line 7", "line 8", "line 9"]
    assert lines[0]["reason"].startswith("surface: 'public'")
    assert "line 7: surface" in report.summary()


def test_a_file_with_no_good_row_changes_nothing(store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", ["{torn", "[]"])
    with pytest.raises(InputDataError, match="none of its 2 rows keeps the contract.*line 1"):
        ingest(path, "contract", store, "test")
    with pytest.raises(InputDataError, match="holds no row"):
        ingest(write_jsonl(path, []), "contract", store, "test")
    assert store.list("") == []


def test_a_wrong_argument_is_named(store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", two_days())
    with pytest.raises(InputDataError, match=r"format: 'csv'.*contract, topical-chat"):
        ingest(path, "csv", store, "test")
    with pytest.raises(InputDataError, match=r"day: 'yesterday'.*YYYY-MM-DD"):
        ingest(path, "contract", store, "test", day="yesterday")


def test_a_flywheel_that_is_no_name_is_refused_before_anything_is_read(
    store: Store, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", two_days())
    for name in ("../up", "", "a/b"):
        with pytest.raises(InputDataError, match="flywheel: "):
            ingest(path, "contract", store, name)


def test_rows_without_a_day_take_the_one_given(store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", [traffic_row(day=None)])
    assert ingest(path, "contract", store, "test", day="2026-03-01").days[0].day == "2026-03-01"


def test_topical_chat_fills_the_week_that_ends_with_the_day(store: Store, tmp_path: Path) -> None:
    chats = {f"t_{n}": conversation(4) for n in range(100)}
    path = write_topical(tmp_path / "t.json.gz", chats)
    report = ingest(path, "topical-chat", store, "topical", day="2026-01-11")
    assert [day.day for day in report.days] == [f"2026-01-{day:02d}" for day in range(5, 12)]
    assert report.rows == 300


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"the data set is not here: {REAL_FILE}")
def test_the_real_file_gives_the_recipe_its_rows() -> None:
    store = MemoryStore()
    report = ingest(REAL_FILE, "topical-chat", store, "topical", max_words=64)
    assert report.rows == 2_578
    assert report.rows + len(report.quarantine) == 11_760 - 539
    assert len(ingested_days(store, "topical")) == 7
