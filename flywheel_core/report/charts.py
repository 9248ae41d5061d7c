"""Geometry of the report's charts: numbers in, coordinates out; the template draws them.

Coordinates are SVG user units, y downwards. Nothing here knows about colours or text style.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flywheel_core.release.metrics import GateMetrics, PromptSet, RewardModelName, WinRateCell
from flywheel_core.release.policy import ArtifactBand, WinRateRule
from flywheel_core.release.regression_gates import band_limits
from flywheel_core.release.win_rate_gates import GATED, NEUTRAL_RATE
from flywheel_core.report.model import FeatureShift, HiddenEffect, StageTiming

JUDGES: tuple[tuple[RewardModelName, str], ...] = (
    ("pointwise_internal", "pointwise, internal data"),
    ("pointwise_user", "pointwise, user data"),
    ("pairwise_internal", "pairwise, internal data"),
    ("pairwise_user", "pairwise, user data"),
    ("human", "annotators"),
)
PROMPT_SETS: tuple[PromptSet, ...] = ("internal", "user")
STAGE_LABELS = {"production": "prod.", "sft": "SFT", "dpo": "DPO", "rl": "RL"}


@dataclass(frozen=True)
class Scale:
    """A linear map from values to coordinates, clamped to the drawn range."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


@dataclass(frozen=True)
class Mark:
    """A tick, a grid line or a limit: where it is and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class CellMark:
    """One measured cell of the matrix.

    `state` colours it: warn and block by the limits and where it is worse than production, pass
    where it is better with 95 % confidence, unsure between.
    """

    x: float
    x_lower: float
    x_upper: float
    state: str
    text_x: float
    gated: bool
    text: str
    interval: str
    size: str


@dataclass(frozen=True)
class JudgeRow:
    """One judge's row over both prompt sets; None where it was not measured."""

    y: float
    label: str
    cells: tuple[CellMark | None, ...]


@dataclass(frozen=True)
class MatrixChart:
    """The win-rate matrix: two panels (prompt sets) of equal scale, one row a judge."""

    width: float
    height: float
    panel_lefts: tuple[float, ...]
    panel_width: float
    top: float
    bottom: float
    rows: tuple[JudgeRow, ...]
    ticks: tuple[Mark, ...]
    neutral: float
    target: float
    warn: float
    block: float


def matrix_chart(metrics: GateMetrics, rule: WinRateRule) -> MatrixChart | None:
    """The matrix, or None where nothing was compared; x is relative to each panel's left."""
    judges = [(name, label) for name, label in JUDGES if _cells_of(metrics, name)]
    if not judges:
        return None
    label_width, panel_width, gap, top, row_height = 176.0, 366.0, 44.0, 58.0, 62.0
    scale = _rate_scale(metrics.win_rates, rule, panel_width)
    rows = tuple(
        JudgeRow(
            y=top + row_height * (index + 0.5),
            label=label,
            cells=tuple(_cell_mark(metrics.cell(name, s), rule, scale) for s in PROMPT_SETS),
        )
        for index, (name, label) in enumerate(judges)
    )
    bottom = top + row_height * len(rows)
    return MatrixChart(
        width=label_width + 2 * panel_width + gap + 18,
        height=bottom + 30,
        panel_lefts=(label_width, label_width + panel_width + gap),
        panel_width=panel_width,
        top=top,
        bottom=bottom,
        rows=rows,
        ticks=tuple(
            Mark(scale(tick / 100), f"{tick} %")
            for tick in range(10 * round(scale.low * 10), round(scale.high * 100) + 1, 10)
        ),
        neutral=scale(0.5),
        target=scale(rule.target_rate),
        warn=scale(rule.warn_from_rate),
        block=scale(rule.block_above_rate),
    )


def _cells_of(metrics: GateMetrics, name: RewardModelName) -> list[WinRateCell]:
    return [cell for cell in metrics.win_rates if cell.reward_model == name]


