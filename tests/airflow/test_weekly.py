"""The whole weekly flow with every artifact there already: gates, approval, promotion."""

import pytest
from airflow_harness import Deployed
from airflow_seeds import seeded_climb, write_recipe

from flywheel_core.airflow_client import WAITING
from flywheel_core.errors import StackError
from flywheel_core.pointers import Pointer, PointerRecord
from operators.gates import GATE_NAMES

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
DAG = "flywheel_weekly"


def production(deployed: Deployed, flywheel: str) -> PointerRecord:
    newest = Pointer(deployed.store, flywheel, "production").newest()
    assert newest is not None
    return newest


def start(deployed: Deployed, name: str, internal: int, user: int) -> str:
    """Seed a climb of its own flywheel and trigger it; returns the run id."""
    recipe = write_recipe(deployed.recipes, name)
    run_id = f"run-{name}"
    seeded_climb(deployed.store, recipe, deployed.policy, run_id, internal=internal, user=user)
    deployed.admin.trigger(DAG, {"recipe": name}, run_id)
    return run_id


def approve(deployed: Deployed, user: str, run_id: str) -> None:
    with deployed.stack.client(user) as client:
        client.answer(DAG, run_id, "approval", option="Approve", automated=False)


def test_only_a_release_manager_promotes(deployed: Deployed) -> None:
    run_id = start(deployed, "healthy", internal=1160, user=1180)
    assert deployed.wait_for_state(DAG, run_id, "approval", WAITING) == WAITING

    # The record Airflow keeps: every verdict, and only release managers may answer.
    record = deployed.admin.approval_record(DAG, run_id, "approval")
    assert record is not None
    assert all(f"| {gate} | " in record["body"] for gate in GATE_NAMES)
    assert [user["id"] for user in record["assigned_users"]] == ["release_manager"]
    deployed.admin.settle()
    for user in ("on_call", "admin", "service"):
        with pytest.raises(StackError, match="403"):
            approve(deployed, user, run_id)

    # A mark is not an approval.
    deployed.admin.mark(DAG, run_id, "approval", "success")
    assert deployed.wait_for_run(DAG, run_id) == "failed"
    assert "nobody has answered the approval" in deployed.log_of(DAG, run_id, "promote")
    assert production(deployed, "healthy").number == 1

    # Asked again, the release manager approves.
    deployed.admin.clear(DAG, run_id, ["approval"])
    assert deployed.wait_for_state(DAG, run_id, "approval", WAITING) == WAITING
    deployed.admin.settle()
    approve(deployed, "release_manager", run_id)
    assert deployed.wait_for_run(DAG, run_id) == "success"
    promoted = production(deployed, "healthy")
    assert (promoted.number, promoted.by) == (2, "release_manager")
    assert promoted.value["automated"] is False


def test_clearing_a_finished_run_recomputes_nothing(deployed: Deployed) -> None:
    run_id = "run-healthy"
    before = {path for path in deployed.store.list("healthy") if "/attempts/" in path}
    deployed.admin.clear(DAG, run_id)
    assert deployed.wait_for_state(DAG, run_id, "approval", WAITING) == WAITING
    with deployed.stack.client("release_manager") as manager:
        answered = manager.approve_automatically(DAG, run_id, "approval")
    assert answered["params_input"] == {"automated": True}
    assert deployed.wait_for_run(DAG, run_id) == "success"
    assert "no job needed" in deployed.log_of(DAG, run_id, "rl")
    assert "nothing to do" in deployed.log_of(DAG, run_id, "promote")
    assert before == {path for path in deployed.store.list("healthy") if "/attempts/" in path}
    assert production(deployed, "healthy").number == 2


@pytest.mark.parametrize(
    ("name", "internal", "user", "red", "sentence"),
    [
        ("overshot", 1380, 1370, "gate_rm_win_rate", "69"),
        ("diverged", 900, 1260, "gate_rm_divergence", "18 points"),
    ],
)
def test_a_bad_candidate_stops_at_its_gate(
    deployed: Deployed, name: str, internal: int, user: int, red: str, sentence: str
) -> None:
    run_id = start(deployed, name, internal, user)
    assert deployed.wait_for_run(DAG, run_id) == "failed"
    states = deployed.admin.task_states(DAG, run_id)
    assert states[red] == "failed"
    assert all(states[f"gate_{gate}"] in ("success", "failed") for gate in GATE_NAMES)
    assert states["approval"] == states["promote"] == "upstream_failed"
    assert states["report"] == "success"
    log = deployed.log_of(DAG, run_id, red)
    assert sentence in log.splitlines()[-1], log
    assert production(deployed, name).number == 1
