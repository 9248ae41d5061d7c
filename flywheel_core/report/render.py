"""A generation's report as one self-contained HTML page.

No script and no request leave the page: style and charts are inline, and a content security
policy in the page forbids the rest, whatever a model wrote into a conversation.
"""

from flywheel_core.release.gates import GATES, missing_gates, overall
from flywheel_core.release.verdict import BLOCKING, Outcome, percent
from flywheel_core.report import charts
from flywheel_core.report.environment import environment
from flywheel_core.report.ledger_chart import render_ledger
from flywheel_core.report.model import GenerationReport

HEADLINES: dict[Outcome, str] = {
    "pass": "All gates pass",
    "warn": "Releasable, with warnings",
    "insufficient": "Not releasable: evidence is missing",
    "block": "Not releasable: blocked",
}
OUTCOME_WORDS: dict[Outcome, str] = {
    "pass": "pass",
    "warn": "warn",
    "insufficient": "missing",
    "block": "block",
}
FRACTION_SUFFIXES = ("_rate", "_share", ".lower", ".upper")


def render_report(report: GenerationReport) -> str:
    """The page as text; write it as UTF-8."""
    outcome = overall(report.verdicts)
    bands = report.policy.thresholds.artifacts.bands
    templates = environment()
    templates.filters["evidence"] = lambda pair: evidence_text(*pair)
    return templates.get_template("generation.html.jinja").render(
        report=report,
        outcome=outcome,
        headline=HEADLINES[outcome],
        summary=_summary(report),
        stopped=outcome in BLOCKING,
        verdicts=sorted(report.verdicts, key=lambda v: list(GATES).index(v.gate)),
        missing=missing_gates(report.verdicts),
        outcome_words=OUTCOME_WORDS,
        matrix=charts.matrix_chart(report.metrics, report.policy.thresholds.rm_win_rate),
        rule=report.policy.thresholds.rm_win_rate,
        features=[charts.feature_chart(s, bands.get(s.feature)) for s in report.feature_shifts],
        effect=None if report.hidden_effect is None else charts.effect_chart(report.hidden_effect),
        ledger_svg=report.ledger and render_ledger(report.ledger, standalone=False),
        bars=charts.timing_bars(report.timings),
        total_s=charts.duration(sum(timing.wall_s for timing in report.timings)),
    )


def _summary(report: GenerationReport) -> str:
    """One sentence: which gates stop the release, or how many pass."""
    stopping = [verdict.gate for verdict in report.verdicts if verdict.outcome in BLOCKING]
    stopping += missing_gates(report.verdicts)
    if stopping:
        verb = "stops" if len(stopping) == 1 else "stop"
        return f"{', '.join(stopping)} {verb} the release."
    warned = [verdict.gate for verdict in report.verdicts if verdict.outcome == "warn"]
    if warned:
        return f"The release manager should read {', '.join(warned)} first."
    return f"All {len(report.verdicts)} gates pass on the evidence below."


def evidence_text(name: str, value: int | float | str | bool | None) -> str:
    """One number of a verdict's evidence as people read it."""
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if name.endswith(FRACTION_SUFFIXES):
            return percent(value)
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return value
