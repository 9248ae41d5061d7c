"""The operator on a real Airflow and a real Ray: defer, follow, attach, fail with a sentence."""

import pytest
from airflow_harness import Deployed
from airflow_seeds import JOBS, two_stage_plan, write_recipe

from flywheel_core.artifacts import is_done, read_manifest

pytestmark = [pytest.mark.heavy, pytest.mark.xdist_group("airflow"), pytest.mark.timeout(600)]
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
