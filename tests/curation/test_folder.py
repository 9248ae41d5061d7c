"""`flywheel ingest --out` and `flywheel curate`: by themselves, from a file to prompt sets."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from curation_samples import traffic_rows
from typer.testing import CliRunner, Result

from flywheel_core import stages
from flywheel_core.cli import app
from flywheel_core.curation.folder import summary
from flywheel_core.engines import pool
from flywheel_core.engines.fake import HashEmbedder
from flywheel_core.erasure.users import add_users
from flywheel_core.recipe import RECIPE_FOLDER
from flywheel_core.records import PROMPTS, SPLITS, TRAFFIC, read_table
from flywheel_core.store import LocalStore

REAL_FILE = Path(__file__).resolve().parents[3] / "shared/reference/topical_chat/test_freq.json.gz"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def write_recipe(folder: Path, size: int, **curation: Any) -> Path:
    data = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data["curation"] = {
        "embedder": "hash",
        "prompts_per_surface": dict.fromkeys(SPLITS, size),
        **curation,
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def write_rows(folder: Path, count: int = 800) -> Path:
    rows = traffic_rows(count, 1) + traffic_rows(count, 2, surface="user", day="2026-01-06")
    rows[0]["depth"] = -1
    rows[1]["response"] = "mail jane@example.com"
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_becomes_days_and_days_become_prompt_sets(tmp_path: Path) -> None:
    rows, recipe = write_rows(tmp_path), write_recipe(tmp_path, 30)
    days, out = tmp_path / "days", tmp_path / "prompts"
    done = run("ingest", rows, "--format", "flywheel", "--out", days, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["read"], said["accepted"]) == (1600, 1599)
    assert said["quarantined"] == {"depth: must be a whole number from 0": 1}
    assert said["days"] == {"2026-01-05": 799, "2026-01-06": 800}
    assert read_table(days / "2026-01-06.parquet", TRAFFIC).num_rows == 800
    (bad,) = (days / "2026-01-05.quarantine.jsonl").read_text().splitlines()
    assert json.loads(bad)["where"] == "line 1"

    arguments = ("curate", "--in", days, "--out", out, "-r", recipe, "--production", "production")
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["phases"]["read"] == 1599
    assert said["rejected"] == {"privacy_email": 1}
    assert said["phases"]["filtered"] == 1598
    assert said["phases"]["final"] == 360
    counts = list(said["phases"].values())
    assert counts == sorted(counts, reverse=True)
    assert said["prompts_by_split"] == dict.fromkeys(SPLITS, 60)
    assert said["constraints"]["user"]["final"]["largest_character_share"] <= 0.03
    assert "progress: rows of phase I" in done.stderr
    assert read_table(out / "prompts.parquet", PROMPTS).num_rows == 360
    assert not (out / "work").exists()
    assert "jane" not in done.output

    before = (out / "prompts.parquet").stat().st_mtime_ns
    again = run(*arguments, "--json")
    assert json.loads(again.stdout) == said
    assert (out / "prompts.parquet").stat().st_mtime_ns == before
    shown = run(*arguments)
    assert "read 1599 → after_erasure 1599 → filtered 1598" in shown.stdout.replace("\n", " ")


def test_a_day_that_is_there_twice_is_counted_once(tmp_path: Path) -> None:
    days, recipe = tmp_path / "days", write_recipe(tmp_path, 30)
    assert run("ingest", write_rows(tmp_path), "--out", days).exit_code == 0
    shutil.copy(days / "2026-01-06.parquet", days / "2026-01-07.parquet")
    arguments = ("curate", "--in", days, "-r", recipe, "--production", "production")
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "800 of a row id that came before" in done.stdout.replace("\n", " ")
    assert json.loads((tmp_path / "out/report.json").read_text())["duplicates"]["row_id"] == 800


def test_what_was_set_aside_is_told_to_a_person(tmp_path: Path) -> None:
    done = run("ingest", write_rows(tmp_path, 20), "--out", tmp_path / "days")
    assert "40 rows read, 39 accepted, 1 quarantined" in done.stdout
    assert "quarantined 1: depth: must be a whole number from 0" in done.stdout
    assert "days/*.quarantine.jsonl" in done.stdout.replace("\n", "")


def test_contract_is_still_a_name_of_the_format(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, 20)
    outputs = [tmp_path / "one", tmp_path / "other"]
    for name, out in zip(("flywheel", "contract"), outputs, strict=True):
        assert run("ingest", rows, "--format", name, "--out", out).exit_code == 0
    one, other = ((out / "2026-01-05.parquet").read_bytes() for out in outputs)
    assert one == other


def test_the_report_says_whose_erasure_list_was_applied(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "home" / "store"))
    add_users(store, "other", ["u5", "u6"], by="x", reason="y")
    rows = write_rows(tmp_path, 20)
    ours = run("ingest", rows, "--out", tmp_path / "one")
    assert "erasure list applied: of flywheel 'tiny', 0 users" in ours.stdout
    theirs = run("ingest", rows, "--out", tmp_path / "two", "--flywheel", "other", "--json")
    said = json.loads(theirs.stdout)
    assert (said["erasures_of"], said["users_erased"]) == ("other", 2)


def test_erased_users_are_left_out_of_both(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "home" / "store"))
    rows, recipe = write_rows(tmp_path), write_recipe(tmp_path, 20)
    whole, days = tmp_path / "whole", tmp_path / "days"
    assert run("ingest", rows, "--out", whole).exit_code == 0
    add_users(store, "tiny", ["u5"], by="x", reason="y")
    said = json.loads(run("ingest", rows, "--out", days, "--json").stdout)
    erased = said["quarantined"]["user_id: on the list of erased users"]
    assert erased > 0
    tables = [read_table(path, TRAFFIC) for path in days.glob("*.parquet")]
    assert all("u5" not in table["user_id"].to_pylist() for table in tables)
    out = tmp_path / "out"
    arguments = ("curate", "--in", whole, "--out", out, "-r", recipe, "--production", "production")
    done = json.loads(run(*arguments, "--json").stdout)
    assert done["phases"]["read"] - done["phases"]["after_erasure"] == erased
    assert "u5" not in read_table(out / "prompts.parquet", PROMPTS)["user_id"].to_pylist()


def test_a_finished_folder_is_found_done_only_by_the_same_code_and_embedder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, recipe = write_rows(tmp_path, 200), write_recipe(tmp_path, 6)
    days, out = tmp_path / "days", tmp_path / "out"
    assert run("ingest", rows, "--out", days).exit_code == 0
    arguments = ("curate", "--in", days, "--out", out, "-r", recipe, "--production", "production")
    assert run(*arguments).exit_code == 0
    assert run(*arguments).exit_code == 0
    complaint = "holds what was made from other inputs or under another configuration"
    with monkeypatch.context() as other_weights:
        other_weights.setattr(pool, "HashEmbedder", lambda: HashEmbedder(dimension=32))
        assert complaint in run(*arguments).stderr.replace("\n", " ")
    newer = replace(stages.stage_named("curate"), version=1000)
    monkeypatch.setitem(stages.STAGES, "curate", newer)
    assert complaint in run(*arguments).stderr.replace("\n", " ")


def test_the_text_says_how_to_undo_the_linter_and_who_was_not_checked_for_names(
    tmp_path: Path,
) -> None:
    rows = write_rows(tmp_path, 200)
    recipe = write_recipe(tmp_path, 6, lint=["emoji_carry_over"])
    days, out = tmp_path / "days", tmp_path / "out"
    assert run("ingest", rows, "--out", days).exit_code == 0
    arguments = ("curate", "--in", days, "--out", out, "-r", recipe, "--production", "production")
    told = json.loads(run(*arguments, "--json").stdout)
    assert "lint.parquet: its edits; curation.lint_tables.restored undoes them" in summary(told)
    assert told["privacy"]["rows_not_checked_for_names_by_language"] == {}
    told["privacy"]["rows_not_checked_for_names_by_language"] = {"es": 3}
    assert "not checked for names: 3 rows in es" in summary(told)


def test_a_folder_with_somebody_elses_files_is_not_filled(tmp_path: Path) -> None:
    """`curate` would take a foreign table for a day of this file."""
    rows, days = write_rows(tmp_path, 20), tmp_path / "days"
    days.mkdir()
    (days / "foreign.parquet").write_bytes(b"PAR1")
    (days / ".tmp-of-a-run-that-broke-off").write_bytes(b"")
    done = run("ingest", rows, "--out", days)
    assert done.exit_code == 1
    assert "already holds 'foreign.parquet' and 0 more" in done.stderr.replace("\n", " ")
    assert list(days.glob("*.parquet")) == [days / "foreign.parquet"]
    (days / "foreign.parquet").unlink()
    assert run("ingest", rows, "--out", days).exit_code == 0


def test_what_cannot_be_done_is_one_clear_sentence(tmp_path: Path) -> None:
    rows, recipe = write_rows(tmp_path, 400), write_recipe(tmp_path, 6)
    days, out, empty = tmp_path / "days", tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    assert run("ingest", rows, "--out", days).exit_code == 0
    other = tmp_path / "other.jsonl"
    other.write_text(rows.read_text().replace("Fine.", "Good."))
    production = ("--production", "production")
    assert run("curate", "--in", days, "--out", out, "-r", recipe, *production).exit_code == 0
    for arguments, complaint in (
        (("ingest", other, "--out", days), "holds what was made from other inputs"),
        (("ingest", rows, "--format", "csv", "--out", empty), "format: 'csv' is unknown"),
        (("ingest", tmp_path / "no", "--out", empty), "no such file"),
        (("curate", "--in", empty, "--out", tmp_path / "x"), "holds no *.parquet file"),
        (("curate", "--in", days, "--out", out, *production), "holds what was made from other"),
        (
            ("curate", "--in", days, "--out", tmp_path / "y", "-r", recipe),
            "give --production one of the model digests (rows): production (799)",
        ),
    ):
        done = run(*arguments)
        assert done.exit_code == 1
        assert complaint in done.stderr
        assert "Traceback" not in done.output
    (days / "2026-01-06.parquet").write_bytes(b"PAR1")
    done = run("curate", "--in", days, "--out", tmp_path / "z", "-r", recipe, *production)
    assert done.exit_code == 1
    assert "2026-01-06.parquet is not a readable table of traffic" in done.stderr


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"the data set is not here: {REAL_FILE}")
def test_topical_chat_goes_through_end_to_end(tmp_path: Path) -> None:
    days, out = tmp_path / "days", tmp_path / "out"
    ingest = ("ingest", REAL_FILE, "--format", "topical-chat", "--max-words", 64, "--out", days)
    done = run(*ingest, "--json")
    assert done.exit_code == 0, done.output
    read = json.loads(done.stdout)
    assert read["accepted"] + sum(read["quarantined"].values()) == read["read"]
    recipe = write_recipe(tmp_path, 1000, first_turn_share_min=0.0)
    done = run("curate", "--in", days, "--out", out, "-r", recipe, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["phases"]["read"] == read["accepted"]
    assert said["prompts_by_split"] == dict.fromkeys(SPLITS, 1000)
    assert said["prompts_by_reason"]["policy_unknown"] == 1000
    assert said["data_evidence"]["train_eval_overlap_count"] == 0
