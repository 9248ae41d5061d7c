"""Verdicts as artifacts: worked out once for an evaluation and a policy, then only read."""

from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from flywheel_core.artifacts import (
    KEY_HEX_DIGITS,
    ArtifactRef,
    Attempt,
    digest_of,
    is_done,
    read_file,
)
from flywheel_core.errors import ArtifactCorrupt
from flywheel_core.plan import PinnedPlan
from flywheel_core.release.gates import GATES
from flywheel_core.release.metrics import GateMetrics, parse_metrics
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.release.verdict import Verdict
from flywheel_core.store import Store

VERDICT_VERSION = 1
VERDICT_FILE = "verdict.json"


def verdict_ref(plan: PinnedPlan, gate: str, policy: ReleasePolicy) -> ArtifactRef:
    """Where a gate's verdict on this plan's evaluation lies, under this policy."""
    evaluated = plan.stage("evaluate").ref
    asked_for = [gate, VERDICT_VERSION, evaluated.key, policy_digest(policy)]
    return ArtifactRef(
        flywheel=plan.flywheel,
        generation=plan.generation,
        stage=f"verdict_{gate}",
        key=digest_of(asked_for)[:KEY_HEX_DIGITS],
    )


def read_metrics(store: Store, plan: PinnedPlan) -> GateMetrics:
    """What this plan's evaluation measured, verified."""
    evaluated = plan.stage("evaluate").ref
    return parse_metrics(read_file(store, evaluated, "metrics.json"), evaluated.path)


def run_and_commit_gate(
    store: Store, plan: PinnedPlan, gate: str, policy: ReleasePolicy
) -> Verdict:
    """The gate's verdict; committed if this is the first time it is asked."""
    ref = verdict_ref(plan, gate, policy)
    if not is_done(store, ref):
        verdict = GATES[gate](read_metrics(store, plan), policy)
        with TemporaryDirectory() as scratch:
            attempt = Attempt(store, ref, Path(scratch))
            (attempt.folder / VERDICT_FILE).write_text(verdict.model_dump_json(indent=1))
            attempt.commit(
                kind="verdict",
                stage_version=VERDICT_VERSION,
                metrics={"outcome": verdict.outcome, "reason": verdict.reason},
            )
    return _read_verdict(store, ref)


def _read_verdict(store: Store, ref: ArtifactRef) -> Verdict:
    try:
        return Verdict.model_validate_json(read_file(store, ref, VERDICT_FILE))
    except ValidationError as error:
        raise ArtifactCorrupt(
            f"{ref.path}: {VERDICT_FILE} is not a verdict as a gate writes it "
            f"({error.errors()[0]['msg']}); it was edited, remove the folder and run the gate again"
        ) from error


def run_and_commit_gates(store: Store, plan: PinnedPlan, policy: ReleasePolicy) -> list[Verdict]:
    """Every gate's verdict, in the fixed order."""
    return [run_and_commit_gate(store, plan, gate, policy) for gate in GATES]
