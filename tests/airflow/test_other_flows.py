"""The nightly flow and the experiment's readout run on the real stack."""

import pytest
from airflow_harness import Deployed
from airflow_seeds import commit_stage, ingest_day, write_ingested_recipe, write_recipe

from flywheel_core.plan import resolve_nightly
from flywheel_core.pointers import Pointer
from flywheel_core.release.policy import load_policy, policy_digest

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


def test_nightly_finds_its_day_and_the_readout_finds_no_experiment(deployed: Deployed) -> None:
    recipe = write_recipe(deployed.recipes, "nights")
    digest = policy_digest(load_policy(deployed.policy))
    plan = resolve_nightly(recipe, deployed.store, "nightly/run-night", policy_digest=digest)
    assert (len(plan.days), [stage.name for stage in plan.stages]) == (1, ["traffic", "curate"])
    for stage in plan.stages:
        commit_stage(deployed.store, plan, stage.name)
    deployed.admin.wait_for_dag("flywheel_nightly")
    deployed.admin.trigger("flywheel_nightly", {"recipe": "nights"}, "run-night")
    deployed.admin.wait_for_dag("flywheel_ab_test")
    deployed.admin.trigger("flywheel_ab_test", {"recipe": "nights"}, "run-readout")
    assert deployed.wait_for_run("flywheel_nightly", "run-night") == "success"
    assert "no job needed" in deployed.log_of("flywheel_nightly", "run-night", "curate")
    assert deployed.wait_for_run("flywheel_ab_test", "run-readout") == "success"
    assert "none open" in deployed.log_of("flywheel_ab_test", "run-readout", "readout")


def test_a_night_waits_for_its_day_and_a_late_file_is_curated_anew(deployed: Deployed) -> None:
    dag, flywheel, day = "flywheel_nightly", "late", "2026-01-08"
    recipe = write_ingested_recipe(deployed.recipes, flywheel, num_days=7)
    digest = policy_digest(load_policy(deployed.policy))
    deployed.admin.wait_for_dag(dag)

    def seed(run_id: str) -> str:
        """Commit what the night's jobs would make of the day's newest version."""
        plan = resolve_nightly(
            recipe, deployed.store, f"nightly/seed-{run_id}", policy_digest=digest, day=day
        )
        for stage in plan.stages:
            if not deployed.store.exists(f"{stage.ref.path}/manifest.json"):
                commit_stage(deployed.store, plan, stage.name)
        return plan.stage("curate").ref.path

    deployed.admin.trigger(dag, {"recipe": flywheel, "day": day}, "first")
    assert deployed.wait_for_state(dag, "first", "wait_for_traffic", "deferred") == "deferred"
    ingest_day(deployed.store, flywheel, day)
    curated = {"first": seed("first")}
    assert deployed.wait_for_run(dag, "first") == "success"
    assert f"waiting for 1 of 1 days of traffic: {day}" in deployed.log_of(
        dag, "first", "wait_for_traffic"
    )
    ingest_day(deployed.store, flywheel, day, "Hello again, late!")
    for run_id in ("late", "repeated"):
        curated[run_id] = seed(run_id)
        deployed.admin.trigger(dag, {"recipe": flywheel, "day": day}, run_id)
        assert deployed.wait_for_run(dag, run_id) == "success"
    for run_id, path in curated.items():
        assert f"{path} is there already" in deployed.log_of(dag, run_id, "curate")
    assert curated["first"] != curated["late"] == curated["repeated"]
    assert len(Pointer(deployed.store, flywheel, f"traffic/{day}").history()) == 2
