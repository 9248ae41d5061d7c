"""Days as versioned partitions: new, the same, another version; and every row accounted for."""

import json
from pathlib import Path

import pytest
from ingest_samples import conversation, traffic_row, write_jsonl, write_topical
from typer.testing import CliRunner

from flywheel_core.artifacts import ArtifactRef, file_of, materialise, read_file, read_manifest
from flywheel_core.cli import app
from flywheel_core.days import ingested_days
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.ingest.ingest import DayReport, ingest
from flywheel_core.ingest.versions import RefusedDay
from flywheel_core.keys import invalidate
from flywheel_core.pointers import Pointer
from flywheel_core.records import TRAFFIC, read_table, write_table
from flywheel_core.store import LocalStore, MemoryStore, Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(str(tmp_path / "store")) if request.param == "local" else MemoryStore()


def two_days() -> list[dict[str, object]]:
    return [traffic_row(number, day=f"2026-01-0{5 + number % 2}") for number in range(6)]


def ref_of(day: DayReport) -> ArtifactRef:
    return ArtifactRef(flywheel="test", generation=0, stage="traffic_day", key=day.key)


def test_each_day_becomes_an_artifact_and_a_pointer(store: Store, tmp_path: Path) -> None:
    report = ingest(write_jsonl(tmp_path / "chats.jsonl", two_days()), "contract", store, "test")
    assert (report.read, report.accepted, report.quarantined) == (6, 6, {})
    assert ingested_days(store, "test") == ("2026-01-05", "2026-01-06")
    assert [(day.day, day.rows, day.version) for day in report.days] == [
        ("2026-01-05", 3, 1),
        ("2026-01-06", 3, 1),
    ]
    newest = Pointer(store, "test", "traffic/2026-01-06").newest()
    assert newest is not None
    ref = ArtifactRef.model_validate(newest.value["ref"])
    manifest = read_manifest(store, ref)
    assert (ref, manifest.kind) == (ref_of(report.days[1]), "traffic")
    assert newest.value["digest"] == manifest.digest
    assert (newest.value["rows"], newest.value["source"]) == (3, "chats.jsonl")
    folder = materialise(store, ref, tmp_path / "cache")
    table = read_table(folder / "traffic.parquet", TRAFFIC)
    assert table.to_pylist() == [row for row in two_days() if row["day"] == "2026-01-06"]
    assert json.loads(json.dumps(report.to_json()))["accepted"] == 6


def test_the_same_content_again_is_a_no_op_that_says_so(store: Store, tmp_path: Path) -> None:
    rows = two_days()
    ingest(write_jsonl(tmp_path / "chats.jsonl", rows), "contract", store, "test")
    before = store.list("")
    write_table(tmp_path / "chats.parquet", rows, TRAFFIC)
    report = ingest(tmp_path / "chats.parquet", "contract", store, "test")
    assert store.list("") == before
    assert [day.changed for day in report.days] == [False, False]
    assert "already there, nothing changed" in report.summary()


