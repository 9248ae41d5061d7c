"""Erased users and experiments: their rows go from the logs, and no figure changes in silence."""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from ab_store import (
    CONFIG,
    EVENTS,
    EXPERIMENT,
    FIRST,
    FLYWHEEL,
    day,
    log_days,
    production,
    run,
    say,
    start,
)
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.erasure.erase import EraseReport, erase
from flywheel_core.erasure.users import add_users, read_erasures
from flywheel_core.experiments.analyze import analyze
from flywheel_core.experiments.assignment import Allocation, Eligibility
from flywheel_core.experiments.exposure_log import append_day, fetch_days
from flywheel_core.experiments.journal import Journal
from flywheel_core.experiments.readout import Readout
from flywheel_core.store import LocalStore, Store

FOLDER = f"{FLYWHEEL}/experiments/x7"


@pytest.fixture
def store(store: Store) -> Store:
    start(store, 1.0)
    return store


def table(store: Store, path: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(store.get(path)))


def logs(store: Store) -> list[str]:
    return [*store.list(EXPERIMENT.exposures), *store.list(EVENTS)]


def one_user(store: Store) -> str:
    """Somebody who sends something on the first day."""
    return str(table(store, store.list(EVENTS)[0]).column("user_id")[3])


def rows_of(store: Store, user: str) -> int:
    return sum(table(store, path)["user_id"].to_pylist().count(user) for path in logs(store))


def erased(store: Store, *users: str) -> EraseReport:
    return erase(store, FLYWHEEL, users, by="dpo", reason="asked for")


def read_without(store: Store, user: str, folder: Path) -> Readout:
    """The oracle: the logs as files, filtered by pandas, through the same analysis."""
    folders = []
    for name, log in (("exposures", EXPERIMENT.exposures), ("events", EVENTS)):
        copied = fetch_days(store, log, day(6), folder / name)
        for path in copied.rglob("*.parquet"):
            frame = pq.read_table(path).to_pandas()
            frame[frame["user_id"] != user].to_parquet(path, index=False)
        folders.append(copied)
    return analyze(folders[0], folders[1], CONFIG, experiment_id="x7")


def test_the_rows_go_and_every_other_row_stays(store: Store, tmp_path: Path) -> None:
    user = one_user(store)
    before = {path: table(store, path) for path in logs(store)}
    num_rows = rows_of(store, user)
    expected = read_without(store, user, tmp_path)
    report = erased(store, user)
    assert rows_of(store, user) == 0
    for path, old in before.items():
        kept = old.filter(pc.not_equal(old.column("user_id"), user))
        assert table(store, path).equals(kept), path
    (one,) = report.experiments
    assert one.experiment == "x7"
    assert one.exposures_removed + one.events_removed == num_rows > 2
    assert (report.users_not_found, report.unchecked) == (0, ())
    assert f"experiment x7: {one.exposures_removed} exposures" in report.summary()
    assert user not in report.summary()
    found = run(store, 6).readout
    assert found is not None
    assert found.days == expected.days
    assert found.exploratory == expected.exploratory
    assert not any(user.encode() in store.get(path) for path in store.list(FOLDER))
    assert erased(store, user).experiments == ()


def test_a_decided_day_keeps_its_figures_and_an_open_one_says_that_it_changed(
    store: Store,
) -> None:
    for number in range(6):
        run(store, number)
    asked = run(store, 6)
    assert asked.readout is not None
    kept = {path: store.get(path) for path in store.list(f"{FOLDER}/readouts")}
    decisions = {path: store.get(path) for path in store.list(f"{FOLDER}/decisions")}
    erased(store, one_user(store))
    for path, data in (kept | decisions).items():
        assert store.get(path) == data
    told = run(store, 3)
    assert (told.action.kind, told.readout) == ("nothing", None)
    anew = run(store, 6)
    assert anew.readout is not None
    assert anew.readout.days[:6] != asked.readout.days[:6]
    (note,) = anew.readout.notes
    assert note.startswith("rows of erased users were taken out of these logs (record 1 of")
    assert asked.readout.notes == ()
    # The two lie beside each other, and an answer to the old figures is none to the new ones.
    assert len(store.list(f"{FOLDER}/readouts")) == len(kept) + 1
    assert not say("approve")(asked.readout).approval.asked.is_about(anew.readout)  # type: ignore[union-attr]


