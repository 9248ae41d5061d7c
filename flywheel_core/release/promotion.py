"""Asking for a release, moving the pointer, taking it back, and the freeze switch.

Free of Airflow: the record of the human decision is handed in, and everything else is worked
out again from the artifacts. `rollback` and `set_freeze` work with Airflow down.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from flywheel_core.artifacts import Record
from flywheel_core.errors import ConfigError, PointerConflict, PromotionRefused
from flywheel_core.plan import PinnedPlan, load_plan, plan_path
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.release.case import Case, build_case, require_plan_of
from flywheel_core.release.decision import (
    APPROVE,
    DIGEST_PREFIX,
    IN_PROCESS,
    ApprovalRecord,
    NoResponse,
    RunRecord,
    StaleCandidate,
    check_approval,
    digest_in_body,
)
from flywheel_core.release.experiments import open_experiment, read_open_experiment
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.release.proof import Tries, names_candidate, require_proven
from flywheel_core.store import Store

PRODUCTION = "production"
CANDIDATE = "candidate"
FREEZE = "freeze"


class Question(Record):
    """What a release manager is shown; the body's last line is the decision digest."""

    subject: str
    body: str
    digest: str


class Promotion(Record):
    """What promote did: the record now in force, and one sentence."""

    record: PointerRecord
    said: str


def question(store: Store, plan: PinnedPlan, policy: ReleasePolicy, *, reports: Path) -> Question:
    """What to ask about this plan's candidate."""
    case = build_case(store, plan, policy)
    report = reports / f"{plan.flywheel}-gen-{plan.generation:04d}.html"
    lines = [
        f"**{plan.flywheel}, generation {plan.generation}** against production "
        f"(generation {plan.parent.ref.generation}).",
        "",
        "| gate | verdict | reason |",
        "|---|---|---|",
        *(f"| {v.gate} | {v.outcome} | {_cell(v.reason)} |" for v in case.verdicts),
        "",
        f"Report: `{report}` (or `flywheel report {plan.generation}`)",
        "",
        f"Candidate `{case.candidate[:16]}`, parent `{case.parent[:16]}`, policy "
        f"`{policy_digest(policy)[:16]}`; on approval: release {policy.release}.",
        "",
        DIGEST_PREFIX + case.digest,
    ]
    subject = f"Release generation {plan.generation} of {plan.flywheel}?"
    return Question(subject=subject, body="\n".join(lines), digest=case.digest)


class AirflowRecords(Protocol):
    """What promote asks Airflow, of one human task: its own records, over REST."""

    def approval_record(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any] | None: ...

    def approval_tries(
        self, dag_id: str, run_id: str, task_id: str, *, up_to: int
    ) -> list[dict[str, Any]]: ...

    def current_try(self, dag_id: str, run_id: str, task_id: str) -> int: ...

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]: ...


def promote_run(
    store: Store,
    path: str,
    policy: ReleasePolicy,
    airflow: AirflowRecords,
    *,
    dag_id: str,
    run_id: str,
    task_id: str,
) -> Promotion:
    """What the promote task does: the plan that lies at `path`, on the records of approval
    `task_id`. An error of either is a refusal."""
    plan = load_plan(store, path)
    require_plan_of(plan, path)
    detail = airflow.approval_record(dag_id, run_id, task_id)
    current_try = airflow.current_try(dag_id, run_id, task_id)
    return promote(
        store,
        plan,
        policy,
        detail=detail,
        current_try_number=current_try,
        dag_run=airflow.dag_run(dag_id, run_id),
        tries=airflow.approval_tries(dag_id, run_id, task_id, up_to=current_try),
    )


def promote(
    store: Store,
    plan: PinnedPlan,
    policy: ReleasePolicy,
    *,
    detail: Mapping[str, Any] | None,
    current_try_number: int,
    dag_run: Mapping[str, Any] | None,
    tries: Tries | None = None,
) -> Promotion:
    """Move `production` (or, for A/B, `candidate`) on Airflow's record of the approval.

    `detail` is the answer of `hitlDetails` (None where Airflow has no record), `dag_run` that of
    `dagRuns/{run_id}`, and `tries` every earlier `hitlDetails` of the task. Every check that fails
    is its own `PromotionRefused`; promoting what is promoted already changes nothing.
    """
    record = None
    if detail is not None:
        record = ApprovalRecord.from_hitl_detail(
            detail,
            decision_digest=digest_in_body(detail.get("body")),
            automated=bool((detail.get("params_input") or {}).get("automated")),
        )
    run = RunRecord.from_dag_run(dag_run) if dag_run is not None else None
    return _promote(store, plan, policy, record, current_try_number, run, tries)


def promote_in_process(
    store: Store, plan: PinnedPlan, policy: ReleasePolicy, *, by: str
) -> Promotion:
    """Promote without Airflow (`flywheel climb --local`): recorded as automated, so a policy
    that forbids automated approvals forbids this, and `by` must be a release manager. No user of
    Airflow triggered it, so nobody approves their own run."""
    now = datetime.now(UTC)
    record = ApprovalRecord(
        try_number=1,
        asked_at=now,
        decision_digest=build_case(store, plan, policy).digest,
        response_received=True,
        responded_at=now,
        responded_by=by,
        chosen_options=(APPROVE,),
        automated=True,
    )
    return _promote(store, plan, policy, record, 1, RunRecord(run_type=IN_PROCESS), None)


