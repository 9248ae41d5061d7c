"""Promotion, rollback and the freeze switch, without Airflow."""

from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from airflow_seeds import seeded_climb, write_recipe

from flywheel_core.artifacts import file_of, read_manifest
from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.errors import ArtifactCorrupt, ConfigError, PromotionRefused
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.plan import PinnedPlan
from flywheel_core.pointers import Pointer
from flywheel_core.release.decision import (
    AutomatedNotAllowed,
    DigestMismatch,
    ExperimentOpen,
    GatesNotPassed,
    NoResponse,
    NotApproved,
    ReleasesFrozen,
    ResponderNotAllowed,
    ResponseOutdated,
    StaleCandidate,
)
from flywheel_core.release.experiments import read_open_experiment
from flywheel_core.release.policy import ReleasePolicy, load_policy
from flywheel_core.release.promotion import promote as promote_with
from flywheel_core.release.promotion import question, rollback, set_freeze
from flywheel_core.release.ramping import run_day
from flywheel_core.release.verdicts import verdict_ref
from flywheel_core.store import LocalStore

POLICY = load_policy(DEFAULT_POLICY)
ASKED = datetime.now(UTC) - timedelta(hours=1)
BY_ADMIN = {"run_type": "manual", "triggering_user_name": "admin"}
promote = partial(promote_with, dag_run=BY_ADMIN)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def climb(store: LocalStore, tmp_path: Path, run_id: str = "run", user: int = 1180) -> PinnedPlan:
    recipe = write_recipe(tmp_path / "recipes", "tiny")
    return seeded_climb(store, recipe, DEFAULT_POLICY, run_id, internal=1160, user=user)


def answered(
    store: LocalStore, plan: PinnedPlan, policy: ReleasePolicy = POLICY, **changes: Any
) -> dict[str, Any]:
    """Airflow's record of a valid approval, as `hitlDetails` returns it, with fields replaced."""
    body = question(store, plan, policy, reports=Path("/reports")).body
    return {
        "task_instance": {"try_number": 1},
        "body": body,
        "created_at": ASKED.isoformat(),
        "responded_at": (ASKED + timedelta(minutes=5)).isoformat(),
        "response_received": True,
        "responded_by_user": {"id": "release_manager", "name": "release_manager"},
        "chosen_options": ["Approve"],
        "params_input": {"automated": False},
    } | changes


def names(store: LocalStore, pointer: str = "production") -> int:
    newest = Pointer(store, "tiny", pointer).newest()
    return newest.number if newest else 0


def test_a_valid_approval_moves_production_once(store: LocalStore, tmp_path: Path) -> None:
    plan = climb(store, tmp_path)
    detail = answered(store, plan)
    moved = promote(store, plan, POLICY, detail=detail, current_try_number=1)
    assert moved.record.value["approved_by"] == "release_manager"
    assert moved.record.value["parent_digest"] == plan.parent.digest
    again = promote(store, plan, POLICY, detail=None, current_try_number=1)
    assert "nothing to do" in again.said
    assert names(store) == 2


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"response_received": False, "responded_at": None}, NoResponse),
        ({"chosen_options": ["Reject"]}, NotApproved),
        ({"chosen_options": ["Approve", "Reject"]}, NotApproved),
        ({"responded_by_user": {"id": "admin", "name": "release_manager"}}, ResponderNotAllowed),
        ({"responded_by_user": None}, ResponderNotAllowed),
        ({"task_instance": {"try_number": 2}}, ResponseOutdated),
        ({"responded_at": (ASKED + timedelta(hours=121)).isoformat()}, ResponseOutdated),
        ({"body": "decision digest: " + "0" * 64}, DigestMismatch),
        ({"body": None}, DigestMismatch),
    ],
)
def test_each_fault_of_the_record_is_refused(
    store: LocalStore, tmp_path: Path, changes: dict[str, Any], refusal: type[PromotionRefused]
) -> None:
    plan = climb(store, tmp_path)
    with pytest.raises(refusal):
        promote(store, plan, POLICY, detail=answered(store, plan, **changes), current_try_number=1)
    assert names(store) == 1


