"""Asking for a release, moving the pointer, taking it back, and the freeze switch.

Free of Airflow: the record of the human decision is handed in, and everything else is worked
out again from the artifacts. `rollback` and `set_freeze` work with Airflow down.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import (
    ArtifactRef,
    Record,
    file_of,
    file_sha256,
    model_digest,
    read_manifest,
)
from flywheel_core.errors import ArtifactCorrupt, ConfigError, PointerConflict, PromotionRefused
from flywheel_core.plan import PinnedPlan, plan_path
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.release.decision import (
    APPROVE,
    ApprovalRecord,
    DigestMismatch,
    NoResponse,
    StaleCandidate,
    check_approval,
    decision_digest,
)
from flywheel_core.release.experiments import open_experiment, read_open_experiment
from flywheel_core.release.gates import run_gates
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.release.verdict import Verdict
from flywheel_core.release.verdicts import read_metrics, run_and_commit_gates
from flywheel_core.store import LocalStore, Store

PRODUCTION = "production"
CANDIDATE = "candidate"
FREEZE = "freeze"
DIGEST_PREFIX = "decision digest: "
FLYWHEEL_ITSELF = "flywheel"


class Question(Record):
    """What a release manager is shown; the body's last line is the decision digest."""

    subject: str
    body: str
    digest: str


class Promotion(Record):
    """What promote did: the record now in force, and one sentence."""

    record: PointerRecord
    said: str


class Case(Record):
    """One candidate with all that is decided on, read and verified anew from the store."""

    candidate: str
    parent: str
    evaluate: ArtifactRef
    verdicts: tuple[Verdict, ...]
    digest: str


def build_case(store: Store, plan: PinnedPlan, policy: ReleasePolicy) -> Case:
    """Work the verdicts out again from the evaluation; an edited artifact is refused."""
    evaluate = plan.stage("evaluate").ref
    _verify_model(store, evaluate)
    candidate = model_digest(read_manifest(store, evaluate))
    metrics = read_metrics(store, plan)
    if (metrics.candidate, metrics.parent) != (candidate, plan.parent.digest):
        raise DigestMismatch(
            f"metrics of {evaluate.path}: they are about candidate {metrics.candidate[:12]} and "
            f"parent {metrics.parent[:12]}, but the artifact holds {candidate[:12]} and the plan "
            f"pins {plan.parent.digest[:12]}; evaluate again"
        )
    verdicts = tuple(run_gates(metrics, policy))
    _compare_with_committed(verdicts, run_and_commit_gates(store, plan, policy))
    return Case(
        candidate=candidate,
        parent=plan.parent.digest,
        evaluate=evaluate,
        verdicts=verdicts,
        digest=decision_digest(candidate, verdicts, policy_digest(policy), plan.parent.digest),
    )


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


def digest_in_body(body: str | None) -> str:
    """The decision digest in the last line of an approval's body; empty where there is none."""
    last = (body or "").rstrip().rsplit("\n", 1)[-1].strip()
    return last.removeprefix(DIGEST_PREFIX).strip() if last.startswith(DIGEST_PREFIX) else ""


def promote(
    store: Store,
    plan: PinnedPlan,
    policy: ReleasePolicy,
    *,
    detail: Mapping[str, Any] | None,
    current_try_number: int,
) -> Promotion:
    """Move `production` (or, for A/B, `candidate`) on Airflow's record of the approval.

    `detail` is the answer of `hitlDetails`, None where Airflow has no record. Every check that
    fails is its own `PromotionRefused`; promoting what is promoted already changes nothing.
    """
    record = None
    if detail is not None:
        record = ApprovalRecord.from_hitl_detail(
            detail,
            decision_digest=digest_in_body(detail.get("body")),
            automated=bool((detail.get("params_input") or {}).get("automated")),
        )
    return _promote(store, plan, policy, record, current_try_number)


def promote_in_process(
    store: Store, plan: PinnedPlan, policy: ReleasePolicy, *, by: str
) -> Promotion:
    """Promote without Airflow (`flywheel climb --local`): recorded as automated, so a policy
    that forbids automated approvals forbids this, and `by` must be a release manager."""
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
    return _promote(store, plan, policy, record, 1)


def _promote(
    store: Store,
    plan: PinnedPlan,
    policy: ReleasePolicy,
    record: ApprovalRecord | None,
    current_try_number: int,
) -> Promotion:
    name = PRODUCTION if policy.release == "direct" else CANDIDATE
    pointer = Pointer(store, plan.flywheel, name)
    done = _already_promoted(pointer, plan)
    if done is not None:
        return Promotion(
            record=done,
            said=f"{name} names this candidate already (record {done.number}, by {done.by}): "
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
        production_now=str(production.value.get("digest")) if production else "",
        current_try_number=current_try_number,
        frozen=is_frozen(store, plan.flywheel),
        open_experiment=experiment.experiment_id if experiment else None,
    )
    if record is None:
        raise NoResponse("nobody has answered the approval; answer it in the Airflow UI")
    _check_not_stale(production, plan)
    return _move(pointer, plan, policy, case, record)


def _already_promoted(pointer: Pointer, plan: PinnedPlan) -> PointerRecord | None:
    newest = pointer.newest()
    wanted = plan_path(plan.flywheel, plan.run_id)
    if newest is not None and newest.value.get("plan") == wanted:
        return newest
    return None


def _check_not_stale(production: PointerRecord | None, plan: PinnedPlan) -> None:
    number = production.number if production else 0
    if number != plan.parent.pointer_number:
        raise StaleCandidate(
            f"production is at record {number}, but this climb started from record "
            f"{plan.parent.pointer_number}: production has moved since (a release or a rollback); "
            "run a new climb from production"
        )


def _move(
    pointer: Pointer,
    plan: PinnedPlan,
    policy: ReleasePolicy,
    case: Case,
    record: ApprovalRecord,
) -> Promotion:
    direct = policy.release == "direct"
    newest = pointer.newest()
    followed = plan.parent.pointer_number if direct else (newest.number if newest else 0)
    value = {
        "ref": case.evaluate.model_dump(mode="json"),
        "digest": case.candidate,
        "plan": plan_path(plan.flywheel, plan.run_id),
        "parent_digest": case.parent,
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
            expected_number=followed,
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


def _compare_with_committed(worked_out: Sequence[Verdict], committed: Sequence[Verdict]) -> None:
    for fresh, found in zip(worked_out, committed, strict=True):
        if fresh.digest != found.digest:
            raise DigestMismatch(
                f"verdict of {fresh.gate}: the committed one says {found.outcome} "
                f"({found.digest[:12]}), the evaluation gives {fresh.outcome} "
                f"({fresh.digest[:12]}); the verdict was edited, or the gate's code changed"
            )


def _verify_model(store: Store, ref: ArtifactRef) -> None:
    """Verify the candidate's own bytes where they are at hand; elsewhere every reader does."""
    manifest = read_manifest(store, ref)
    if not isinstance(store, LocalStore):
        return
    for entry in manifest.files:
        path = store.local_path(file_of(manifest, entry.name))
        if not path.is_file() or file_sha256(path) != entry.sha256:
            raise ArtifactCorrupt(
                f"{ref.path}: {entry.name} differs from its manifest: the candidate was changed "
                f"after its evaluation; `flywheel invalidate {ref.key}` makes it anew"
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
