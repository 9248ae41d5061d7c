"""An experiment on the real stack: asked on its last day, ramped, released, or rolled back."""

import datetime

import pytest
from airflow_harness import Deployed
from airflow_seeds import write_recipe

from flywheel_core.artifacts import ArtifactRef, Attempt
from flywheel_core.experiments.journal import Journal
from flywheel_core.pointers import Pointer
from flywheel_core.release.experiments import Experiment, read_open_experiment

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
DAG = "flywheel_ab_test"
WAITING = "awaiting_input"
LAST_DAY = datetime.date(2026, 1, 18)
"""Of the experiment of generation 1: the simulated users live the six days before it as well."""


def open_experiment(deployed: Deployed, flywheel: str) -> Experiment:
    """A candidate under test whose evaluation found one unit of hidden utility more."""
    write_recipe(deployed.recipes, flywheel)
    experiment = Experiment(
        experiment_id="x1",
        state="open",
        generation=1,
        candidate_digest="c" * 64,
        control_digest="p" * 64,
        exposures=f"{flywheel}/experiments/x1/exposures",
    )
    store = deployed.store
    ref = ArtifactRef(flywheel=flywheel, generation=1, stage="evaluate", key="k")
    attempt = Attempt(store, ref, deployed.recipes)
    (attempt.folder / "metrics.json").write_text("{}")
    truth = {"production": {"estimate": 1.0}, "candidate": {"estimate": 2.0}}
    attempt.commit(kind="evaluation", stage_version=1, metrics={"true_effect": truth})
    production = {"digest": experiment.control_digest, "ref": ref.model_dump(mode="json")}
    Pointer(store, flywheel, "production").append(production, by="setup", reason="first")
    value = {
        **production,
        "digest": experiment.candidate_digest,
        "experiment": experiment.model_dump(mode="json"),
    }
    Pointer(store, flywheel, "candidate").append(value, by="release_manager", reason="open")
    deployed.admin.wait_for_dag(DAG)
    return experiment


def answer(deployed: Deployed, run_id: str, option: str) -> None:
    deployed.admin.settle()
    with deployed.stack.client("release_manager") as manager:
        manager.answer(DAG, run_id, "ramp_approval", option=option, automated=False)


def production(deployed: Deployed, flywheel: str) -> str:
    newest = Pointer(deployed.store, flywheel, "production").newest()
    assert newest is not None
    return str(newest.value["digest"])


def test_an_approved_candidate_is_ramped_and_released_the_next_day(deployed: Deployed) -> None:
    experiment = open_experiment(deployed, "tested")
    deployed.admin.trigger(DAG, {"recipe": "tested", "day": str(LAST_DAY)}, "last-day")
    assert deployed.wait_for_state(DAG, "last-day", "ramp_approval", WAITING) == WAITING
    record = deployed.admin.approval_record(DAG, "last-day", "ramp_approval")
    assert record is not None
    assert "recommended: ramp" in record["body"]
    assert [user["id"] for user in record["assigned_users"]] == ["release_manager"]

    # The next day's run reads on beside the one that waits, and does not ask again.
    beside = {"recipe": "tested", "day": str(LAST_DAY + datetime.timedelta(days=1))}
    deployed.admin.trigger(DAG, beside, "beside")
    assert deployed.wait_for_run(DAG, "beside") == "success"
    assert deployed.admin.task_states(DAG, "beside") == {
        "readout": "success",
        "ramp_approval": "skipped",
        "ramp": "success",
    }
    asked_in = "the same is asked in run 'last-day'"
    assert asked_in in deployed.log_of(DAG, "beside", "ramp_approval")
    assert Journal(deployed.store, "tested", "x1").decision(LAST_DAY) is None

    answer(deployed, "last-day", "Approve")
    assert deployed.wait_for_run(DAG, "last-day") == "success"
    assert "ramp: approved: 50 %" in deployed.log_of(DAG, "last-day", "ramp")
    assert production(deployed, "tested") == experiment.control_digest

    deployed.admin.trigger(DAG, {"recipe": "tested"}, "next-day")
    assert deployed.wait_for_run(DAG, "next-day") == "success"
    assert deployed.admin.task_states(DAG, "next-day")["ramp_approval"] == "skipped"
    assert production(deployed, "tested") == experiment.candidate_digest
    assert read_open_experiment(deployed.store, "tested") is None

    # The last day again, by name: only told.
    moves = deployed.store.list("tested/pointers")
    deployed.admin.clear(DAG, "last-day")
    assert deployed.wait_for_run(DAG, "last-day") == "success"
    assert deployed.store.list("tested/pointers") == moves


def test_a_rejected_candidate_is_rolled_back(deployed: Deployed) -> None:
    experiment = open_experiment(deployed, "refused")
    deployed.admin.trigger(DAG, {"recipe": "refused", "day": str(LAST_DAY)}, "refused-last-day")
    assert deployed.wait_for_state(DAG, "refused-last-day", "ramp_approval", WAITING) == WAITING
    answer(deployed, "refused-last-day", "Reject")
    deployed.wait_for_run(DAG, "refused-last-day")
    states = deployed.admin.task_states(DAG, "refused-last-day")
    assert (states["ramp_approval"], states["ramp"]) == ("failed", "success")
    decision = Journal(deployed.store, "refused", "x1").decision(LAST_DAY)
    assert decision is not None
    assert (decision.action.kind, decision.by) == ("rollback", "release_manager")
    assert production(deployed, "refused") == experiment.control_digest
    assert read_open_experiment(deployed.store, "refused") is None
