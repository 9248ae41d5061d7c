"""Attacks on plans, pointers, the deployed policy and the switches."""

import json
from collections.abc import Callable
from typing import Any

from flywheel_core.artifacts import model_digest, read_manifest
from flywheel_core.errors import ArtifactCorrupt, ArtifactMissing, SchemaTooNew
from flywheel_core.plan import load_plan, plan_path
from flywheel_core.pointers import Pointer
from flywheel_core.release.case import build_case
from flywheel_core.release.decision import (
    DigestMismatch,
    ExperimentOpen,
    GatesNotPassed,
    PlanMismatch,
    ReleasesFrozen,
    ResponderNotAllowed,
    StaleCandidate,
    UnprovenRecord,
)
from flywheel_core.release.experiments import open_experiment
from flywheel_core.release.policy import Thresholds, WaiverRule, WinRateRule
from flywheel_core.release.promotion import rollback, set_freeze
from tests.forgeries.attacks import attack
from tests.forgeries.scene import FLYWHEEL, MANAGER, OTHER_RUN, RUN, Scene, answered

PRODUCTION = f"{FLYWHEEL}/pointers/production/00000001.json"

# -- the plan in the store -------------------------------------------------------------------------


def _edit_plan(scene: Scene, change: Callable[[dict[str, Any]], None]) -> None:
    scene.edit_json(scene.path, change)


@attack(PlanMismatch, "is not the run that reads it")
def a_plan_that_says_it_is_another_run(scene: Scene) -> None:
    _edit_plan(scene, lambda plan: plan.update(run_id=OTHER_RUN))


@attack(PlanMismatch, "is not the run that reads it")
def a_plan_that_says_it_is_of_another_flywheel(scene: Scene) -> None:
    """Both flywheels started from one base model, so parent digest and record number agree."""
    _edit_plan(scene, lambda plan: plan.update(flywheel="other"))


@attack(PlanMismatch, "is not the run that reads it")
def the_plan_of_another_run_in_its_place(scene: Scene) -> None:
    scene.store.put(scene.path, scene.untouched.get(plan_path(FLYWHEEL, OTHER_RUN)))


@attack(PlanMismatch, "is not the run that reads it")
def the_plan_of_another_flywheel_in_its_place(scene: Scene) -> None:
    scene.store.put(scene.path, scene.untouched.get(plan_path("other", RUN)))


def _edit_evaluate(scene: Scene, **changes: Any) -> None:
    def change(plan: dict[str, Any]) -> None:
        for stage in plan["stages"]:
            if stage["name"] == "evaluate":
                stage["ref"] |= changes

    _edit_plan(scene, change)


@attack(PlanMismatch, "but would release other/")
def a_plan_that_releases_another_flywheels_model(scene: Scene) -> None:
    _edit_evaluate(scene, flywheel="other")


@attack(PlanMismatch, "but would release tiny/gen-0007")
def a_plan_that_releases_another_generation(scene: Scene) -> None:
    _edit_evaluate(scene, generation=7)


@attack(ArtifactMissing, "is not done")
def a_plan_that_releases_what_is_not_there(scene: Scene) -> None:
    _edit_evaluate(scene, key="0123456789abcdef")


@attack(ArtifactCorrupt, "is not a plan")
def a_plan_whose_key_leaves_the_store(scene: Scene) -> None:
    _edit_evaluate(scene, key="../../../secrets")


@attack(DigestMismatch, "pins")
def a_plan_with_another_parent(scene: Scene) -> None:
    _edit_plan(scene, lambda plan: plan["parent"].update(digest="0" * 64))


@attack(DigestMismatch, "what was approved is not")
def a_plan_with_another_parents_name(scene: Scene) -> None:
    _edit_plan(scene, lambda plan: plan["parent"]["ref"].update(key="0123456789abcdef"))


@attack(DigestMismatch, "what was approved is not")
def a_plan_that_follows_a_later_record(scene: Scene) -> None:
    _edit_plan(scene, lambda plan: plan["parent"].update(pointer_number=2))


@attack(DigestMismatch, "what was approved is not")
def a_plan_under_another_policy(scene: Scene) -> None:
    _edit_plan(scene, lambda plan: plan.update(policy_digest="0" * 64))


@attack(DigestMismatch, "what was approved is not")
def a_plan_whose_recipe_brings_a_policy(scene: Scene) -> None:
    own = {"release_managers": ["mallory"], "self_approval_allowed": True}
    _edit_plan(scene, lambda plan: plan["recipe"].update(policy=own))


@attack(ArtifactCorrupt, "is not a plan")
def a_plan_with_a_policy_of_its_own(scene: Scene) -> None:
    _edit_plan(scene, lambda plan: plan.update(policy={"release_managers": ["mallory"]}))


