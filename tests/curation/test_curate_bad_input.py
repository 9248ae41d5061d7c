"""`flywheel curate` on files that `flywheel ingest` never saw: one sentence, or it goes on."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from curation_samples import SYSTEM, traffic_rows
from typer.testing import CliRunner, Result

from flywheel_core.cli import app
from flywheel_core.recipe import RECIPE_FOLDER
from flywheel_core.records import PROMPTS, SPLITS, TRAFFIC, read_table

MEGABYTE = "word " * 200_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLYWHEEL_STORE", raising=False)


def table(rows: list[dict[str, Any]], **columns: pa.Array) -> pa.Table:
    made = pa.Table.from_pylist(rows, schema=TRAFFIC)
    for name, values in columns.items():
        made = made.set_column(made.schema.get_field_index(name), name, values)
    return made


def run(folder: Path, **tables: pa.Table) -> Result:
    days = folder / "days"
    days.mkdir()
    for name, one in tables.items():
        pq.write_table(one, days / f"{name}.parquet")
    data = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data["curation"] = {"embedder": "hash", "prompts_per_surface": dict.fromkeys(SPLITS, 10)}
    (folder / "mine.yaml").write_text(yaml.safe_dump(data))
    arguments = ["curate", "--in", days, "--out", folder / "out", "-r", folder / "mine.yaml"]
    return CliRunner().invoke(
        app, [str(one) for one in arguments] + ["--production", "production", "--json"]
    )


def not_utf8(count: int) -> pa.Array:
    offsets = pa.array(range(count + 1), pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), count, [None, offsets, pa.py_buffer(b"\xff" * count)])


def with_messages(messages: Any) -> pa.Table:
    """Rows whose third has other messages; what is null in the schema may be so in a file."""
    rows = traffic_rows(400)
    column = [messages if n == 2 else row["messages"] for n, row in enumerate(rows)]
    return table(rows, messages=pa.array(column, TRAFFIC.field("messages").type))


GOOD = table(traffic_rows(600, 1))


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (GOOD.drop_columns(["model_digest"]), "not a readable table of traffic"),
        (GOOD.drop_columns(["depth"]), "is not the expected table: depth: expected int32"),
        (table(traffic_rows(600), depth=pa.array(["0"] * 600)), "depth: expected int32, found str"),
        (table(traffic_rows(9), response=not_utf8(9)), "response: a row's text is not UTF-8"),
        (with_messages([]), "a row has none, or a turn without text"),
        (with_messages(None), "messages: a row has none; take the file in"),
        (with_messages([SYSTEM, {"role": "user", "content": None}]), "a turn without text"),
    ],
)
def test_a_file_that_is_no_traffic_is_told_in_one_sentence(
    tmp_path: Path, bad: pa.Table, complaint: str
) -> None:
    done = run(tmp_path, good=GOOD, other=bad)
    assert done.exit_code == 1
    assert complaint in done.stderr
    assert "flywheel ingest" in done.stderr or "expected table" in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "out" / "prompts.parquet").exists()


def test_an_empty_day_and_a_message_of_a_megabyte_go_through(tmp_path: Path) -> None:
    rows = traffic_rows(600, 1)
    rows[0]["response"] = MEGABYTE
    rows[1]["messages"] = [SYSTEM, {"role": "user", "content": MEGABYTE}]
    rows[2]["response"] = "\u0301\u0316" * 50_000
    done = run(tmp_path, one=table(rows), empty=table([]))
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["phases"]["read"] == said["phases"]["filtered"] == 600
    prompts = read_table(tmp_path / "out" / "prompts.parquet", PROMPTS)
    assert prompts.num_rows == said["phases"]["final"] >= 40


def test_only_empty_days_are_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, empty=table([]))
    assert done.exit_code == 1
    assert "curation kept none of 0 rows" in done.stderr