def test_changed_content_is_a_new_version_of_its_day_only(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    rows = two_days()
    first = ingest(write_jsonl(path, rows), "contract", store, "test")
    rows[0]["response"] = "Another reply."
    second = ingest(write_jsonl(path, rows), "contract", store, "test")
    assert [(day.changed, day.version) for day in second.days] == [(True, 2), (False, 1)]
    assert read_manifest(store, ref_of(first.days[0])).digest == first.days[0].digest
    rows[0]["response"] = "Hi there."
    third = ingest(write_jsonl(path, rows), "contract", store, "test")
    assert (third.days[0].version, third.days[0].key) == (3, first.days[0].key)


def test_an_invalidated_day_is_made_anew(store: Store, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", two_days())
    first = ingest(path, "contract", store, "test")
    invalidate(store, "test", first.days[0].key, by="x", reason="bad")
    again = ingest(path, "contract", store, "test")
    assert [day.changed for day in again.days] == [True, False]
    assert again.days[0].key != first.days[0].key


def test_bad_rows_lie_beside_their_day_with_place_and_reason(store: Store, tmp_path: Path) -> None:
    rows = [
        *two_days(),
        traffic_row(7, surface="public", day="2026-01-06"),
        "{torn",
        traffic_row(8, day="2026-02-01", depth=-1),
        traffic_row(0),
    ]
    report = ingest(write_jsonl(tmp_path / "chats.jsonl", rows), "contract", store, "test")
    assert report.quarantined == {
        "depth: must be a whole number from 0": 1,
        "not JSON": 1,
        "row_id: seen before": 1,
        "surface: must be one of internal, user": 1,
    }
    assert report.accepted + sum(report.quarantined.values()) == report.read == len(rows)
    assert [day.quarantined for day in report.days] == [3, 1]
    lines = [
        [
            json.loads(line)
            for line in read_file(store, ref_of(day), "quarantine.jsonl").splitlines()
        ]
        for day in report.days
    ]
    assert [line["where"] for line in lines[0]] == ["line 8", "line 9", "row 10"]
    assert [(line["where"], line["row"]) for line in lines[1]] == [("line 7", rows[6])]
    assert "quarantined 1: not JSON" in report.summary()


def test_keys_do_not_depend_on_the_store(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", two_days())
    stores: list[Store] = [MemoryStore(), LocalStore(str(tmp_path / "one"))]
    reports = [ingest(path, "contract", store, "test") for store in stores]
    assert reports[0].days == reports[1].days


def test_a_file_that_is_not_what_it_says_is_refused_and_nothing_is_written(
    store: Store, tmp_path: Path
) -> None:
    chats = write_topical(tmp_path / "chats.json.gz", {"t_1": conversation()})
    rows = write_jsonl(tmp_path / "rows.jsonl", two_days())
    empty = write_jsonl(tmp_path / "empty.jsonl", [])
    for path, file_format, complaint in (
        (chats, "contract", r"none of 1 rows follows the format 'contract': unknown fields"),
        (rows, "topical-chat", "not a Topical-Chat file"),
        (empty, "contract", "holds no row"),
        (empty, "topical-chat", "not a Topical-Chat file"),
        (tmp_path / "nowhere", "contract", "no such file"),
        (tmp_path, "contract", "no such file"),
    ):
        with pytest.raises(InputDataError, match=complaint):
            ingest(path, file_format, store, "test")
    assert store.list("") == []


def test_a_wrong_argument_is_named_before_anything_is_read(store: Store, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(ConfigError, match=r"format: 'csv'.*use one of flywheel, topical-chat"):
        ingest(missing, "csv", store, "test")
    with pytest.raises(ConfigError, match=r"day: 'yesterday'.*YYYY-MM-DD"):
        ingest(missing, "contract", store, "test", day="yesterday")
    with pytest.raises(ConfigError, match="max_words: only --format topical-chat"):
        ingest(missing, "contract", store, "test", max_words=64)
    with pytest.raises(ConfigError, match="max_history_turns: 0 must be at least 1"):
        ingest(missing, "topical-chat", store, "test", max_history_turns=0)
    for name in ("../up", "", "a/b"):
        with pytest.raises(ConfigError, match="flywheel: "):
            ingest(missing, "contract", store, name)


def test_a_straggler_does_not_replace_its_day(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    whole = [traffic_row(number) for number in range(50)]
    ingest(write_jsonl(path, whole), "flywheel", store, "test")
    late = [
        traffic_row(90),
        *(traffic_row(number, day="2026-01-06") for number in range(60, 63)),
        traffic_row(91, depth=-1),
    ]
    report = ingest(write_jsonl(path, late), "flywheel", store, "test")
    assert [(day.day, day.rows) for day in report.days] == [("2026-01-06", 3)]
    assert report.refused == (RefusedDay("2026-01-05", 1, 1, 1, 50, 50),)
    assert (report.read, report.accepted) == (5, 3)
    assert "NOT TAKEN IN (1 rows, 1 quarantined): version 1" in report.summary()
    newest = Pointer(store, "test", "traffic/2026-01-05").newest()
    assert newest is not None
    assert (newest.number, newest.value["rows"]) == (1, 50)
    asked = ingest(path, "flywheel", store, "test", replace=True)
    assert (asked.days[0].rows_before, asked.days[0].rows_dropped) == (50, 50)
    assert "1 rows, in place of 50, of which 50 are dropped: new version 2" in asked.summary()
    assert [day.changed for day in asked.days] == [True, False]
    grown = [late[0], *whole]
    report = ingest(write_jsonl(path, grown), "flywheel", store, "test")
    assert (report.days[0].version, report.days[0].rows_before) == (3, 1)
    assert "51 rows, in place of 1: new version 3" in report.summary()


def test_as_many_other_rows_do_not_replace_a_day_either(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    ingest(write_jsonl(path, [traffic_row(n) for n in range(5)]), "flywheel", store, "test")
    others = write_jsonl(path, [traffic_row(n) for n in range(2, 12)])
    report = ingest(others, "flywheel", store, "test")
    assert [(one.rows, one.rows_missing) for one in report.refused] == [(10, 2)]


def test_a_version_that_cannot_be_read_is_replaced_only_when_asked(
    store: Store, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "chats.jsonl", [traffic_row(n) for n in range(5)])
    (day,) = ingest(path, "flywheel", store, "test").days
    store.put(file_of(read_manifest(store, ref_of(day)), "traffic.parquet"), b"PAR1")
    write_jsonl(path, [traffic_row(n, response="Another.") for n in range(5)])
    assert [one.rows_missing for one in ingest(path, "flywheel", store, "test").refused] == [5]
    assert ingest(path, "flywheel", store, "test", replace=True).days[0].version == 2


def test_the_command_fails_where_a_day_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    path = write_jsonl(tmp_path / "chats.jsonl", [traffic_row(n) for n in range(5)])
    run = CliRunner().invoke
    assert run(app, ["ingest", str(path)]).exit_code == 0
    write_jsonl(path, [traffic_row(1)])
    refused = run(app, ["ingest", str(path), "--json"])
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["refused"][0]["rows_missing"] == 4
    assert "1 days were not taken in" in refused.stderr
    assert run(app, ["ingest", str(path), "--replace"]).exit_code == 0
    folder = ["ingest", str(path), "--replace", "--out", str(tmp_path / "out")]
    assert "a folder has no versions" in run(app, folder).stderr
