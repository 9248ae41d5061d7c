"""The operator on a real Airflow and a real Ray: defer, follow, attach, fail with a sentence."""

import httpx
import psutil
import pytest
from airflow_harness import Deployed
from airflow_seeds import JOBS, commit_stage, two_stage_plan, write_recipe

from flywheel_core.artifacts import is_done, read_manifest
from flywheel_core.stack.processes import wait_until

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
DAG = "two_stages"


def test_defers_follows_the_log_and_keeps_it(deployed: Deployed) -> None:
    recipe = write_recipe(deployed.recipes, "two", env={"PYTHONPATH": str(JOBS)})
    plan = two_stage_plan(deployed.store, recipe, "run-ok", {"sleep_s": 6}, {})
    deployed.admin.trigger(DAG, {"recipe": "two"}, "run-ok")
    assert deployed.wait_for_state(DAG, "run-ok", "first", "deferred") == "deferred"
    assert deployed.wait_for_run(DAG, "run-ok") == "success"
    log = deployed.log_of(DAG, "run-ok", "first")
    assert "submitted Ray job" in log
    assert "progress: 12/12 naps" in log
    first = plan.stage("first")
    kept = deployed.store.get(f"{first.ref.path}/logs/first-{first.ref.key}-1.log").decode()
    assert kept.count("progress:") == 12
    assert is_done(deployed.store, plan.stage("second").ref)


def test_running_again_submits_nothing(deployed: Deployed) -> None:
    recipe = write_recipe(deployed.recipes, "two", env={"PYTHONPATH": str(JOBS)})
    plan = two_stage_plan(deployed.store, recipe, "run-again", {}, {})
    deployed.admin.trigger(DAG, {"recipe": "two"}, "run-again")
    assert deployed.wait_for_run(DAG, "run-again") == "success"
    before = read_manifest(deployed.store, plan.stage("first").ref)
    deployed.admin.clear(DAG, "run-again")
    assert deployed.wait_for_run(DAG, "run-again") == "success"
    assert "no job needed" in deployed.log_of(DAG, "run-again", "first")
    assert read_manifest(deployed.store, plan.stage("first").ref) == before


def test_a_failed_job_says_why_and_where(deployed: Deployed) -> None:
    recipe = write_recipe(deployed.recipes, "two", env={"PYTHONPATH": str(JOBS)})
    plan = two_stage_plan(
        deployed.store, recipe, "run-red", {"fail_with": "num_gpus 9: this node has 0"}, {}
    )
    deployed.admin.trigger(DAG, {"recipe": "two"}, "run-red")
    assert deployed.wait_for_run(DAG, "run-red") == "failed"
    log = deployed.log_of(DAG, "run-red", "first")
    key = plan.stage("first").ref.key
    assert f"first (key {key}): num_gpus 9: this node has 0 (FAILED)" in log
    assert f"[Ray job first-{key}-1, whole log {deployed.stack.store_root}/" in log
    assert deployed.admin.task_states(DAG, "run-red")["second"] == "upstream_failed"
    assert deployed.admin.try_number(DAG, "run-red", "first") == 1


def test_a_module_that_the_cluster_lacks_is_named_and_not_tried_again(deployed: Deployed) -> None:
    recipe = write_recipe(deployed.recipes, "lacking")  # its jobs do not find the tests' stages
    two_stage_plan(deployed.store, recipe, "run-lacking", {}, {})
    deployed.admin.trigger(DAG, {"recipe": "lacking"}, "run-lacking")
    assert deployed.wait_for_run(DAG, "run-lacking") == "failed"
    log = deployed.log_of(DAG, "run-lacking", "first")
    assert "the cluster's image has no module 'first_stage'" in log
    assert deployed.admin.try_number(DAG, "run-lacking", "first") == 1