def _rate_scale(cells: Sequence[WinRateCell], rule: WinRateRule, width: float) -> Scale:
    """Tens that hold every interval, and at least 40 % to a little above the limit."""
    low = min([0.40, *(cell.interval.lower for cell in cells)])
    high = max([rule.block_above_rate + 0.02, *(cell.interval.upper for cell in cells)])
    return Scale(int(low * 10) / 10, -int(-high * 10 // 1) / 10, 0.0, width)


def _cell_mark(cell: WinRateCell | None, rule: WinRateRule, scale: Scale) -> CellMark | None:
    if cell is None:
        return None
    interval = cell.interval
    gated = (cell.reward_model, cell.prompt_set) in GATED
    size = f"n = {cell.num_prompts:,}"
    if round(cell.num_effective_prompts) != cell.num_prompts:
        size += f", effective {cell.num_effective_prompts:,.0f}"
    return CellMark(
        x=scale(cell.rate),
        text_x=min(max(scale(cell.rate), 74.0), scale.end - 74.0),
        x_lower=scale(interval.lower),
        x_upper=scale(interval.upper),
        state=_cell_state(cell, gated, rule),
        gated=gated,
        text=f"{100 * cell.rate:.1f} %",
        interval=f"{100 * interval.lower:.1f} to {100 * interval.upper:.1f}",
        size=size,
    )


def _cell_state(cell: WinRateCell, gated: bool, rule: WinRateRule) -> str:
    """People have no upper limit; a cell that is not gated warns instead of blocking."""
    over = "block" if gated else "warn"
    if cell.interval.upper < NEUTRAL_RATE:
        return over
    if cell.reward_model != "human" and cell.rate > rule.block_above_rate:
        return over
    if gated and cell.rate >= rule.warn_from_rate:
        return "warn"
    return "pass" if cell.interval.lower > NEUTRAL_RATE else "unsure"


@dataclass(frozen=True)
class FeatureMark:
    """One stage of a small multiple."""

    x: float
    y: float
    y_lower: float | None
    y_upper: float | None
    label: str
    text: str


@dataclass(frozen=True)
class FeatureChart:
    """One small multiple: a feature over the training stages with its allowed band."""

    label: str
    width: float
    height: float
    marks: tuple[FeatureMark, ...]
    path: str
    band_top: float | None
    band_bottom: float | None
    baseline: float
    change: str
    outside: bool


def feature_chart(shift: FeatureShift, band: ArtifactBand | None) -> FeatureChart:
    """The feature's path from production to the candidate, and whether it ends in its band."""
    width, height, left, right, top, bottom = 232.0, 138.0, 26.0, 26.0, 26.0, 104.0
    first, last = shift.stages[0].mean, shift.stages[-1].mean
    limits = band_limits(band, first) if band is not None else None
    scale = _feature_scale(shift, limits, bottom, top)
    step = (width - left - right) / max(1, len(shift.stages) - 1)
    marks = tuple(
        FeatureMark(
            x=left + index * step,
            y=scale(stage.mean),
            y_lower=None if stage.lower is None else scale(stage.lower),
            y_upper=None if stage.upper is None else scale(stage.upper),
            label=STAGE_LABELS[stage.stage],
            text=feature_value(stage.mean, shift.unit),
        )
        for index, stage in enumerate(shift.stages)
    )
    low, high = limits if limits is not None else (None, None)
    outside = limits is not None and (
        last < limits[0] or (limits[1] is not None and last > limits[1])
    )
    return FeatureChart(
        label=shift.label,
        width=width,
        height=height,
        marks=marks,
        path=" ".join(f"{mark.x:g},{mark.y:g}" for mark in marks),
        band_top=None if limits is None else (top if high is None else scale(high)),
        band_bottom=None if low is None else scale(low),
        baseline=bottom,
        change=_change(first, last, shift.unit),
        outside=outside,
    )


def _feature_scale(
    shift: FeatureShift, limits: tuple[float, float | None] | None, bottom: float, top: float
) -> Scale:
    """From zero to a little above the highest mean, interval or limit."""
    highest = [stage.mean for stage in shift.stages]
    highest += [stage.upper for stage in shift.stages if stage.upper is not None]
    if limits is not None and limits[1] is not None:
        highest.append(limits[1])
    return Scale(0.0, 1.08 * max([*highest, 1e-9]), bottom, top)


def feature_value(value: float, unit: str) -> str:
    """A feature's mean as people read it."""
    if unit == "share":
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if unit == "count" else f"{value:.1f}"


def _change(first: float, last: float, unit: str) -> str:
    difference = last - first
    if unit == "share":
        return f"{100 * difference:+.1f} points"
    if first == 0:
        return f"{difference:+.2f}"
    return f"{100 * difference / first:+.0f} %"


@dataclass(frozen=True)
class Bar:
    """One stage's wall time as a share of the longest, in 0..1."""

    label: str
    share: float
    text: str
    reused: bool


def timing_bars(timings: Sequence[StageTiming]) -> tuple[Bar, ...]:
    """Bars in the order given; a reused stage took no time in this run."""
    longest = max((timing.wall_s for timing in timings), default=0.0) or 1.0
    return tuple(
        Bar(
            label=timing.stage,
            share=timing.wall_s / longest,
            text="reused" if timing.reused else duration(timing.wall_s),
            reused=timing.reused,
        )
        for timing in timings
    )


def duration(seconds: float) -> str:
    """Wall time as people read it: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(frozen=True)
class EffectChart:
    """The hidden effect's difference on a line with zero."""

    width: float
    height: float
    zero: float
    x: float
    x_lower: float
    x_upper: float
    state: str


def effect_chart(effect: HiddenEffect) -> EffectChart:
    """Difference with its interval; green above zero, red below, grey where it includes zero."""
    difference = effect.difference
    reach = 1.25 * max(abs(difference.lower), abs(difference.upper), 1e-9)
    width = 420.0
    scale = Scale(-reach, reach, 0.0, width)
    state = "unsure"
    if difference.excludes_zero:
        state = "pass" if difference.lower > 0 else "block"
    return EffectChart(
        width=width,
        height=46.0,
        zero=scale(0.0),
        x=scale(difference.estimate),
        x_lower=scale(difference.lower),
        x_upper=scale(difference.upper),
        state=state,
    )