def test_an_erasure_does_not_undo_a_ramp_or_its_release(store: Store) -> None:
    ramped = run(store, 6, "approve")
    assert ramped.state is not None
    log_days(store, 1.0, ramped.state.allocation, day(7), 1)
    decided = Journal(store, FLYWHEEL, "x7").decisive_readout()
    erased(store, one_user(store))
    assert run(store, 7).action.kind == "release"
    assert production(store) == EXPERIMENT.candidate_digest
    assert Journal(store, FLYWHEEL, "x7").decisive_readout() == decided


def test_rows_that_are_logged_after_the_erasure_are_left_out_and_said(
    store: Store, tmp_path: Path
) -> None:
    user = one_user(store)
    path = next(path for path in logs(store) if user in table(store, path)["user_id"].to_pylist())
    late = table(store, path)
    log = EXPERIMENT.exposures if path.startswith(EXPERIMENT.exposures) else EVENTS
    at = "exposed_at" if log == EXPERIMENT.exposures else "at"
    date = datetime.date.fromisoformat(path.split("day=")[1].split("/")[0])
    expected = read_without(store, user, tmp_path)
    erased(store, user)
    # A server that writes the same rows again finds its file; other ones are a second file.
    assert not append_day(store, log, date, late, at)
    assert rows_of(store, user) == 0
    mine = late.filter(pc.equal(late["user_id"], user))
    assert append_day(store, log, date, mine, at)
    assert rows_of(store, user) == mine.num_rows
    found = run(store, 6).readout
    assert found is not None
    assert found.days == expected.days
    said = f"{mine.num_rows} rows of erased users were logged since, and were left out"
    assert said in found.notes[1]
    assert erased(store, user).experiments[0].files_rewritten == 1
    assert rows_of(store, user) == 0
    emptied = run(store, 6).readout  # the second file is there still, without a row
    assert emptied is not None
    assert emptied.days == expected.days


def test_a_list_without_a_rewrite_is_enough_to_leave_them_out(store: Store, tmp_path: Path) -> None:
    user = one_user(store)
    expected = read_without(store, user, tmp_path)
    add_users(store, FLYWHEEL, [user], by="dpo", reason="asked for")
    found = run(store, 6).readout
    assert found is not None
    assert found.days == expected.days
    assert rows_of(store, user) > 0


def test_what_is_written_with_the_list_holds_no_row_of_theirs(store: Store) -> None:
    user = one_user(store)
    add_users(store, FLYWHEEL, [user], by="dpo", reason="asked for")
    rows = table(store, store.list(EVENTS)[0])
    erasures = read_erasures(store, FLYWHEEL)
    assert append_day(store, "other/events", FIRST, rows, "at", erasures=erasures)
    assert user not in table(store, store.list("other/events")[0])["user_id"].to_pylist()
    mine = rows.filter(pc.equal(rows["user_id"], user))
    assert not append_day(store, "other/events", FIRST, mine, "at", erasures=erasures)


def test_a_file_that_cannot_be_searched_is_named_and_fails_the_command(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(store, LocalStore)
    broken, bare = logs(store)[0], logs(store)[-1]
    store.put(broken, store.get(broken)[:-40])
    pq.write_table(table(store, bare).drop_columns(["user_id"]), store.local_path(bare))
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.setenv("FLYWHEEL_STORE", str(tmp_path / "store"))
    command = ["erase", "--by", "dpo", "--reason", "asked for", "--flywheel", FLYWHEEL]
    user = table(store, logs(store)[1])["user_id"][0].as_py()
    done = CliRunner().invoke(app, [*command, "--user", user])
    assert done.exit_code == 1
    said = done.output.replace("\n", "")
    assert f"NOT CHECKED {broken}" in said
    assert f"NOT CHECKED {bare}: InputDataError" in said
    assert "experiment x7: " in said


def test_an_allocation_that_names_an_erased_user_is_told(store: Store) -> None:
    journal = Journal(store, FLYWHEEL, "x8")
    eligibility = Eligibility(excluded_users=frozenset({"tester"}))
    allocation = Allocation(experiment_id="x8", eligibility=eligibility)
    journal.allocate(allocation, CONFIG.rule())
    store.put(f"{FLYWHEEL}/experiments/x8/events/day=2026-01-05/_SUCCESS", b"")
    assert erased(store, "somebody").unchecked == ()
    (said,) = erased(store, "tester").unchecked
    assert "leaves out an erased user by name" in said
