"""Geometry of an experiment's charts: lifts in, coordinates out; the template draws them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flywheel_core.artifacts import Record
from flywheel_core.experiments.lifts import Lift
from flywheel_core.experiments.readout import DayReadout
from flywheel_core.report.charts import Mark, Scale

LABELS = {
    "breadth": "Engagement breadth",
    "depth": "Engagement depth",
    "depth_per_assigned_user": "Depth per assigned user",
}
MAX_TICKS = 6
LABEL_WIDTH = 28.0
"""What a day's label takes beside one with its month."""


@dataclass(frozen=True)
class Whisker:
    """One interval: where it is drawn, cut to the chart where it is wider, and what it says."""

    y_lower: float
    y_upper: float
    state: str
    text: str


@dataclass(frozen=True)
class LiftMark:
    """One day or release: the estimate with one or two intervals around it."""

    x: float
    y: float | None
    label: str
    text: str
    state: str
    peeking: bool
    fixed: Whisker | None
    always_valid: Whisker | None
    missing: str = ""


@dataclass(frozen=True)
class LiftChart:
    """Lifts over days or releases, y in percent."""

    label: str
    width: float
    height: float
    left: float
    top: float
    bottom: float
    zero: float
    ticks: tuple[Mark, ...]
    marks: tuple[LiftMark, ...]


class ReleaseLifts(Record):
    """One past release, as its experiment ended (the paper's Figure 8, top panel)."""

    label: str
    breadth: Lift | None
    depth: Lift | None


def state_of(lift: Lift | None, harm: str | None = None) -> str:
    """The colour: green for a significant gain, red for a loss, grey for neither."""
    if lift is None or lift.direction == 0:
        return "unsure"
    good = -1 if harm == "up" else 1
    return "pass" if lift.direction == good else "block"


def day_chart(name: str, days: Sequence[DayReadout], num_days: int) -> LiftChart:
    """A metric's lift at the end of each day, with the interval that may be read daily and the
    one of the fixed horizon."""
    reads = [day.metrics.get(name) for day in days]
    lifts = [one for read in reads if read for one in (read.lift, read.always_valid) if one]
    scale = _scale(lifts, 196.0, 22.0, cut=True)
    width, left, right = 320.0, 48.0, 8.0
    step = (width - left - right) / max(1, num_days)
    marks = []
    for index, (day, read) in enumerate(zip(days, reads, strict=True)):
        lift = read.lift if read else None
        valid = read.always_valid if read else None
        decisive = read.decisive if read else None
        marks.append(
            LiftMark(
                x=round(left + step * (index + 0.5), 2),
                y=_height(scale, lift),
                label=_day_label(day, index, num_days, is_crowded=step < LABEL_WIDTH),
                text=lift.text() if lift else day.reason,
                state=state_of(decisive),
                peeking=bool(read and read.peeking),
                fixed=_whisker(scale, lift),
                always_valid=_whisker(scale, valid),
                missing="" if lift else ((read.unreadable if read else day.reason) or "no data"),
            )
        )
    return LiftChart(
        label=LABELS.get(name, name),
        width=width,
        height=222.0,
        left=left,
        top=22.0,
        bottom=196.0,
        zero=scale(0.0),
        ticks=_ticks(scale),
        marks=tuple(marks),
    )


def _day_label(day: DayReadout, index: int, num_days: int, *, is_crowded: bool) -> str:
    """The first and the last day with their month; of many days between only the result's."""
    if index in (0, num_days - 1):
        return f"{day.day:%-d %b}"
    return "" if is_crowded and not day.is_last_day else f"{day.day:%-d}"


def release_charts(releases: Sequence[ReleaseLifts]) -> tuple[LiftChart, ...]:
    """Breadth and depth over releases, coloured by significance (Figure 8, top panel)."""
    return tuple(
        _release_chart(name, releases, [getattr(one, name) for one in releases])
        for name in ("breadth", "depth")
        if any(getattr(one, name) for one in releases)
    )


def _release_chart(
    name: str, releases: Sequence[ReleaseLifts], lifts: Sequence[Lift | None]
) -> LiftChart:
    width, left, right, bottom = 484.0, 52.0, 8.0, 176.0
    scale = _scale([one for one in lifts if one], bottom, 22.0)
    step = (width - left - right) / len(releases)
    return LiftChart(
        label=LABELS[name],
        width=width,
        height=204.0,
        left=left,
        top=22.0,
        bottom=bottom,
        zero=scale(0.0),
        ticks=_ticks(scale),
        marks=tuple(
            LiftMark(
                x=round(left + step * (index + 0.5), 2),
                y=_height(scale, lift),
                label=release.label,
                text=lift.text() if lift else "not read",
                state=state_of(lift),
                peeking=False,
                fixed=_whisker(scale, lift),
                always_valid=None,
                missing="" if lift else "not read",
            )
            for index, (release, lift) in enumerate(zip(releases, lifts, strict=True))
        ),
    )


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _scale(lifts: Sequence[Lift], bottom: float, top: float, *, cut: bool = False) -> Scale:
    """From a round number to a round number, 0 and the bounded intervals between them. `cut` leaves
    the widest bounds outside: a first day's interval may be tenfold the last one's."""
    bounds = sorted(
        abs(one)
        for lift in lifts
        for one in _finite(
            (lift.estimate_pct, lift.lower_pct, lift.upper_pct)
            if lift.kind == "bounded"
            else (lift.estimate_pct,)
        )
    )
    reach = bounds[min(len(bounds) - 1, int((0.93 if cut else 1) * len(bounds)))] if bounds else 1.0
    lowest = min([0.0, *_finite(lift.lower_pct for lift in lifts if lift.kind == "bounded")])
    highest = max([0.0, *_finite(lift.upper_pct for lift in lifts if lift.kind == "bounded")])
    step = _step(2 * reach)
    low = max(lowest, -reach) if lowest < 0 else 0.0
    high = min(highest, reach) if highest > 0 else 0.0
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    if low == high:
        low, high = -step, step
    return Scale(low, high, bottom, top)


def _step(span: float) -> float:
    """A round distance between ticks, at most `MAX_TICKS` of them over `span`."""
    if span <= 0:
        return 1.0
    rough = span / MAX_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(one * power for one in (1, 2, 2.5, 5, 10) if one * power >= rough)


def _ticks(scale: Scale) -> tuple[Mark, ...]:
    step = _step(scale.high - scale.low)
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return tuple(
        Mark(scale(number * step), f"{number * step:+g} %" if number else "0")
        for number in range(first, last + 1)
    )


def _height(scale: Scale, lift: Lift | None) -> float | None:
    return None if lift is None or lift.estimate_pct is None else scale(lift.estimate_pct)


def _whisker(scale: Scale, lift: Lift | None) -> Whisker | None:
    """An unbounded set is drawn over the whole height: it excludes little or nothing; an empty one
    is not drawn."""
    if lift is None or lift.kind == "empty":
        return None
    bounded = lift.kind == "bounded"
    low = lift.lower_pct if bounded and lift.lower_pct is not None else scale.low
    high = lift.upper_pct if bounded and lift.upper_pct is not None else scale.high
    return Whisker(y_lower=scale(low), y_upper=scale(high), state=state_of(lift), text=lift.text())
