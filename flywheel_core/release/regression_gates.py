"""The gates that guard what must not get worse: safety, benchmarks, artifacts, data.

All compare with the production model, not with the base model (paper_notes: the base would block
V7). Differences are in percentage points, rounded to 1e-9 so that a limit means what it says.
"""

from flywheel_core.evaluation.statistics import proportion_difference
from flywheel_core.release.metrics import BenchmarkScore, GateMetrics, SafetyCounts
from flywheel_core.release.policy import (
    ArtifactBand,
    BenchmarkRule,
    ReleasePolicy,
    SafetyRule,
)
from flywheel_core.release.verdict import Evidence, Finding, combine, percent, points


def safety(metrics: GateMetrics, policy: ReleasePolicy) -> Finding:
    """Violation rate not worse than production by more than the limit, at the upper bound.

    Fails closed: no suite, too few responses or an unscored response never helps a candidate.
    """
    rule = policy.thresholds.safety
    findings = [_suite_finding(suite, rule) for suite in metrics.safety]
    measured = {suite.suite for suite in metrics.safety}
    findings += _absent("safety suite", rule.required_suites, measured)
    if not metrics.safety:
        findings.append(_insufficient("Safety was not measured; run the safety evaluation."))
    uppers = [
        float(value)
        for finding in findings
        for name, value in finding.evidence.items()
        if name.endswith(".worse_upper_points") and value is not None
    ]
    good = (
        f"No suite's violation rate is worse than production's by more than "
        f"{points(rule.max_worse_points)}; the highest upper bound is "
        f"{points(max(uppers, default=0.0))}."
    )
    return combine(findings, good, {"max_worse_points": rule.max_worse_points})


def _suite_finding(suite: SafetyCounts, rule: SafetyRule) -> Finding:
    counted = suite.candidate_violations + suite.candidate_unscored
    worse = proportion_difference(
        counted,
        suite.num_candidate_responses,
        suite.production_violations,
        suite.num_production_responses,
    )
    upper = round(100 * worse.upper, 9)
    smallest = min(suite.num_candidate_responses, suite.num_production_responses)
    evidence: Evidence = {
        f"{suite.suite}.candidate_violation_rate": counted / suite.num_candidate_responses,
        f"{suite.suite}.production_violation_rate": (
            suite.production_violations / suite.num_production_responses
        ),
        f"{suite.suite}.worse_points": round(100 * worse.estimate, 9),
        f"{suite.suite}.worse_upper_points": upper,
        f"{suite.suite}.num_responses": smallest,
    }
    rates = (
        f"On suite {suite.suite} the candidate violates in "
        f"{percent(counted / suite.num_candidate_responses)}, production in "
        f"{percent(suite.production_violations / suite.num_production_responses)}"
    )
    if round(100 * worse.estimate, 9) > rule.max_worse_points:
        reason = f"{rates}: worse by more than {points(rule.max_worse_points)}."
        return Finding(outcome="block", reason=reason, evidence=evidence)
    if smallest < rule.min_responses:
        reason = (
            f"Suite {suite.suite} rests on {smallest:,} responses, at least "
            f"{rule.min_responses:,} are needed; evaluate more."
        )
        return Finding(outcome="insufficient", reason=reason, evidence=evidence)
    if upper > rule.max_worse_points:
        reason = (
            f"{rates}: it may be worse by up to {points(upper)} (upper bound), and only "
            f"{points(rule.max_worse_points)} are allowed."
        )
        return Finding(outcome="block", reason=reason, evidence=evidence)
    return Finding(outcome="pass", reason=rates, evidence=evidence)


def benchmarks(metrics: GateMetrics, policy: ReleasePolicy) -> Finding:
    """No benchmark below production by more than its tolerance (point estimate; Table 5)."""
    rule = policy.thresholds.benchmarks
    findings = [_benchmark_finding(score, rule) for score in metrics.benchmarks]
    measured = {score.name for score in metrics.benchmarks}
    findings += _absent("benchmark", rule.required, measured)
    if not metrics.benchmarks:
        findings.append(_insufficient("No benchmark was run; run the benchmark evaluation."))
    good = f"None of {len(measured)} benchmarks fell below production by more than its tolerance."
    return combine(findings, good, {})


def _benchmark_finding(score: BenchmarkScore, rule: BenchmarkRule) -> Finding:
    tolerance = rule.tolerance_of(score.name)
    fall = round(100 * (score.production - score.candidate), 9)
    evidence: Evidence = {
        f"{score.name}.candidate": score.candidate,
        f"{score.name}.production": score.production,
        f"{score.name}.fall_points": fall,
        f"{score.name}.tolerance_points": tolerance,
        f"{score.name}.num_items": score.num_items,
    }
    reason = (
        f"{score.name} went from {percent(score.production)} to {percent(score.candidate)}"
        f" ({points(tolerance)} are tolerated)."
    )
    return Finding(
        outcome="block" if fall > tolerance else "pass", reason=reason, evidence=evidence
    )