@attack(ArtifactCorrupt, "is not JSON")
def a_plan_of_garbage(scene: Scene) -> None:
    scene.store.put(scene.path, b"{")


@attack(SchemaTooNew, "upgrade this one")
def a_plan_of_a_later_version(scene: Scene) -> None:
    _edit_plan(scene, lambda plan: plan.update(schema_version=99))


@attack(ArtifactMissing, "no plan at")
def a_plan_removed(scene: Scene) -> None:
    scene.store.delete(scene.path)


@attack(DigestMismatch, "what was approved is not")
def the_approval_of_another_run_of_the_same_keys(scene: Scene) -> None:
    """Equal keys, artifacts and verdicts: only the plan differs."""
    plan = load_plan(scene.untouched, plan_path(FLYWHEEL, OTHER_RUN))
    case = build_case(scene.untouched, plan, scene.policy)
    scene.answer(body=f"decision digest: {case.digest}")


@attack(DigestMismatch, "what was approved is not")
def the_approval_of_another_flywheel(scene: Scene) -> None:
    plan = load_plan(scene.untouched, plan_path("other", RUN))
    case = build_case(scene.untouched, plan, scene.policy)
    scene.answer(body=f"decision digest: {case.digest}")


# -- the pointers ----------------------------------------------------------------------------------


def _production(scene: Scene) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(scene.untouched.get(PRODUCTION))["value"]
    return value


@attack(StaleCandidate, "run a new climb from production")
def production_moved_by_hand(scene: Scene) -> None:
    scene.write_pointer(2, {**_production(scene), "digest": "0" * 64})


@attack(StaleCandidate, "production has moved since")
def production_moved_to_the_same_model(scene: Scene) -> None:
    scene.write_pointer(2, _production(scene), by="on_call")


@attack(StaleCandidate, "production is now 0000")
def productions_record_edited_in_place(scene: Scene) -> None:
    scene.write_pointer(1, {**_production(scene), "digest": "0" * 64})


@attack(StaleCandidate, "the record was edited")
def productions_record_names_another_artifact(scene: Scene) -> None:
    value = _production(scene)
    scene.write_pointer(1, {**value, "ref": {**value["ref"], "key": "0123456789abcdef"}})


@attack(StaleCandidate, "production is now ;")
def productions_history_removed(scene: Scene) -> None:
    scene.store.delete(PRODUCTION)


@attack(ArtifactCorrupt, "is not JSON")
def a_pointer_of_garbage(scene: Scene) -> None:
    scene.store.put(PRODUCTION, b"tiny")


@attack(ArtifactCorrupt, "was copied or edited")
def a_pointers_record_copied_to_a_later_number(scene: Scene) -> None:
    scene.store.put(PRODUCTION.replace("001.json", "002.json"), scene.untouched.get(PRODUCTION))


@attack(UnprovenRecord, "does not say what was decided")
def production_names_this_plan_and_nothing_more(scene: Scene) -> None:
    scene.write_pointer(2, {**_production(scene), "plan": scene.path})


def _as_promote_writes(scene: Scene) -> dict[str, Any]:
    """The very value that an honest promotion would write."""
    case = build_case(scene.untouched, scene.plan, scene.policy)
    return {
        "ref": case.evaluate.model_dump(mode="json"),
        "digest": case.candidate,
        "plan": scene.path,
        "parent_digest": case.parent,
        "decision": case.decision.model_dump(mode="json"),
        "decision_digest": case.digest,
        "approved_by": MANAGER,
        "automated": False,
        "experiment": None,
    }


@attack(UnprovenRecord, "Airflow has no such approval", alone=True)
def promotes_own_record_before_any_approval(scene: Scene) -> None:
    scene.write_pointer(2, _as_promote_writes(scene))
    scene.answer(response_received=False, responded_at=None, responded_by_user=None)


@attack(UnprovenRecord, "Airflow has no such approval", alone=True)
def promotes_own_record_after_a_rejection(scene: Scene) -> None:
    scene.write_pointer(2, _as_promote_writes(scene))
    scene.answer(chosen_options=["Reject"])


@attack(UnprovenRecord, "Airflow has no such approval", alone=True)
def promotes_own_record_under_another_name(scene: Scene) -> None:
    scene.write_pointer(2, {**_as_promote_writes(scene), "approved_by": "mallory"})


@attack(UnprovenRecord, "Airflow has no such approval", alone=True)
def promotes_own_record_with_another_verdict(scene: Scene) -> None:
    value = _as_promote_writes(scene)
    value["decision"]["verdicts"][0][1] = "0" * 64
    from flywheel_core.release.decision import Decision

    value["decision_digest"] = Decision.model_validate(value["decision"]).digest
    scene.write_pointer(2, value)


