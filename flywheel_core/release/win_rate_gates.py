"""The three gates that read the win-rate matrix: rm_win_rate, rm_divergence, improvement.

The matrix has one cell per judge and prompt set (paper_notes: "RM user" in the paper names both
the traffic a model was trained on and the prompts; we name both). Gated are the pointwise model
of internal data on internal prompts, that of user data on user prompts, and the pairwise user
model on user prompts where it exists. Before launch there is no user traffic, and the human
comparison takes its place (section 3.1.1): as the second witness, and with no upper limit.

The rules work on `Reading`s, which the replay of the paper's launches shares with the gates; only
the gates ask whether there is enough evidence.
"""

from pydantic import ConfigDict

from flywheel_core.artifacts import Record
from flywheel_core.evaluation.statistics import Interval, difference_of_intervals
from flywheel_core.release.metrics import GateMetrics, PromptSet, RewardModelName, WinRateCell
from flywheel_core.release.policy import (
    DivergenceRule,
    EvidencePhase,
    Rate,
    ReleasePolicy,
    WinRateRule,
)
from flywheel_core.release.verdict import Evidence, Finding, combine, percent, points

CellKey = tuple[RewardModelName, PromptSet]

INTERNAL: CellKey = ("pointwise_internal", "internal")
USER: CellKey = ("pointwise_user", "user")
PAIRWISE_USER: CellKey = ("pairwise_user", "user")
HUMAN: CellKey = ("human", "internal")

GATED: tuple[CellKey, ...] = (INTERNAL, USER, PAIRWISE_USER)
REQUIRED: dict[EvidencePhase, tuple[CellKey, ...]] = {
    "pre_launch": (INTERNAL,),
    "post_launch": (INTERNAL, USER),
}
WITNESSES: dict[EvidencePhase, tuple[CellKey, CellKey]] = {
    "pre_launch": (INTERNAL, HUMAN),
    "post_launch": (INTERNAL, USER),
}
NEUTRAL_RATE = 0.5


class Reading(Record):
    """A win rate as the rules see it; no interval where only a point estimate was published."""

    model_config = ConfigDict(allow_inf_nan=False)

    reward_model: RewardModelName
    prompt_set: PromptSet
    rate: Rate
    interval: Interval | None = None

    @property
    def key(self) -> CellKey:
        return (self.reward_model, self.prompt_set)

    @property
    def label(self) -> str:
        return _label(self.key)

    @property
    def evidence(self) -> Evidence:
        """The rate and its bounds, under the cell's name."""
        name = f"{self.reward_model}_on_{self.prompt_set}"
        found: Evidence = {f"{name}.win_rate": self.rate}
        if self.interval is not None:
            found[f"{name}.lower"] = self.interval.lower
            found[f"{name}.upper"] = self.interval.upper
        return found


def reading_of(cell: WinRateCell) -> Reading:
    """The rate by the counts, with its interval."""
    return Reading(
        reward_model=cell.reward_model,
        prompt_set=cell.prompt_set,
        rate=cell.rate,
        interval=cell.interval,
    )


# --- the gates ------------------------------------------------------------------------------


def rm_win_rate(metrics: GateMetrics, policy: ReleasePolicy) -> Finding:
    """Does any reward model prefer the candidate so much that we doubt the model? (3.1.2)"""
    rule = policy.thresholds.rm_win_rate
    gaps = _missing_evidence(metrics, REQUIRED[metrics.evidence_phase], GATED, rule)
    readings = [reading_of(cell) for cell in metrics.win_rates if cell.reward_model != "human"]
    found = win_rate_finding(readings, rule)
    evidence = {**found.evidence, **_sizes(metrics), "evidence_complete": not gaps}
    return combine([*gaps, found], found.reason, evidence)


def rm_divergence(metrics: GateMetrics, policy: ReleasePolicy) -> Finding:
    """Do the two witnesses that should agree tell different stories? (3.1.2, V12)"""
    keys = WITNESSES[metrics.evidence_phase]
    gaps = _missing_evidence(metrics, keys, keys, policy.thresholds.rm_win_rate)
    first, second = (metrics.cell(*key) for key in keys)
    if first is None or second is None:
        return combine(gaps, "", _sizes(metrics))
    found = divergence_finding(
        reading_of(first), reading_of(second), policy.thresholds.rm_divergence
    )
    return combine([*gaps, found], found.reason, {**found.evidence, **_sizes(metrics)})


