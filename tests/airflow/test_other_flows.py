"""The nightly flow and the experiment's readout run on the real stack."""

import pytest
from airflow_harness import Deployed
from airflow_seeds import commit_stage, write_recipe

from flywheel_core.plan import resolve_nightly
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