def test_no_record_and_blocked_gates_are_refused(store: LocalStore, tmp_path: Path) -> None:
    plan = climb(store, tmp_path)
    with pytest.raises(NoResponse):
        promote(store, plan, POLICY, detail=None, current_try_number=1)
    bad = climb(store, tmp_path, "bad", user=1400)
    # The same keys were asked for, so `bad` reads the first climb's artifacts: seed another store.
    assert bad.stage("evaluate").ref == plan.stage("evaluate").ref
    other = LocalStore(str(tmp_path / "other"))
    blocked = climb(other, tmp_path, "bad", user=1400)
    with pytest.raises(GatesNotPassed, match="70 %"):
        promote(other, blocked, POLICY, detail=answered(other, blocked), current_try_number=1)


def test_an_automated_answer_needs_a_policy_that_allows_it(
    store: LocalStore, tmp_path: Path
) -> None:
    plan = climb(store, tmp_path)
    strict = POLICY.model_copy(update={"automated_approval_allowed": False})
    detail = answered(store, plan, strict, params_input={"automated": True})
    with pytest.raises(AutomatedNotAllowed):
        promote(store, plan, strict, detail=detail, current_try_number=1)


def test_a_swapped_candidate_or_edited_verdict_is_refused(
    store: LocalStore, tmp_path: Path
) -> None:
    plan = climb(store, tmp_path)
    detail = answered(store, plan)
    verdict = read_manifest(store, verdict_ref(plan, "safety", POLICY))
    path = store.local_path(file_of(verdict, "verdict.json"))
    genuine = path.read_bytes()
    path.write_bytes(genuine.replace(b"pass", b"warn"))
    with pytest.raises(ArtifactCorrupt):
        promote(store, plan, POLICY, detail=detail, current_try_number=1)
    path.write_bytes(genuine)
    evaluated = read_manifest(store, plan.stage("evaluate").ref)
    store.local_path(file_of(evaluated, "model/config.json")).write_text("{}")
    with pytest.raises(ArtifactCorrupt, match=r"model/config\.json"):
        promote(store, plan, POLICY, detail=detail, current_try_number=1)
    assert names(store) == 1


def test_frozen_and_stale_are_refused(store: LocalStore, tmp_path: Path) -> None:
    plan = climb(store, tmp_path)
    detail = answered(store, plan)
    set_freeze(store, "tiny", frozen=True, by="on_call", reason="incident")
    with pytest.raises(ReleasesFrozen):
        promote(store, plan, POLICY, detail=detail, current_try_number=1)
    set_freeze(store, "tiny", frozen=False, by="on_call", reason="over")
    promote(store, plan, POLICY, detail=detail, current_try_number=1)
    rollback(store, "tiny", by="on_call", reason="users complain")
    with pytest.raises(StaleCandidate, match="record 3"):
        promote(store, plan, POLICY, detail=detail, current_try_number=1)


def test_rollback_goes_back_one_release_and_no_further(store: LocalStore, tmp_path: Path) -> None:
    plan = climb(store, tmp_path)
    promote(store, plan, POLICY, detail=answered(store, plan), current_try_number=1)
    back = rollback(store, "tiny", by="on_call", reason="users complain")
    assert back.number == 3
    assert back.value["digest"] == plan.parent.digest
    with pytest.raises(PromotionRefused, match="first model"):
        rollback(store, "tiny", by="on_call", reason="again")
    with pytest.raises(ConfigError, match="flywheels there: tiny"):
        rollback(store, "tyni", by="on_call", reason="typo")


def test_ab_opens_one_experiment(store: LocalStore, tmp_path: Path) -> None:
    plan = climb(store, tmp_path)
    policy = POLICY.model_copy(update={"release": "ab"})
    promote(store, plan, policy, detail=answered(store, plan, policy), current_try_number=1)
    assert (names(store), names(store, "candidate")) == (1, 1)
    experiment = read_open_experiment(store, "tiny")
    assert experiment is not None
    waiting = run_day(store, "tiny", experiment, date(2026, 1, 12), ReadoutConfig())
    assert waiting.said == "no exposures yet"
    second = climb(store, tmp_path, "run-2")
    with pytest.raises(ExperimentOpen):
        promote(store, second, policy, detail=answered(store, second, policy), current_try_number=1)