def test_a_killed_driver_is_tried_again(deployed: Deployed) -> None:
    recipe = write_recipe(deployed.recipes, "two", env={"PYTHONPATH": str(JOBS)})
    plan = two_stage_plan(deployed.store, recipe, "run-killed", {"sleep_s": 10}, {})
    commit_stage(deployed.store, plan, "second")
    prefix = f"first-{plan.stage('first').ref.key}"
    deployed.admin.trigger(DAG, {"recipe": "two"}, "run-killed")
    assert wait_until(lambda: bool(drivers(f"{prefix}-1")), timeout_s=90)
    drivers(f"{prefix}-1")[0].kill()
    assert deployed.wait_for_run(DAG, "run-killed") == "success"
    assert ray_jobs(deployed, prefix) == {f"{prefix}-1": "FAILED", f"{prefix}-2": "SUCCEEDED"}
    assert "its driver was killed by signal 9" in deployed.admin.task_log(
        DAG, "run-killed", "first", 1
    )
    assert deployed.admin.try_number(DAG, "run-killed", "first") == 2


def drivers(submission_id: str) -> list[psutil.Process]:
    """The process of a Ray job itself, not the shell that starts it."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if submission_id in command and "-m" in command:
            found.append(process)
    return found


def ray_jobs(deployed: Deployed, prefix: str) -> dict[str, str]:
    """Submission id to status of the jobs with that prefix, as Ray's own API lists them."""
    found = ray_call(deployed, "GET", "").json()
    return {
        job["submission_id"]: job["status"]
        for job in found
        if (job["submission_id"] or "").startswith(prefix)
    }


def ray_call(deployed: Deployed, method: str, path: str) -> httpx.Response:
    info = deployed.stack.info()
    assert info is not None
    token = deployed.stack.ray_token_file.read_text()
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method, f"{info.ray_url}/api/jobs/{path}", headers=headers, timeout=30)


def test_a_job_somebody_else_stopped_is_submitted_again(deployed: Deployed) -> None:
    recipe = write_recipe(deployed.recipes, "two", env={"PYTHONPATH": str(JOBS)})
    plan = two_stage_plan(deployed.store, recipe, "run-stopped", {"sleep_s": 12}, {})
    commit_stage(deployed.store, plan, "second")
    prefix = f"first-{plan.stage('first').ref.key}"
    deployed.admin.trigger(DAG, {"recipe": "two"}, "run-stopped")
    assert deployed.wait_for_state(DAG, "run-stopped", "first", "deferred") == "deferred"
    assert wait_until(lambda: "RUNNING" in ray_jobs(deployed, prefix).values(), timeout_s=60)
    ray_call(deployed, "POST", f"{prefix}-1/stop").raise_for_status()
    assert deployed.wait_for_run(DAG, "run-stopped") == "success"
    assert ray_jobs(deployed, prefix) == {f"{prefix}-1": "STOPPED", f"{prefix}-2": "SUCCEEDED"}
    assert deployed.admin.try_number(DAG, "run-stopped", "first") == 1


def test_clearing_a_waiting_task_stops_its_job_and_starts_one(deployed: Deployed) -> None:
    recipe = write_recipe(deployed.recipes, "two", env={"PYTHONPATH": str(JOBS)})
    plan = two_stage_plan(deployed.store, recipe, "run-cleared", {"sleep_s": 15}, {})
    commit_stage(deployed.store, plan, "second")
    prefix = f"first-{plan.stage('first').ref.key}"
    deployed.admin.trigger(DAG, {"recipe": "two"}, "run-cleared")
    assert deployed.wait_for_state(DAG, "run-cleared", "first", "deferred") == "deferred"
    assert wait_until(lambda: "RUNNING" in ray_jobs(deployed, prefix).values(), timeout_s=60)
    deployed.admin.clear(DAG, "run-cleared", ["first"])
    assert deployed.wait_for_run(DAG, "run-cleared") == "success"
    assert ray_jobs(deployed, prefix) == {f"{prefix}-1": "STOPPED", f"{prefix}-2": "SUCCEEDED"}