@attack(UnprovenRecord, "is not that of its decision", alone=True)
def promotes_own_record_with_another_decision(scene: Scene) -> None:
    value = _as_promote_writes(scene)
    value["decision"]["policy"] = "0" * 64
    scene.write_pointer(2, value)


@attack(UnprovenRecord, "this plan's candidate is")
def promotes_own_record_with_another_model(scene: Scene) -> None:
    scene.write_pointer(2, {**_as_promote_writes(scene), "digest": "0" * 64})


@attack(UnprovenRecord, "this plan's candidate is")
def promotes_own_record_at_another_artifact(scene: Scene) -> None:
    ref = scene.plan.stage("rl").ref.model_dump(mode="json")
    scene.write_pointer(2, {**_as_promote_writes(scene), "ref": ref})


@attack(StaleCandidate, "production has moved since", alone=True)
def promoted_then_rolled_back_then_promoted_again(scene: Scene) -> None:
    scene.promote()
    rollback(scene.store, FLYWHEEL, by="on_call", reason="users complain")


# -- the policy ------------------------------------------------------------------------------------


def _deploy(scene: Scene, **changes: Any) -> None:
    scene.policy = scene.policy.model_copy(update=changes)


@attack(DigestMismatch, "verdicts, policy, candidate")
def a_manager_more_in_the_policy_after_the_approval(scene: Scene) -> None:
    _deploy(scene, release_managers=(*scene.policy.release_managers, "mallory"))


@attack(ResponderNotAllowed, "must be one of mallory")
def other_managers_in_the_policy_after_the_approval(scene: Scene) -> None:
    _deploy(scene, release_managers=("mallory",))


@attack(DigestMismatch, "verdicts, policy, candidate")
def looser_thresholds_after_the_approval(scene: Scene) -> None:
    rule = WinRateRule(block_above_rate=0.70)
    _deploy(scene, thresholds=Thresholds(rm_win_rate=rule))


@attack(DigestMismatch, "verdicts, policy, candidate")
def an_experiment_instead_of_a_release_after_the_approval(scene: Scene) -> None:
    _deploy(scene, release="ab")


@attack(DigestMismatch, "verdicts, policy, candidate")
def self_approval_allowed_after_the_approval(scene: Scene) -> None:
    scene.dag_run = {"run_type": "manual", "triggering_user_name": MANAGER}
    _deploy(scene, self_approval_allowed=True)


@attack(DigestMismatch, "verdicts, policy, candidate", seed="blocked")
def waivers_allowed_after_the_approval(scene: Scene) -> None:
    _deploy(scene, waivers=WaiverRule(rm_win_rate_up_to_rate=0.70))


@attack(GatesNotPassed, "insufficient", alone=True)
def evidence_of_a_phase_the_policy_does_not_take(scene: Scene) -> None:
    _deploy(scene, allowed_evidence_phases=("pre_launch",))
    scene.ask_again()


# -- the switches ----------------------------------------------------------------------------------


@attack(ReleasesFrozen, "lift the freeze")
def a_frozen_flywheel(scene: Scene) -> None:
    set_freeze(scene.store, FLYWHEEL, frozen=True, by="on_call", reason="incident")


@attack(ArtifactCorrupt, "is not JSON")
def a_freeze_of_garbage(scene: Scene) -> None:
    scene.store.put(f"{FLYWHEEL}/pointers/freeze/00000001.json", b"thawed")


def _under_test(scene: Scene, experiment: object) -> None:
    """Releases by experiment, approved as such, with one open already."""
    _deploy(scene, release="ab")
    scene.ask_again()
    value = {"plan": plan_path(FLYWHEEL, OTHER_RUN), "experiment": experiment}
    Pointer(scene.store, FLYWHEEL, "candidate").append(value, by=MANAGER, reason="experiment")


@attack(ExperimentOpen, "only one experiment", alone=True)
def a_second_experiment(scene: Scene) -> None:
    other = load_plan(scene.untouched, plan_path(FLYWHEEL, OTHER_RUN))
    candidate = model_digest(read_manifest(scene.untouched, scene.evaluate))
    _under_test(scene, open_experiment(other, candidate))


@attack(ArtifactCorrupt, "holds no experiment", alone=True)
def an_experiment_of_garbage(scene: Scene) -> None:
    _under_test(scene, {"state": "closed"})


@attack(DigestMismatch, "what was approved is not", alone=True)
def an_approval_of_a_release_used_for_an_experiment(scene: Scene) -> None:
    before = scene.detail
    _deploy(scene, release="ab")
    scene.ask_again()
    assert before is not None
    scene.detail = answered(before["body"])
