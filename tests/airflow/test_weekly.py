"""The whole weekly flow with every artifact there already: gates, approval, promotion."""

import pytest
from airflow_harness import Deployed
from airflow_seeds import (
    commit_stage,
    ingest_day,
    seeded_climb,
    write_ingested_recipe,
    write_recipe,
)

from flywheel_core.airflow_client import WAITING
from flywheel_core.errors import StackError
from flywheel_core.plan import draft, load_plan, plan_path
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.release.policy import load_policy, policy_digest
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


def test_the_next_run_stays_queued_until_the_approval_is_answered(deployed: Deployed) -> None:
    """And then starts from whatever is production: here the candidate approved meanwhile."""
    run_id = start(deployed, "busy", internal=1160, user=1180)
    assert deployed.wait_for_state(DAG, run_id, "approval", WAITING) == WAITING
    assert any("Release generation 1 of busy?" in text for text in deployed.webhook.told)
    deployed.admin.trigger(DAG, {"recipe": "busy", "dry_run": True}, "run-next")
    deployed.admin.settle()
    assert deployed.admin.run_state(DAG, "run-next") == "queued"
    assert deployed.admin.run_state(DAG, run_id) == "running"
    approve(deployed, "release_manager", run_id)
    assert deployed.wait_for_run(DAG, run_id) == "success"
    assert deployed.wait_for_run(DAG, "run-next") == "success"

    # The run was a dry one: it says what would run, pins nothing, and all the rest is skipped.
    log = deployed.log_of(DAG, "run-next", "resolve")
    assert "dry run: generation 2 of busy, from production (generation 1)" in log
    assert "in all: 0 cached, 9 to run" in log
    states = deployed.admin.task_states(DAG, "run-next")
    assert states.pop("wait_for_traffic") == states.pop("resolve") == "success"
    assert set(states.values()) == {"skipped"}
    assert "report" in states
    assert not deployed.store.exists(plan_path("busy", "run-next"))
    assert production(deployed, "busy").number == 2


def test_a_week_waits_for_its_days_and_pins_exactly_those(deployed: Deployed) -> None:
    flywheel, asked = "weeks", {"recipe": "weeks", "week_ending": "2026-01-11"}
    recipe = write_ingested_recipe(deployed.recipes, flywheel, num_days=3)
    ingest_day(deployed.store, flywheel, "2026-01-10")
    deployed.admin.trigger(DAG, asked | {"start_from": "curate"}, "run-weeks")
    wait = "wait_for_traffic"
    assert deployed.wait_for_state(DAG, "run-weeks", wait, "deferred") == "deferred"
    assert deployed.wait_for_run(DAG, "run-weeks") == "failed", "nobody ingested in time"
    log = deployed.log_of(DAG, "run-weeks", wait)
    assert "waiting for 2 of 3 days of traffic: 2026-01-09, 2026-01-11; " in log
    sentence = "2 of 3 days of traffic did not come within 0.005 h: 2026-01-09, 2026-01-11"
    assert sentence in log.splitlines()[-1]

    # It failed from the deferred state, and people were told: of the reason, not of its followers.
    assert deployed.admin.task_states(DAG, "run-weeks")["report"] == "skipped"
    told = [text for text in deployed.webhook.told if "run-weeks" in text]
    assert len(told) == 1
    assert f"failed: {DAG}.{wait} of run-weeks" in told[0]
    assert sentence in told[0]
    assert f"{deployed.admin.base_url}/dags/{DAG}/runs/run-weeks/tasks/{wait}" in told[0]
    assert deployed.webhook.secret not in log

    # Cleared, it waits for the same days; a newer one is not read in their place.
    for day in ("2026-01-09", "2026-01-11", "2026-01-12"):
        ingest_day(deployed.store, flywheel, day)
    deployed.admin.clear(DAG, "run-weeks")
    assert deployed.wait_for_run(DAG, "run-weeks") == "failed"
    assert "traffic of 2026-01-09, 2026-01-10, 2026-01-11 is there" in deployed.log_of(
        DAG, "run-weeks", wait
    )
    # What was asked for is refused at once: the traffic stage is not in the store.
    log = deployed.log_of(DAG, "run-weeks", "resolve")
    assert "start_from: 'curate' was asked for, but these stages before it are not" in log
    assert "traffic (weeks/gen-0001/traffic/" in log
    assert not deployed.store.exists(plan_path(flywheel, "run-weeks"))

    # With everything there, it goes on from `curate`; its plan holds the days it waited for.
    days = ("2026-01-09", "2026-01-10", "2026-01-11")
    digest = policy_digest(load_policy(deployed.policy))
    seeds = draft(recipe, deployed.store, "seeds", policy_digest=digest, days=days)
    for stage in seeds.stages:
        commit_stage(deployed.store, seeds, stage.name)
    deployed.admin.clear(DAG, "run-weeks", ["resolve"])
    assert deployed.wait_for_run(DAG, "run-weeks") == "failed", "these seeds hold no metrics"
    assert deployed.admin.task_states(DAG, "run-weeks")["evaluate"] == "success"
    pinned = load_plan(deployed.store, plan_path(flywheel, "run-weeks"))
    assert pinned.days == days
    assert [*pinned.pinned_days] == [*days]
    assert pinned.start_at.start_from == "curate"