def improvement(metrics: GateMetrics, policy: ReleasePolicy) -> Finding:
    """Is the candidate better than production by some gated witness, and worse by none?"""
    required = WITNESSES[metrics.evidence_phase]
    judges = tuple(dict.fromkeys((*required, *GATED)))
    gaps = _missing_evidence(metrics, required, judges, policy.thresholds.rm_win_rate)
    cells = [cell for key in judges if (cell := metrics.cell(*key)) is not None]
    if not cells:
        return combine(gaps, "", {})
    found = improvement_finding([reading_of(cell) for cell in cells])
    return combine([*gaps, found], found.reason, {**found.evidence, **_sizes(metrics)})


# --- the rules ------------------------------------------------------------------------------


def win_rate_finding(readings: list[Reading], rule: WinRateRule) -> Finding:
    """Point estimates against the limits; an interval never relaxes them."""
    findings = [f for reading in readings if (f := _cell_finding(reading, rule)) is not None]
    findings += _pairwise_gaps(readings, rule)
    gated = [reading for reading in readings if reading.key in GATED]
    evidence: Evidence = {
        "block_above_rate": rule.block_above_rate,
        "warn_from_rate": rule.warn_from_rate,
        "target_rate": rule.target_rate,
        "highest_gated_rate": max((reading.rate for reading in gated), default=None),
    }
    for reading in readings:
        evidence.update(reading.evidence)
    if not gated:
        return Finding(
            outcome="insufficient",
            reason="No gated reward model compared the candidate with production.",
            evidence=evidence,
        )
    top = max(gated, key=lambda reading: reading.rate)
    good = (
        f"The highest gated win rate is {percent(top.rate)} ({top.label}), "
        f"below the {percent(rule.warn_from_rate)} where a warning starts."
    )
    return combine(findings, good, evidence)


def _cell_finding(reading: Reading, rule: WinRateRule) -> Finding | None:
    rate, limit = reading.rate, rule.block_above_rate
    says = f"The {reading.label} prefers the candidate in {percent(rate)}"
    if reading.key not in GATED:
        if rate <= limit:
            return None
        return Finding(
            outcome="warn",
            reason=f"{says}, above the {percent(limit)} limit, but this cell is not gated.",
        )
    if rate > limit:
        return Finding(
            outcome="block",
            reason=f"{says}, above the {percent(limit)} limit.",
        )
    if rate >= rule.warn_from_rate:
        return Finding(
            outcome="warn",
            reason=f"{says}, close to the {percent(limit)} limit "
            f"(the target is {percent(rule.target_rate)}).",
        )
    return None


def _pairwise_gaps(readings: list[Reading], rule: WinRateRule) -> list[Finding]:
    """A pairwise model far from its pointwise twin on one prompt set is a witness against it."""
    by_key = {reading.key: reading for reading in readings}
    twins: tuple[tuple[RewardModelName, RewardModelName], ...] = (
        ("pointwise_internal", "pairwise_internal"),
        ("pointwise_user", "pairwise_user"),
    )
    prompt_sets: tuple[PromptSet, ...] = ("internal", "user")
    findings = []
    for pointwise, pairwise in twins:
        for prompt_set in prompt_sets:
            first = by_key.get((pointwise, prompt_set))
            second = by_key.get((pairwise, prompt_set))
            if first is None or second is None:
                continue
            gap = gap_points(first.rate, second.rate)
            if gap > rule.pairwise_gap_warn_points:
                reason = (
                    f"The {first.label} ({percent(first.rate)}) and the pairwise one "
                    f"({percent(second.rate)}) are {points(gap)} apart, more than "
                    f"{points(rule.pairwise_gap_warn_points)}."
                )
                findings.append(Finding(outcome="warn", reason=reason))
    return findings


def divergence_finding(first: Reading, second: Reading, rule: DivergenceRule) -> Finding:
    """Two witnesses: too far apart blocks, and so do intervals on opposite sides of 50 %.

    Without intervals the opposite-sides rule cannot be applied, and a gap above the warning
    level warns by itself.
    """
    gap = gap_points(first.rate, second.rate)
    evidence: Evidence = {
        "gap_points": gap,
        "block_above_points": rule.block_above_points,
        "warn_above_points": rule.warn_above_points,
        **first.evidence,
        **second.evidence,
    }
    both = (
        f"The {first.label} give{_s(first)} the candidate {percent(first.rate)}, "
        f"the {second.label} {percent(second.rate)}"
    )
    proven = True
    if first.interval is not None and second.interval is not None:
        apart = difference_of_intervals(first.interval, second.interval)
        proven = apart.excludes_zero
        evidence["difference_lower_points"] = 100 * apart.lower
        evidence["difference_upper_points"] = 100 * apart.upper
    if gap > rule.block_above_points:
        reason = f"{both}: {points(gap)} apart, more than {points(rule.block_above_points)}."
        return Finding(outcome="block", reason=reason, evidence=evidence)
    if _opposite_sides(first.interval, second.interval):
        reason = f"{both}: their intervals lie on opposite sides of 50 %, so one calls it worse."
        return Finding(outcome="block", reason=reason, evidence=evidence)
    if gap > rule.warn_above_points and proven:
        reason = f"{both}: {points(gap)} apart, more than {points(rule.warn_above_points)}."
        return Finding(outcome="warn", reason=reason, evidence=evidence)
    return Finding(
        outcome="pass", reason=f"{both}: {points(gap)} apart, no divergence.", evidence=evidence
    )


