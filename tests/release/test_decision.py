"""The human decision: each failing check has its own exception and sentence."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from release_samples import POLICY, cell, good_metrics

from flywheel_core.errors import FlywheelError, InputDataError, PromotionRefused
from flywheel_core.release import decision
from flywheel_core.release.decision import (
    ApprovalRecord,
    RunRecord,
    check_approval,
    decision_digest,
    digest_in_body,
)
from flywheel_core.release.gates import run_gates
from flywheel_core.release.policy import ReleasePolicy, policy_digest

METRICS = good_metrics()
VERDICTS = run_gates(METRICS, POLICY)
PLAN = "a" * 64
DIGEST = decision_digest(METRICS.candidate, VERDICTS, policy_digest(POLICY), METRICS.parent, PLAN)
ASKED = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
RECORD = ApprovalRecord(
    try_number=1,
    asked_at=ASKED,
    decision_digest=DIGEST,
    response_received=True,
    responded_at=ASKED + timedelta(hours=3),
    responded_by="alice",
    responded_by_name="Alice",
    chosen_options=("Approve",),
)
RUN = RunRecord(run_type="manual", triggering_user="carol")


def check(record: ApprovalRecord | None = RECORD, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "policy": POLICY,
        "verdicts": VERDICTS,
        "digest_expected": DIGEST,
        "candidate": METRICS.candidate,
        "candidate_parent": METRICS.parent,
        "plan_digest": PLAN,
        "production_now": METRICS.parent,
        "current_try_number": 1,
        "run": RUN,
        "frozen": False,
        "now": ASKED + timedelta(days=6),
    }
    check_approval(record, **{**arguments, **changes})


def changed(**changes: Any) -> ApprovalRecord:
    return ApprovalRecord.model_validate({**RECORD.model_dump(), **changes})


def test_a_release_managers_approval_of_this_decision_promotes() -> None:
    check()


@pytest.mark.parametrize(
    ("record", "refusal", "says"),
    [
        (None, "NoResponse", "nobody has answered"),
        (changed(response_received=False), "NoResponse", "ask one of alice, bob"),
        (changed(responded_at=None), "NoResponse", "nobody has answered"),
        (changed(try_number=2), "ResponseOutdated", "another try"),
        (changed(responded_at=ASKED - timedelta(hours=1)), "ResponseOutdated", "before"),
        (changed(responded_at=ASKED + timedelta(hours=121)), "ResponseOutdated", "120 h after"),
        (changed(chosen_options=("Reject",)), "NotApproved", r"\['Reject'\]"),
        (changed(chosen_options=("Approve", "Reject")), "NotApproved", "exactly"),
        (changed(chosen_options=("approve",)), "NotApproved", "exactly"),
        (changed(chosen_options=()), "NotApproved", "exactly"),
        (changed(responded_by="mallory"), "ResponderNotAllowed", "'mallory'"),
        (changed(responded_by=None), "ResponderNotAllowed", "None"),
        (changed(automated=True), "AutomatedNotAllowed", "let a program answer"),
        (changed(decision_digest="0" * 64), "DigestMismatch", "what was approved is not"),
    ],
)
def test_each_failing_check_has_its_own_sentence(
    record: ApprovalRecord | None, refusal: str, says: str
) -> None:
    with pytest.raises(getattr(decision, refusal), match=says) as caught:
        check(record)
    assert isinstance(caught.value, PromotionRefused)
    assert isinstance(caught.value, FlywheelError)


def test_the_state_of_the_world_is_checked() -> None:
    with pytest.raises(decision.ReleasesFrozen, match="lift the freeze"):
        check(frozen=True)
    with pytest.raises(decision.StaleCandidate, match="run a new climb"):
        check(production_now="q" * 64)
    with pytest.raises(decision.DigestMismatch, match="digest_expected"):
        check(digest_expected="0" * 64)


def test_an_answer_from_the_future_is_refused() -> None:
    with pytest.raises(decision.ResponseOutdated, match="lies in the future"):
        check(now=ASKED + timedelta(hours=2))
    check(now=ASKED + timedelta(hours=3) - decision.CLOCK_SKEW)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (None, "does not say who triggered"),
        (RunRecord(run_type="manual"), "does not say who triggered"),
        (RunRecord(run_type="operator_triggered"), "does not say who triggered"),
        (RunRecord(run_type="manual", triggering_user="alice"), "'alice'.*let another"),
        (RunRecord(run_type="backfill", triggering_user="ALICE"), "the same user"),
        (RunRecord(run_type="manual", triggering_user="Alice"), "the same user"),
    ],
)
def test_whoever_triggers_does_not_approve(run: RunRecord | None, says: str) -> None:
    with pytest.raises(decision.SelfApprovalNotAllowed, match=says):
        check(run=run)
    record, arguments = approved_under(POLICY.model_copy(update={"self_approval_allowed": True}))
    check(record, **arguments, run=run)


@pytest.mark.parametrize("run_type", sorted(decision.STARTED_BY_NOBODY))
def test_a_scheduled_run_was_triggered_by_nobody(run_type: str) -> None:
    check(run=RunRecord(run_type=run_type))


def test_airflows_record_of_the_run_is_read() -> None:
    found = {"run_type": "manual", "triggering_user_name": "carol", "state": "running"}
    assert RunRecord.from_dag_run(found) == RUN
    with pytest.raises(InputDataError, match=r"Airflow is 3\.3"):
        RunRecord.from_dag_run({"run_type": "manual"})


@pytest.mark.parametrize(
    "body",
    [
        None,
        "",
        "\n",
        DIGEST,
        f"decision digest: {DIGEST}\nand one line more",
        f"see the decision digest: {DIGEST}",
        f"Decision digest: {DIGEST}",
    ],
)
def test_a_digest_elsewhere_in_the_body_is_none(body: str | None) -> None:
    assert digest_in_body(body) != DIGEST
    assert digest_in_body(f"text\n\ndecision digest: {DIGEST}\n") == DIGEST


def approved_under(policy: ReleasePolicy, **changes: Any) -> tuple[ApprovalRecord, dict[str, Any]]:
    """A record and arguments that agree on metrics judged and approved under `policy`."""
    metrics = good_metrics(**changes)
    verdicts = run_gates(metrics, policy)
    digest = decision_digest(
        metrics.candidate, verdicts, policy_digest(policy), metrics.parent, PLAN
    )
    arguments = {"policy": policy, "verdicts": verdicts, "digest_expected": digest}
    return changed(decision_digest=digest), arguments


def test_one_experiment_at_a_time() -> None:
    record, arguments = approved_under(POLICY.model_copy(update={"release": "ab"}))
    check(record, **arguments)
    with pytest.raises(decision.ExperimentOpen, match="exp-7"):
        check(record, **arguments, open_experiment="exp-7")


def test_a_program_may_answer_where_the_policy_says_so() -> None:
    record, arguments = approved_under(
        POLICY.model_copy(update={"automated_approval_allowed": True})
    )
    check(record.model_copy(update={"automated": True}), **arguments)


def test_approval_does_not_overrule_a_gate() -> None:
    cells = (
        cell("pointwise_internal", "internal", 1160),
        cell("pointwise_user", "user", 1310),
    )
    record, arguments = approved_under(POLICY, win_rates=cells)
    with pytest.raises(decision.GatesNotPassed, match=r"rm_win_rate \(block\)"):
        check(record, **arguments)
    record, arguments = approved_under(POLICY, safety=())
    with pytest.raises(decision.GatesNotPassed, match=r"safety \(insufficient\)"):
        check(record, **arguments)


def test_a_gate_left_out_or_of_another_policy_is_refused() -> None:
    partial = VERDICTS[1:]
    digest = decision_digest(
        METRICS.candidate, partial, policy_digest(POLICY), METRICS.parent, PLAN
    )
    with pytest.raises(decision.GatesNotPassed, match="rm_win_rate gave no verdict"):
        check(changed(decision_digest=digest), verdicts=partial, digest_expected=digest)
    looser = POLICY.model_copy(update={"release_managers": ("alice", "eve")})
    foreign = run_gates(METRICS, looser)
    digest = decision_digest(
        METRICS.candidate, foreign, policy_digest(POLICY), METRICS.parent, PLAN
    )
    with pytest.raises(decision.GatesNotPassed, match="another candidate, parent or policy"):
        check(changed(decision_digest=digest), verdicts=foreign, digest_expected=digest)


def test_the_decision_digest_covers_each_part_and_no_order() -> None:
    def digest(**changes: Any) -> str:
        parts = {
            "candidate": METRICS.candidate,
            "verdicts": VERDICTS,
            "policy_digest": policy_digest(POLICY),
            "parent": METRICS.parent,
            "plan": PLAN,
        }
        return decision_digest(**{**parts, **changes})

    assert digest(verdicts=VERDICTS[::-1]) == digest() == DIGEST
    others = [
        digest(candidate="x"), digest(parent="x"), digest(policy_digest="x"),
        digest(verdicts=VERDICTS[1:]), digest(plan="x"),
    ]  # fmt: skip
    assert len({DIGEST, *others}) == 6


def test_airflows_own_record_is_read() -> None:
    detail = {
        "task_instance": {"try_number": 1},
        "created_at": "2026-11-23T09:00:00Z",
        "response_received": True,
        "responded_at": "2026-11-23T12:00:00Z",
        "responded_by_user": {"id": "alice", "name": "Alice"},
        "chosen_options": ["Approve"],
        "subject": "Release?",
    }
    read = ApprovalRecord.from_hitl_detail(detail, decision_digest=DIGEST, automated=False)
    assert read == RECORD
    waiting = {**detail, "responded_by_user": None, "responded_at": None, "chosen_options": None}
    assert (
        ApprovalRecord.from_hitl_detail(
            waiting, decision_digest=DIGEST, automated=False
        ).responded_by
        is None
    )
    with pytest.raises(InputDataError, match=r"Airflow is 3\.3"):
        ApprovalRecord.from_hitl_detail({}, decision_digest=DIGEST, automated=False)
