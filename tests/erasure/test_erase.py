"""Erasure end to end: nothing of the user is left, readers are told, models are named."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from erasure_samples import DAYS, ERASED, Sample, row, write_traffic
from typer.testing import CliRunner

from flywheel_core.annotation.exchange import batch_folder
from flywheel_core.artifacts import (
    ArtifactRef,
    Attempt,
    file_of,
    is_done,
    materialise,
    read_file,
    read_manifest,
    read_record,
)
from flywheel_core.cli import app
from flywheel_core.erasure.erase import EraseReport, erase, read_user_ids
from flywheel_core.erasure.users import read_erasures
from flywheel_core.errors import ArtifactRetired, ConfigError, InputDataError
from flywheel_core.ingest.ingest import ingest
from flywheel_core.jobs.base import execute
from flywheel_core.plan import PinnedPlan
from flywheel_core.pointers import Pointer
from flywheel_core.recipe import parse_recipe
from flywheel_core.records import TRAFFIC, read_table
from flywheel_core.store import LocalStore, MemoryStore, Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(str(tmp_path / "store")) if request.param == "local" else MemoryStore()


@pytest.fixture
def sample(store: Store, tmp_path: Path) -> Sample:
    return Sample(store, tmp_path)


def run(sample: Sample, **changes: Any) -> EraseReport:
    arguments = {"by": "dpo", "reason": "asked for", "scratch": (sample.folder / "scratch",)}
    return erase(sample.store, "test", [ERASED], **(arguments | changes))


def newest_day(store: Store, day: str) -> ArtifactRef:
    newest = Pointer(store, "test", f"traffic/{day}").newest()
    assert newest is not None
    return ArtifactRef.model_validate(newest.value["ref"])


def test_nothing_of_the_user_is_left_in_the_store_or_the_report(sample: Sample) -> None:
    sample.climb("first")
    assert len(sample.where(ERASED)) >= 7, "the sample spreads the user's rows"
    report = run(sample)
    assert sample.where(ERASED) == []
    found = json.dumps(report.to_json())
    assert ERASED not in found + report.summary()
    assert (report.users_given, report.users_new, report.users_listed) == (1, 1, 1)
    assert report.unchecked == ()
    copies = [
        path for path in sample.folder.rglob("*") if path.is_file() and path.suffix != ".jsonl"
    ]
    assert not [path for path in copies if ERASED.encode() in path.read_bytes()]


def test_a_day_gets_a_version_without_the_rows_and_keeps_the_others(
    sample: Sample, tmp_path: Path
) -> None:
    before = {day: newest_day(sample.store, day) for day in DAYS}
    old = read_table(materialise(sample.store, before[DAYS[0]], tmp_path / "c") / "traffic.parquet")
    report = run(sample)
    (day,) = report.days
    assert (day.day, day.version, day.rows_removed) == (DAYS[0], 2, 5)
    assert newest_day(sample.store, DAYS[1]) == before[DAYS[1]], "the other day is untouched"
    new = newest_day(sample.store, DAYS[0])
    folder = materialise(sample.store, new, tmp_path / "c")
    rows = read_table(folder / "traffic.parquet", TRAFFIC).to_pylist()
    assert rows == [one for one in old.to_pylist() if one["user_id"] != ERASED]
    (line,) = (folder / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "where": "line 81",
        "reason": "depth: must be a whole number from 0",
        "row": None,
    }
    with pytest.raises(ArtifactRetired, match="was retired by record 1 of the erasure list"):
        materialise(sample.store, before[DAYS[0]], tmp_path / "c")


def test_a_plan_pinned_before_fails_with_a_sentence_and_a_new_one_goes_through(
    sample: Sample,
) -> None:
    done, begun = sample.climb("done"), sample.pin("begun")
    other = sample.climb("half", until="traffic")
    report = run(sample)
    assert set(report.stopped_plans) <= {"begun", "half", "done"}
    for plan in (done, begun, other):
        for stage in ("traffic", "curate"):
            with pytest.raises(ArtifactRetired, match="start a new run, which leaves those users"):
                execute(sample.site, plan, stage)
    fresh = sample.climb("fresh", until="curate")
    traffic = read_manifest(sample.store, fresh.stage("traffic").ref)
    assert traffic.row_counts["rows"] == 155
    assert fresh.stage("traffic").ref.key != done.stage("traffic").ref.key
    assert "erasures" in fresh.stage("curate").inputs


def test_rows_that_are_erased_later_than_their_day_are_left_out_by_the_stage(
    sample: Sample, tmp_path: Path
) -> None:
    """A list without a rewrite (the command broke off): the stage itself leaves the rows out."""
    from flywheel_core.erasure.users import add_users

    add_users(sample.store, "test", [ERASED], by="dpo", reason="asked for")
    plan = sample.climb("after", until="curate")
    manifest = read_manifest(sample.store, plan.stage("traffic").ref)
    assert (manifest.row_counts["rows"], manifest.row_counts["rows_erased"]) == (155, 5)
    found = sample.where(ERASED)
    assert all("/traffic_day/" in path for path in found)


def test_models_are_listed_with_those_that_descend_from_them(sample: Sample) -> None:
    first = sample.climb("first")
    sample.promote(first)
    report = run(sample)
    sample.user = "user3"
    second = sample.climb("second")
    again = run(sample)
    direct = {one.artifact.split("/")[2]: one for one in report.models}
    assert set(direct) == {"reward_models", "sft", "dpo", "rl", "evaluate"}
    assert all(one.how == "trained on rows of erased users" for one in report.models)
    assert direct["evaluate"].named_by == ("production",)
    assert (again.users_new, again.record, again.retired) == (0, 1, ())
    later = [one for one in again.models if one.artifact.startswith("test/gen-0002/")]
    assert {one.artifact.split("/")[2] for one in later} >= {"sft", "evaluate"}
    assert {one.how for one in later} == {"descends from a model trained on them"}
    assert read_manifest(sample.store, second.stage("evaluate").ref)


def test_production_still_serves_but_its_rows_are_gone(sample: Sample, tmp_path: Path) -> None:
    plan = sample.climb("first")
    sample.promote(plan)
    report = run(sample)
    evaluated = plan.stage("evaluate").ref
    folder = materialise(sample.store, evaluated, tmp_path / "c")
    assert (folder / "model" / "model.safetensors").is_file()
    assert not (folder / "details.json").exists()
    assert read_file(sample.store, evaluated, "metrics.json") == b"{}"
    with pytest.raises(ArtifactRetired, match="evaluate of generation 1"):
        read_file(sample.store, evaluated, "details.json")
    retired = {one.artifact.split("/")[2]: one.files_removed for one in report.retired}
    assert retired == {
        "traffic_day": 1 + 1,
        "traffic": 1,
        "curate": 1,
        "annotate": 1,
        "rejection_sampling": 1,
        "evaluate": 2,
    }
    kept = read_record(sample.store, plan.stage("curate").ref)
    assert read_record(sample.store, plan.stage("curate").ref).row_counts["rows"] == 160
    assert sample.store.exists(file_of(kept, "report.json")), "counts stay, as the record"


def test_a_driver_that_commits_late_is_refused(sample: Sample, tmp_path: Path) -> None:
    plan = sample.climb("first", until="traffic")
    attempt = Attempt(sample.store, plan.stage("curate").ref, tmp_path / "late")
    run(sample)
    attempt.folder.mkdir(parents=True, exist_ok=True)
    (attempt.folder / "prompts.parquet").write_bytes(ERASED.encode())
    with pytest.raises(ArtifactRetired, match="curate of generation 1"):
        attempt.commit(kind="prompts", stage_version=1)
    assert sample.where(ERASED) == []
    assert is_done(sample.store, plan.stage("curate").ref), "nothing is left to make"


def test_ingest_counts_erased_rows_and_stores_nothing_of_them(sample: Sample) -> None:
    run(sample)
    path = sample.folder / "more.jsonl"
    first = write_traffic(sample.folder)[0].read_text()
    path.write_text(first + '{"torn by victim-7f3a\n' + '{"user": "victim-7f3a"}\n')
    report = ingest(path, "contract", sample.store, "test")
    assert report.read == 83
    assert report.accepted == 75
    assert report.quarantined == {
        "depth: must be a whole number from 0": 1,
        "not JSON": 1,
        "unknown fields: 1": 1,
        "user_id: on the list of erased users": 5,
    }
    assert sample.where(ERASED) == []


def test_an_ingest_overtaken_by_an_erasure_commits_nothing(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flywheel_core.ingest import ingest as module

    reads = iter([read_erasures(sample.store, "test")])
    run(sample)
    monkeypatch.setattr(module, "read_erasures", lambda *where: next(reads, read_erasures(*where)))
    before = sample.store.list("")
    with pytest.raises(InputDataError, match="users were erased while it was read"):
        ingest(write_traffic(sample.folder)[0], "contract", sample.store, "test")
    assert sample.store.list("") == before


class Crash(RuntimeError):
    """The process died here."""


class CrashingStore(MemoryStore):
    """Dies at its n-th write from now on; shares the data of `whole`."""

    def __init__(self, whole: MemoryStore, crash_at: int) -> None:
        super().__init__()
        self._data, self._left = dict(whole._data), crash_at

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Crash

    def put(self, path: str, data: bytes) -> None:
        self._spend()
        super().put(path, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        self._spend()
        return super().put_if_absent(path, data)

    def delete(self, path: str) -> None:
        self._spend()
        super().delete(path)


def test_the_same_command_finishes_what_a_crash_at_any_write_left(tmp_path: Path) -> None:
    whole = MemoryStore()
    sample = Sample(whole, tmp_path)
    sample.climb("first")
    sample.pin("second")
    crash_at = 0
    while True:
        sample.store = CrashingStore(whole, crash_at)
        try:
            report = run(sample)
        except Crash:
            sample.store._left = 10**6
            assert run(sample).unchecked == ()
            assert sample.where(ERASED) == [], f"after a crash at write {crash_at}"
            crash_at += 1
        else:
            break
    assert crash_at > 15
    assert report.users_new == 1


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(sample: Sample) -> None:
    plan = sample.climb("first")
    damaged = read_manifest(sample.store, plan.stage("annotate").ref)
    sample.store.put(file_of(damaged, "pairs_user.parquet"), b"PAR1 and then nothing")
    other = newest_day(sample.store, DAYS[1])
    day = read_manifest(sample.store, other)
    sample.store.put(file_of(day, "traffic.parquet"), b"PAR1")
    report = run(sample)
    assert sorted(one.split("/")[2] for one in report.unchecked) == ["annotate", "traffic_day"]
    assert len(report.days) == 1


def test_the_command_line_shows_counts_and_no_identifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    sample = Sample(LocalStore(str(tmp_path / "store")), tmp_path)
    listed = tmp_path / "ids.txt"
    listed.write_text(f"{ERASED}\n\nnobody-known\n")
    arguments = ["erase", "--file", str(listed), "--by", "dpo", "--reason", "asked for"]
    arguments += ["--flywheel", "test"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["users_given"], said["users_new"], len(said["days"])) == (2, 2, 1)
    shown = CliRunner().invoke(app, arguments)
    assert "2 users given, 0 new to the list of 2" in shown.stdout
    assert ERASED not in done.output + shown.output
    assert sample.where(ERASED) == []
    day = read_manifest(sample.store, newest_day(sample.store, DAYS[1]))
    sample.store.put(file_of(day, "traffic.parquet"), b"PAR1")
    failed = CliRunner().invoke(app, arguments)
    assert failed.exit_code == 1
    assert "1 artifacts could not be checked" in failed.stderr
    for wrong, complaint in (
        (["--user", " "], "user 1 of 1: an ID of 1 characters"),
        ([], "none was given"),
        (["--file", str(tmp_path / "no")], "cannot be read"),
    ):
        refused = CliRunner().invoke(app, ["erase", *wrong, *arguments[3:]])
        assert refused.exit_code == 1
        assert complaint in refused.stderr


def ask_people(sample: Sample) -> Path:
    """From now on people label, through a folder."""
    recipe = sample.recipe.model_dump(mode="json")
    recipe["annotation"]["source"] = "files"
    recipe["execution"]["annotation_exchange"] = str(sample.folder / "exchange")
    sample.recipe = parse_recipe(recipe, "of the tests")
    return sample.folder / "exchange"


def put_tasks(exchange: Path, plan: PinnedPlan) -> Path:
    """Tasks for people, as the stage puts them."""
    folder = batch_folder(exchange, plan.stage("annotate").ref)
    (folder / "static").mkdir(parents=True)
    (folder / "static" / "tasks.jsonl").write_text(json.dumps(row(0, ERASED, DAYS[0])))
    return folder


def test_a_retired_batchs_exchange_is_removed_and_named(sample: Sample) -> None:
    exchange = ask_people(sample)
    done = put_tasks(exchange, sample.climb("done"))
    report = run(sample)
    assert [(one.folder, one.removed) for one in report.exchanges] == [(str(done), True)]
    assert not done.exists()
    assert f"removed annotation exchange {done}" in report.summary()
    kept = put_tasks(exchange, sample.climb("fresh", until="curate"))
    again = run(sample)
    assert [(one.folder, one.removed) for one in again.exchanges] == [(str(done), False)]
    assert f"remove annotation exchange {done} where it is mounted" in again.summary()
    assert kept.is_dir(), "a batch without the user stays"


def test_the_exchange_of_a_stopped_plan_is_removed_though_nothing_was_committed(
    sample: Sample,
) -> None:
    exchange = ask_people(sample)
    begun = put_tasks(exchange, sample.climb("begun", until="curate"))
    report = run(sample)
    assert report.stopped_plans == ("begun",)
    assert [one.removed for one in report.exchanges] == [True]
    assert not begun.exists()


def test_an_exchange_that_cannot_be_removed_is_not_passed_over(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flywheel_core.erasure import exchanges

    def refuse(folder: Path) -> None:
        raise PermissionError

    folder = put_tasks(ask_people(sample), sample.climb("done"))
    monkeypatch.setattr(exchanges, "shutil", SimpleNamespace(rmtree=refuse))
    report = erase(sample.store, "test", [ERASED], by="dpo", reason="asked for")
    assert report.unchecked == (f"{folder}: PermissionError; remove it by hand",)
    assert not report.exchanges[0].removed


def test_users_that_are_in_nothing_are_counted(sample: Sample) -> None:
    sample.climb("first", until="curate")
    unknown = [f"{ERASED} ", "nobody-known"]
    report = erase(sample.store, "test", [ERASED, *unknown], by="dpo", reason="asked for")
    assert report.users_not_found == report.to_json()["users_not_found"] == 2
    assert "2 of 3 users given were found in no artifact and no day" in report.summary()
    assert not any(one in report.summary() for one in unknown)
    again = erase(sample.store, "test", ["user3", "user5"], by="dpo", reason="asked for")
    assert again.users_not_found == 0
    assert "found in no artifact" not in again.summary()


def test_a_user_who_is_only_in_a_quarantine_is_found(sample: Sample) -> None:
    broken = {**row(901, "only-set-aside", DAYS[1]), "depth": -1}
    path = sample.folder / "broken.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in (row(902, "user1", "2026-01-07"), broken)))
    ingest(path, "flywheel", sample.store, "test")
    report = erase(sample.store, "test", ["only-set-aside"], by="dpo", reason="asked for")
    assert report.users_not_found == 0


def test_user_ids_are_read_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_text("a\n\n  b  \nc\n")
    assert read_user_ids(path) == ["a", "b", "c"]
    path.write_text("a\nb\n", encoding="utf-8-sig")
    assert read_user_ids(path) == ["a", "b"], "a byte order mark is no part of the first id"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputDataError, match="UTF-8 text file with one user id a line"):
        read_user_ids(path)


def test_an_unknown_flywheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flywheel_core.deployment import Deployment
    from flywheel_core.erasure.erase import erase_here

    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    with pytest.raises(ConfigError, match="flywheel 'no-such'"):
        erase_here(Deployment.from_environment(), "no-such", ["u"], by="x", reason="y")


def test_plans_without_the_users_rows_go_on(sample: Sample) -> None:
    plan: PinnedPlan = sample.pin("begun")
    report = erase(sample.store, "test", ["nobody-known"], by="dpo", reason="asked for")
    assert (report.days, report.retired, report.stopped_plans, report.models) == ((), (), (), ())
    execute(sample.site, plan, "traffic")
