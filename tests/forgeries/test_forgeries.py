"""No forged promotion goes through, and each refusal says which check failed."""

from pathlib import Path

import pytest

from flywheel_core.pointers import Pointer
from tests.forgeries.catalogue import Forgery, pairs, singles
from tests.forgeries.scene import FLYWHEEL, MANAGER, approved_scene


def test_there_are_enough_of_them() -> None:
    names = [forgery.name for forgery in [*singles(), *pairs()]]
    assert len(names) == len(set(names)) >= 100
    assert len(singles()) >= 80


@pytest.mark.parametrize("forgery", singles(), ids=lambda forgery: str(forgery.name))
def test_an_attack_meets_its_own_refusal(forgery: Forgery) -> None:
    (attack,) = forgery.attacks
    result = forgery.attempt()
    assert type(result.refusal) is attack.refusal, repr(result.refusal)
    assert attack.says in str(result.refusal)
    assert not result.moved


@pytest.mark.parametrize("forgery", pairs(), ids=lambda forgery: str(forgery.name))
def test_two_attacks_do_not_open_the_way_for_each_other(forgery: Forgery) -> None:
    result = forgery.attempt()
    assert not result.through
    assert result.is_clear, repr(result.refusal)


@pytest.mark.parametrize(
    ("check", "name"),
    [
        ("decision._check_state", "a_frozen_flywheel"),
        ("decision._check_time", "an_expired_approval"),
        ("decision._check_responder", "another_user_answered"),
        ("decision._check_self_approval", "the_manager_triggered_the_run"),
        ("decision._check_digest", "the_approval_of_another_run_of_the_same_keys"),
        ("decision._check_gates", "a_blocked_candidate_that_a_manager_approved"),
        ("case._verify_model", "an_edited_model"),
        ("case._compare_with_committed", "a_resealed_verdict"),
        ("promotion._check_not_stale", "productions_record_names_another_artifact"),
        ("promotion.require_proven", "promotes_own_record_before_any_approval"),
    ],
)
def test_without_its_check_the_attack_goes_through(
    check: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attacks are real: nothing else stands in the way of these."""
    (forgery,) = [one for one in singles() if one.name == name]
    assert not forgery.attempt().through
    monkeypatch.setattr(f"flywheel_core.release.{check}", lambda *arguments: None)
    assert forgery.attempt().through


@pytest.mark.parametrize(
    "dag_run",
    [
        {"run_type": "manual", "triggering_user_name": "admin"},
        {"run_type": "scheduled", "triggering_user_name": None},
    ],
    ids=["triggered", "scheduled"],
)
def test_the_honest_approval_of_the_same_climb_promotes(
    tmp_path: Path, dag_run: dict[str, str | None]
) -> None:
    scene = approved_scene(tmp_path / "store")
    scene.dag_run = dag_run
    moved = scene.promote().record
    assert (moved.number, moved.by) == (2, MANAGER)
    # Cleared, asked and approved anew: the record of the first try proves what stands there.
    assert scene.detail is not None
    scene.tries, scene.detail, scene.try_number = [scene.detail], None, 2
    assert "nothing to do" in scene.promote().said


def test_what_the_policy_allows_promotes(tmp_path: Path) -> None:
    """The same scenes as the attacks that need a policy of their own, honestly approved."""
    by_experiment = approved_scene(tmp_path / "ab")
    by_experiment.policy = by_experiment.policy.model_copy(update={"release": "ab"})
    by_experiment.ask_again()
    assert by_experiment.promote().record.value["experiment"]["state"] == "open"
    assert len(Pointer(by_experiment.store, FLYWHEEL, "production").history()) == 1

    by_person = approved_scene(tmp_path / "person")
    by_person.policy = by_person.policy.model_copy(update={"automated_approval_allowed": False})
    by_person.ask_again()
    assert by_person.promote().record.number == 2

    alone = approved_scene(tmp_path / "alone")
    alone.policy = alone.policy.model_copy(update={"self_approval_allowed": True})
    alone.dag_run = {"run_type": "manual", "triggering_user_name": MANAGER}
    alone.ask_again()
    assert alone.promote().record.number == 2