def _promote(
    store: Store,
    plan: PinnedPlan,
    policy: ReleasePolicy,
    record: ApprovalRecord | None,
    current_try_number: int,
    run: RunRecord | None,
    tries: Tries | None,
) -> Promotion:
    name = PRODUCTION if policy.release == "direct" else CANDIDATE
    pointer = Pointer(store, plan.flywheel, name)
    newest = pointer.newest()
    if newest is not None and names_candidate(newest, plan):
        require_proven(store, plan, newest, tries)
        return Promotion(
            record=newest,
            said=f"{name} names this candidate already (record {newest.number}, by {newest.by}): "
            "nothing to do",
        )
    production = Pointer(store, plan.flywheel, PRODUCTION).newest()
    case = build_case(store, plan, policy)
    experiment = read_open_experiment(store, plan.flywheel)
    check_approval(
        record,
        policy=policy,
        verdicts=case.verdicts,
        digest_expected=case.digest,
        candidate=case.candidate,
        candidate_parent=case.parent,
        plan_digest=case.plan_digest,
        production_now=str(production.value.get("digest")) if production else "",
        current_try_number=current_try_number,
        run=run,
        frozen=is_frozen(store, plan.flywheel),
        open_experiment=experiment.experiment_id if experiment else None,
    )
    if record is None:
        raise NoResponse("nobody has answered the approval; answer it in the Airflow UI")
    _check_not_stale(production, plan)
    # What was checked is what is followed: a record that came since makes the move fail.
    followed = newest.number if newest else 0
    return _move(pointer, plan, policy, case, record, expected_number=followed)


def _check_not_stale(production: PointerRecord | None, plan: PinnedPlan) -> None:
    number = production.number if production else 0
    if number != plan.parent.pointer_number:
        raise StaleCandidate(
            f"production is at record {number}, but this climb started from record "
            f"{plan.parent.pointer_number}: production has moved since (a release or a rollback); "
            "run a new climb from production"
        )
    ref = production.value.get("ref") if production else None
    if ref != plan.parent.ref.model_dump(mode="json"):
        raise StaleCandidate(
            f"production's record {number} names {ref}, but this climb started from "
            f"{plan.parent.ref.path}: the record was edited; restore it, then run a new climb"
        )


def _move(
    pointer: Pointer,
    plan: PinnedPlan,
    policy: ReleasePolicy,
    case: Case,
    record: ApprovalRecord,
    *,
    expected_number: int,
) -> Promotion:
    direct = policy.release == "direct"
    value = {
        "ref": case.evaluate.model_dump(mode="json"),
        "digest": case.candidate,
        "plan": plan_path(plan.flywheel, plan.run_id),
        "parent_digest": case.parent,
        "decision": case.decision.model_dump(mode="json"),
        "decision_digest": case.digest,
        "approved_by": record.responded_by,
        "automated": record.automated,
        "experiment": None if direct else open_experiment(plan, case.candidate),
    }
    reason = f"generation {plan.generation} approved" + (
        " by a program" if record.automated else ""
    )
    try:
        moved = pointer.move(
            value,
            expected_number=expected_number,
            by=str(record.responded_by),
            reason=reason,
        )
    except PointerConflict as error:
        raise StaleCandidate(
            f"{pointer.name} moved while this candidate was being promoted; run a new climb "
            "from production"
        ) from error
    return Promotion(
        record=moved,
        said=f"{pointer.name} is now generation {plan.generation} (record {moved.number}), "
        f"approved by {record.responded_by}" + (", automated" if record.automated else ""),
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# -- freeze and rollback -------------------------------------------------------------------------


def is_frozen(store: Store, flywheel: str) -> bool:
    """Whether the freeze switch is on."""
    newest = Pointer(store, flywheel, FREEZE).newest()
    return bool(newest and newest.value.get("frozen"))


def set_freeze(store: Store, flywheel: str, *, frozen: bool, by: str, reason: str) -> PointerRecord:
    """Refuse every promotion from now on, or allow them again."""
    _require_production(store, flywheel)
    return Pointer(store, flywheel, FREEZE).append({"frozen": frozen}, by=by, reason=reason)


def rollback(store: Store, flywheel: str, *, by: str, reason: str) -> PointerRecord:
    """Move `production` back to the model before the one it names; recorded, never erased."""
    pointer = _require_production(store, flywheel)
    history = pointer.history()
    standing = _standing(history)
    if len(standing) < 2:
        raise PromotionRefused(
            f"production of {flywheel!r} names its first model; there is none before it to go "
            "back to"
        )
    target = standing[-2]
    value = {**target.value, "rolled_back_to": target.number}
    return pointer.move(value, expected_number=history[-1].number, by=by, reason=reason)


def _standing(history: Sequence[PointerRecord]) -> list[PointerRecord]:
    """Releases that were not rolled back, oldest first."""
    standing: list[PointerRecord] = []
    for record in history:
        target = record.value.get("rolled_back_to")
        if target is None:
            standing.append(record)
        else:
            standing = [kept for kept in standing if kept.number <= target]
    return standing


def _require_production(store: Store, flywheel: str) -> Pointer:
    pointer = Pointer(store, flywheel, PRODUCTION)
    if pointer.newest() is None:
        known = sorted({path.split("/")[0] for path in store.list("") if "/pointers/" in path})
        raise ConfigError(
            f"flywheel {flywheel!r} has no production model in {store.root}; "
            f"flywheels there: {', '.join(known) or 'none'}"
        )
    return pointer
