"""The same mapping on Ray: equal bytes, and neither a killed worker nor a lost node shows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flywheel_core.engines.executor import InProcessExecutor
from tests.engines.executor_samples import all_bytes, make_job, write_rows

pytestmark = pytest.mark.heavy
ROOT = Path(__file__).resolve().parents[2]


def quiet(done: int, total: int, what: str = "") -> None:
    pass


def in_own_process(scenario: str, folder: Path) -> dict[str, Any]:
    """The scenario's one line of JSON; on failure, everything it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.ray_cluster", scenario, str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_on_one_machine_the_bytes_are_those_of_the_process(tmp_path: Path) -> None:
    inputs = (
        write_rows(tmp_path / "in" / "a.parquet", 0, 330),
        write_rows(tmp_path / "in" / "b.parquet", 330, 190),
    )
    InProcessExecutor().run(make_job(tmp_path / "process", inputs), quiet)
    expected = all_bytes(tmp_path / "process")
    found = in_own_process("one_machine", tmp_path)
    assert all_bytes(tmp_path / "ray") == expected
    assert "KeyError at executor_samples.py" in found["said"]
    assert "secret" not in found["said"]
    assert 0 < found["num_resumed"] < 6
    assert all_bytes(tmp_path / "failing") == expected
    assert (tmp_path / "killed").exists()
    assert all_bytes(tmp_path / "killed-worker") == expected
    assert found["listening"] == []


def test_a_node_that_is_killed_half_way_loses_and_doubles_no_row(tmp_path: Path) -> None:
    found = in_own_process("lost_node", tmp_path)
    assert found["killed"], "no node was killed"
    assert found["nodes"] == 2
    assert found["done_on_lost_node"], "the lost node had done nothing"
    assert found["cut_off"], "the lost node was not inside a shard"
    assert found["rows"] == {"kept": 600, "odd": 600}
    assert found["counts"] == {"odd": 600, "rows": 1200}
    job = make_job(tmp_path / "process", (tmp_path / "in.parquet",))
    result = InProcessExecutor().run(job, quiet)
    assert all_bytes(tmp_path / "ray") == all_bytes(tmp_path / "process")
    kept = [n for file in result.files["kept"] for n in pq.read_table(file)["number"].to_pylist()]
    assert kept == list(range(0, 1200, 2))
    assert found["listening"] == []
