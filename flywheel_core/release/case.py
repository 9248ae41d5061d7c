"""One candidate's case: everything that is decided on, read and verified anew from the store."""

from collections.abc import Sequence

from flywheel_core.artifacts import (
    ArtifactRef,
    Record,
    digest_of,
    file_of,
    file_sha256,
    model_digest,
    read_manifest,
)
from flywheel_core.errors import ArtifactCorrupt
from flywheel_core.plan import PinnedPlan, plan_path
from flywheel_core.release.decision import Decision, DigestMismatch, PlanMismatch
from flywheel_core.release.fitness import require_fit
from flywheel_core.release.gates import run_gates
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.release.verdict import Verdict
from flywheel_core.release.verdicts import read_metrics, run_and_commit_gates
from flywheel_core.store import LocalStore, Store


class Case(Record):
    """A candidate, its verdicts under the deployed policy, and the decision they amount to."""

    candidate: str
    parent: str
    plan_digest: str
    evaluate: ArtifactRef
    verdicts: tuple[Verdict, ...]
    decision: Decision

    @property
    def digest(self) -> str:
        return self.decision.digest


def plan_digest(plan: PinnedPlan) -> str:
    """Digest of what a pinned plan says."""
    return digest_of(plan.model_dump(mode="json"))


def build_case(store: Store, plan: PinnedPlan, policy: ReleasePolicy) -> Case:
    """Work the verdicts out again from the evaluation; an edited artifact is refused."""
    _check_plan(plan)
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
    require_fit(store, plan)
    return Case(
        candidate=candidate,
        parent=plan.parent.digest,
        plan_digest=plan_digest(plan),
        evaluate=evaluate,
        verdicts=verdicts,
        decision=Decision.on(
            candidate, verdicts, policy_digest(policy), plan.parent.digest, plan_digest(plan)
        ),
    )


def require_plan_of(plan: PinnedPlan, path: str) -> None:
    """Refuse a plan that lies at another run's or flywheel's path: it was copied or edited."""
    if plan_path(plan.flywheel, plan.run_id) != path:
        raise PlanMismatch(
            f"plan {path}: says it is of run {plan.run_id!r} of flywheel {plan.flywheel!r}, which "
            "is not the run that reads it; it was copied or edited, start a new run"
        )


def _check_plan(plan: PinnedPlan) -> None:
    evaluate = plan.stage("evaluate").ref
    if (evaluate.flywheel, evaluate.generation) != (plan.flywheel, plan.generation):
        raise PlanMismatch(
            f"plan of run {plan.run_id!r}: is of generation {plan.generation} of "
            f"{plan.flywheel!r}, but would release {evaluate.path}; it was edited, start a new run"
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
