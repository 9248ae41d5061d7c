"""Replay of the paper's launches (Table 10) through the rules."""

import json
from pathlib import Path

import pytest

from flywheel_core.errors import InputDataError
from flywheel_core.release.replay import ReplayedLaunch, replay, replay_json

TABLES = Path(__file__).parents[2] / ".." / "shared" / "reference" / "paper_tables.json"


@pytest.fixture(scope="module")
def launches() -> dict[str, ReplayedLaunch]:
    if not TABLES.exists():
        pytest.skip(f"{TABLES} is not here: the paper's tables lie outside the repository")
    return {launch.version: launch for launch in replay(TABLES)}


def blocked_by(launches: dict[str, ReplayedLaunch], gate: str) -> list[str]:
    return [v for v, launch in launches.items() if launch.gates[gate].verdict == "block"]


def test_the_plain_limit_blocks_four_launches(launches: dict[str, ReplayedLaunch]) -> None:
    assert blocked_by(launches, "rm_win_rate") == ["V10", "V11", "V12", "V14"]


def test_divergence_blocks_only_the_launch_that_lost(launches: dict[str, ReplayedLaunch]) -> None:
    assert blocked_by(launches, "rm_divergence") == ["V12"]
    lost = [v for v, launch in launches.items() if launch.depth_lift.estimate < 0]  # type: ignore[union-attr]
    assert lost == ["V12"]


def test_only_gates_whose_inputs_exist_are_replayed(launches: dict[str, ReplayedLaunch]) -> None:
    assert {tuple(launch.gates) for launch in launches.values()} == {
        ("rm_win_rate", "rm_divergence")
    }
    rows = json.loads(json.dumps(replay_json(list(launches.values()))))
    v12 = next(row for row in rows if row["version"] == "V12")
    assert v12["outcome"] == "block"
    assert v12["gates"]["rm_divergence"]["verdict"] == "block"
    assert "27 points apart" in v12["gates"]["rm_divergence"]["reason"]


def write(folder: Path, rates: dict[str, float]) -> Path:
    file = folder / "tables.json"
    file.write_text(json.dumps({"launches": [{"version": "V1", "rm_win_rate": rates}]}))
    return file


def test_limits_are_exact_for_published_percentages(tmp_path: Path) -> None:
    file = write(tmp_path, {"pointwise_internal": 50.0, "pointwise_user": 65.0})
    (launch,) = replay(file)
    assert {name: gate.verdict for name, gate in launch.gates.items()} == {
        "rm_win_rate": "warn",
        "rm_divergence": "warn",
    }


def test_a_missing_witness_is_not_replayed_and_nonsense_is_refused(tmp_path: Path) -> None:
    (launch,) = replay(write(tmp_path, {"pairwise_user": 55.0}))
    assert list(launch.gates) == ["rm_win_rate"]
    (nothing,) = replay(write(tmp_path, {}))
    assert nothing.outcome == "insufficient"
    with pytest.raises(InputDataError, match=r"0\.\.100 percent"):
        replay(write(tmp_path, {"pointwise_user": float("nan")}))
    with pytest.raises(InputDataError, match="paper_tables"):
        replay(tmp_path / "absent.json")