def improvement_finding(readings: list[Reading]) -> Finding:
    """Some lower bound above 50 %, and no upper bound below 50 %."""
    evidence: Evidence = {}
    for reading in readings:
        evidence.update(reading.evidence)
    bounded = [(r, r.interval) for r in readings if r.interval is not None]
    worse = [r for r, interval in bounded if interval.upper < NEUTRAL_RATE]
    better = [r for r, interval in bounded if interval.lower > NEUTRAL_RATE]
    if worse:
        reason = " ".join(
            f"The {r.label} give{_s(r)} the candidate {percent(r.rate)}, and the whole interval "
            "lies below 50 %: it is worse than production."
            for r in worse
        )
        return Finding(outcome="block", reason=reason, evidence=evidence)
    if not better:
        best = max(readings, key=lambda r: r.rate)
        reason = (
            "No gated win rate is shown to be above 50 %: the highest is "
            f"{percent(best.rate)} ({best.label}), and its interval reaches 50 % or less."
        )
        return Finding(outcome="block", reason=reason, evidence=evidence)
    named = ", ".join(f"{r.label} {percent(r.rate)}" for r in better)
    reason = f"Better than production with 95 % confidence by: {named}; worse by none."
    return Finding(outcome="pass", reason=reason, evidence=evidence)


def gap_points(first: float, second: float) -> float:
    """Distance of two rates in percentage points, rounded so that 65 % - 50 % is exactly 15."""
    return round(100 * abs(first - second), 9)


def _opposite_sides(first: Interval | None, second: Interval | None) -> bool:
    if first is None or second is None:
        return False
    low, high = sorted((first, second), key=lambda interval: interval.estimate)
    return low.upper < NEUTRAL_RATE < high.lower


# --- is there enough evidence? --------------------------------------------------------------


def _missing_evidence(
    metrics: GateMetrics,
    required: tuple[CellKey, ...],
    checked: tuple[CellKey, ...],
    rule: WinRateRule,
) -> list[Finding]:
    """Findings for required cells that are absent and for checked cells that are too small."""
    gaps = []
    for key in checked:
        cell = metrics.cell(*key)
        if cell is not None:
            gaps += _small_cell(cell, rule)
        elif key in required:
            reason = (
                f"The comparison by the {_label(key)} is missing, which "
                f"{metrics.evidence_phase.replace('_', '-')} evidence must include; evaluate it."
            )
            gaps.append(Finding(outcome="insufficient", reason=reason))
    return gaps


def _small_cell(cell: WinRateCell, rule: WinRateRule) -> list[Finding]:
    human = cell.reward_model == "human"
    least = rule.min_human_comparisons if human else rule.min_effective_prompts
    label = _label((cell.reward_model, cell.prompt_set))
    gaps = []
    if cell.num_effective_prompts < least:
        reason = (
            f"The comparison by the {label} rests on {cell.num_effective_prompts:,.0f} effective "
            f"prompts, at least {least:,} are needed; evaluate more prompts."
        )
        gaps.append(Finding(outcome="insufficient", reason=reason))
    if cell.unscored_share > rule.max_unscored_share:
        reason = (
            f"{percent(cell.unscored_share)} of the prompts of the {label} have no score, at most "
            f"{percent(rule.max_unscored_share)} may lack one; find out why scoring failed."
        )
        gaps.append(Finding(outcome="insufficient", reason=reason))
    return gaps


def _sizes(metrics: GateMetrics) -> Evidence:
    return {
        f"{cell.reward_model}_on_{cell.prompt_set}.num_effective_prompts": (
            cell.num_effective_prompts
        )
        for cell in metrics.win_rates
    }


def _label(key: CellKey) -> str:
    judge, prompt_set = key
    if judge == "human":
        return f"annotators on {prompt_set} prompts"
    return f"{judge.replace('_', ' ')} model on {prompt_set} prompts"


def _s(reading: Reading) -> str:
    return "" if reading.reward_model == "human" else "s"
