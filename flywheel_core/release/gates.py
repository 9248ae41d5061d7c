"""The gates by name, in the order they are shown, and what they say together.

    metrics, policy -> Verdict: pass | warn | block | insufficient

A gate is a pure function of the metrics document and the deployed policy. Missing evidence is
never a pass: it is `insufficient`, and that stops a promotion just as `block` does.
"""

from collections.abc import Callable, Sequence

from flywheel_core.errors import GateBlocked, InputDataError
from flywheel_core.release import regression_gates, win_rate_gates
from flywheel_core.release.metrics import GateMetrics
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.release.verdict import BLOCKING, Finding, Outcome, Verdict, worst

Rule = Callable[[GateMetrics, ReleasePolicy], Finding]
Gate = Callable[[GateMetrics, ReleasePolicy], Verdict]


def _gate(name: str, rule: Rule) -> Gate:
    """Bind a rule's finding to the candidate, the document and the policy it rests on."""

    def judge(metrics: GateMetrics, policy: ReleasePolicy) -> Verdict:
        finding = _phase_refusal(metrics, policy) or rule(metrics, policy)
        return Verdict(
            gate=name,
            outcome=finding.outcome,
            reason=finding.reason,
            evidence=finding.evidence,
            candidate=metrics.candidate,
            parent=metrics.parent,
            metrics_digest=metrics.digest,
            policy_digest=policy_digest(policy),
        )

    judge.__name__ = name
    judge.__doc__ = rule.__doc__
    return judge


def _phase_refusal(metrics: GateMetrics, policy: ReleasePolicy) -> Finding | None:
    """Evidence of a phase the policy does not take, however good, is not the evidence asked."""
    if metrics.evidence_phase in policy.allowed_evidence_phases:
        return None
    reason = (
        f"The evidence is of phase {metrics.evidence_phase}, and the policy takes only "
        f"{', '.join(policy.allowed_evidence_phases)}; evaluate for that phase."
    )
    evidence: dict[str, int | float | str | bool | None] = {
        "evidence_phase": metrics.evidence_phase
    }
    return Finding(outcome="insufficient", reason=reason, evidence=evidence)


GATES: dict[str, Gate] = {
    "rm_win_rate": _gate("rm_win_rate", win_rate_gates.rm_win_rate),
    "rm_divergence": _gate("rm_divergence", win_rate_gates.rm_divergence),
    "improvement": _gate("improvement", win_rate_gates.improvement),
    "safety": _gate("safety", regression_gates.safety),
    "benchmarks": _gate("benchmarks", regression_gates.benchmarks),
    "artifacts": _gate("artifacts", regression_gates.artifacts),
    "data": _gate("data", regression_gates.data),
}


def run_gates(metrics: GateMetrics, policy: ReleasePolicy) -> list[Verdict]:
    """Every gate's verdict, in the fixed order."""
    return [gate(metrics, policy) for gate in GATES.values()]


def overall(verdicts: Sequence[Verdict]) -> Outcome:
    """What the gates say together: the gravest outcome.

    A gate that gave no verdict makes it `insufficient` at least. Verdicts that do not belong
    together (two of one gate, an unknown gate, different candidates, documents or policies) are
    refused with `InputDataError`.
    """
    check_belong_together(verdicts)
    outcomes: list[Outcome] = [verdict.outcome for verdict in verdicts]
    if missing_gates(verdicts):
        outcomes.append("insufficient")
    return worst(outcomes)


def missing_gates(verdicts: Sequence[Verdict]) -> list[str]:
    """Gates that gave no verdict."""
    given = {verdict.gate for verdict in verdicts}
    return [name for name in GATES if name not in given]


def check_belong_together(verdicts: Sequence[Verdict]) -> None:
    """One verdict a gate, all on one candidate, parent, document and policy."""
    names = [verdict.gate for verdict in verdicts]
    unknown = sorted(set(names) - set(GATES))
    if unknown:
        raise InputDataError(
            f"verdicts: gate {', '.join(unknown)} is unknown; known are {', '.join(GATES)}"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputDataError(
            f"verdicts: gate {', '.join(repeated)} given twice; keep the newest of each"
        )
    for field in ("candidate", "parent", "metrics_digest", "policy_digest"):
        values = {getattr(verdict, field) for verdict in verdicts}
        if len(values) > 1:
            raise InputDataError(
                f"verdicts: {field} differs between gates ({', '.join(sorted(values))}); "
                "run all gates again on one document and policy"
            )


def require_passing(verdict: Verdict) -> None:
    """Raise `GateBlocked` with the verdict's own sentence where it stops a promotion."""
    if verdict.outcome in BLOCKING:
        raise GateBlocked(f"{verdict.gate}: {verdict.outcome}. {verdict.reason}")