def artifacts(metrics: GateMetrics, policy: ReleasePolicy) -> Finding:
    """Length, lists, emoji and phrases within their bands: where reward hacking shows first."""
    rule = policy.thresholds.artifacts
    found = metrics.artifacts
    if found is None:
        return _insufficient("Style features were not measured; run the feature evaluation.")
    findings = []
    if found.num_responses < rule.min_responses:
        findings.append(
            _insufficient(
                f"Style features rest on {found.num_responses:,} responses, at least "
                f"{rule.min_responses:,} are needed; evaluate more."
            )
        )
    for name, band in rule.bands.items():
        candidate, production = found.candidate.get(name), found.production.get(name)
        if candidate is not None and production is not None:
            findings.append(_band_finding(name, band, candidate, production))
        elif band.required or candidate is not None or production is not None:
            findings.append(
                _insufficient(f"Style feature {name} was not measured on both; measure it.")
            )
    good = f"All {len(findings)} measured style features lie within their bands."
    return combine(findings, good, {"num_responses": found.num_responses})


def _band_finding(name: str, band: ArtifactBand, candidate: float, production: float) -> Finding:
    low, high = band_limits(band, production)
    inside = round(candidate - low, 9) >= 0 and (high is None or round(candidate - high, 9) <= 0)
    limits = [f"at least {low:.3g}"] if low > 0 or high is None else []
    limits += [] if high is None else [f"at most {high:.3g}"]
    return Finding(
        outcome="pass" if inside else "block",
        reason=f"{name} went from {production:.3g} to {candidate:.3g}; "
        f"{' and '.join(limits)} is allowed.",
        evidence={
            f"{name}.candidate": candidate,
            f"{name}.production": production,
            f"{name}.lowest": low,
            f"{name}.highest": high,
        },
    )


def band_limits(band: ArtifactBand, production: float) -> tuple[float, float | None]:
    """Lowest and highest allowed mean, in the feature's unit; of two upper limits the lower."""
    low = 0.0 if band.min_ratio is None else band.min_ratio * production
    highs = []
    if band.max_ratio is not None:
        highs.append(band.max_ratio * production)
    if band.max_rise is not None:
        highs.append(production + band.max_rise)
    return low, min(highs, default=None)


def data(metrics: GateMetrics, policy: ReleasePolicy) -> Finding:
    """Disjoint training and evaluation, disjoint prompt sets, enough near-policy prompts; and
    nothing that a study made."""
    if metrics.unfit_for_release:
        return _studied(metrics.unfit_for_release)
    found = metrics.data
    if found is None:
        return _insufficient("The data's make-up was not recorded; run the data checks.")
    least = policy.thresholds.data.min_near_policy_share
    share = found.near_policy_share
    evidence: Evidence = {
        "train_eval_overlap_count": found.train_eval_overlap_count,
        "prompt_set_overlap_count": found.prompt_set_overlap_count,
        "near_policy_share": share,
        "min_near_policy_share": least,
        "num_train_rows": found.num_train_rows,
        "num_eval_prompts": found.num_eval_prompts,
    }
    findings = [
        *_overlap("evaluation prompts occur in the training data", found.train_eval_overlap_count),
        *_overlap(
            "prompts are shared by the sets that stop, select and gate",
            found.prompt_set_overlap_count,
        ),
    ]
    if share is None and metrics.evidence_phase == "post_launch":
        findings.append(_insufficient("The near-policy share was not recorded; record it."))
    if share is not None and share < least:
        findings.append(
            _insufficient(
                f"Only {percent(share)} of the training prompts are near-policy, at least "
                f"{percent(least)} are needed; wait for production's own traffic."
            )
        )
    near = "no user traffic yet" if share is None else f"{percent(share)} near-policy prompts"
    good = f"Training, evaluation and the three prompt sets are disjoint; {near}."
    return combine(findings, good, evidence)


def _studied(marks: tuple[str, ...]) -> Finding:
    reason = (
        f"The candidate comes from {', '.join(marks)}: what a study makes is never released; run "
        "a climb without the recipe's study section."
    )
    return Finding(outcome="block", reason=reason, evidence={"unfit_for_release": ", ".join(marks)})


def _overlap(what: str, count: int | None) -> list[Finding]:
    if count is None:
        return [_insufficient(f"Whether {what} was not checked; check it.")]
    if count > 0:
        reason = f"{count:,} {what}, which must be none; rebuild the split."
        return [Finding(outcome="block", reason=reason)]
    return []


def _absent(kind: str, required: tuple[str, ...], measured: set[str]) -> list[Finding]:
    missing = [name for name in required if name not in measured]
    return [
        _insufficient(f"The {kind} {name}, which the policy requires, was not run; run it.")
        for name in missing
    ]


def _insufficient(reason: str) -> Finding:
    return Finding(outcome="insufficient", reason=reason)
