"""An experiment as one self-contained HTML page: what it shows, whether to believe it, what next.

As a generation's page: no script, no request, style and charts inline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flywheel_core.experiments.config import ExperimentRule
from flywheel_core.experiments.journal import Journal, ended_experiments
from flywheel_core.experiments.lifts import Lift
from flywheel_core.experiments.ramp import Action
from flywheel_core.experiments.readout import DayReadout, MetricReadout, Readout
from flywheel_core.release.ramping import DayRun
from flywheel_core.report.environment import environment
from flywheel_core.report.experiment_charts import (
    LABELS,
    ReleaseLifts,
    day_chart,
    release_charts,
    state_of,
)
from flywheel_core.store import Store

LEFT_OUT_LABELS = {
    "events_unexposed": "events of users who were never exposed",
    "events_before_exposure": "events before their user's first exposure",
    "events_after_window": "events after the last day read",
    "events_skewed": "events up to a minute early, counted at the exposure",
    "events_duplicate": "events that were there already",
    "exposures_before_window": "exposures before the first day",
    "exposures_after_window": "exposures after the last day read",
    "users_in_both_arms": "users who met both arms",
    "bots_control": "programs, in control",
    "bots_test": "programs, in test",
}


@dataclass(frozen=True)
class Check:
    """One line of the banner."""

    state: str
    word: str
    name: str
    said: str


def render_experiment(
    readout: Readout,
    rule: ExperimentRule,
    *,
    releases: Sequence[ReleaseLifts] = (),
    decision: str | None = None,
    since: Action | None = None,
) -> str:
    """The page as text; write it as UTF-8. `rule` is what was read by. `decision` says what was
    done, where something was, and `since` what the days after the last one say while an answer is
    awaited."""
    state, headline = verdict(readout.newest, readout.num_days, read_on=readout.is_watch)
    return (
        environment()
        .get_template("experiment.html.jinja")
        .render(
            readout=readout,
            rule=rule,
            newest=readout.newest,
            state=state,
            headline=headline,
            decision=decision,
            checks=checks(readout, since),
            charts=[
                day_chart(name, readout.days, max(readout.num_days, len(readout.days)))
                for name in LABELS
            ],
            releases=release_charts(releases),
            labels=LABELS,
            state_of=state_of,
            left_out=[
                (LEFT_OUT_LABELS.get(name, name), count)
                for name, count in readout.left_out.items()
                if count
            ],
        )
    )


def verdict(day: DayReadout, num_days: int, *, read_on: bool = False) -> tuple[str, str]:
    """The banner's colour and headline; `read_on` where the window is over."""
    if day.status == "stopped":
        return "block", "Stopped: who is in which arm cannot be trusted"
    if day.status == "insufficient":
        return "insufficient", "Not readable: data are missing"
    if day.losses:
        return "block", f"Roll back: {', '.join(_label(one) for one in day.losses)} got worse"
    if read_on:
        return "unsure", f"Window over: read on to {day.day:%-d %B %Y}"
    if not day.is_last_day:
        return "unsure", f"Running: {progress(day, num_days)}"
    unread = [
        name
        for name, one in {**_primary(day), **day.guardrails}.items()
        if one is None or one.decisive is None
    ]
    if unread:  # no lift is no evidence: neither flat nor held
        return "insufficient", f"Not readable: {', '.join(_label(one) for one in unread)}"
    moves = [one.direction for one in _primary(day).values() if one is not None]
    if -1 in moves:
        return "block", "Engagement fell"
    if 1 in moves:
        return "pass", "Engagement rose"
    return "warn", "No change was shown"


def progress(day: DayReadout, num_days: int) -> str:
    """How far a running experiment is."""
    return f"read to {day.day:%-d %B %Y}, of {num_days} days"


def _primary(day: DayReadout) -> dict[str, MetricReadout | None]:
    return {name: day.metrics.get(name) for name in ("breadth", "depth")}


def _label(name: str) -> str:
    return LABELS[name].lower() if name in LABELS else name


def checks(readout: Readout, since: Action | None = None) -> list[Check]:
    """What must hold before a lift is believed, and every guardrail."""
    day = readout.newest
    found = [_window_check(readout)]
    if since is not None:
        state, word = ("pass", "held") if since.kind == "continue" else ("insufficient", "missing")
        found.append(Check(state, word, "days since", since.reason))
    if day.sample_ratio is not None:
        ratio = day.sample_ratio
        said = (
            f"{ratio.num_test:,} test and {ratio.num_control:,} control users, "
            f"{100 * ratio.expected_test_share:.3g} % expected in test, p = {ratio.p_value:.2g}"
        )
        bad = ratio.stops_the_read
        found.append(
            Check("block" if bad else "pass", "stop" if bad else "fine", "sample ratio", said)
        )
    if day.status != "ok":
        return found
    return found + [_guard_check(one) for one in day.guardrails.values()]


def _window_check(readout: Readout) -> Check:
    day = readout.newest
    if day.status != "ok":
        return Check(
            "insufficient" if day.status == "insufficient" else "block",
            day.status,
            "days",
            day.reason,
        )
    number = (day.day - readout.first_day).days + 1
    if readout.is_watch:
        return Check(
            "unsure",
            "read on",
            "days",
            f"day {number}, after a window of {readout.num_days}; only the intervals that may be "
            "read daily count, and only for guardrails",
        )
    if day.is_last_day:
        return Check("pass", "complete", "days", f"all {readout.num_days} days are read")
    return Check(
        "unsure",
        "running",
        "days",
        f"day {number} of {readout.num_days}; only the intervals that may be read daily count yet",
    )


def _guard_check(read: MetricReadout) -> Check:
    name = _label(read.name)
    if read.decisive is None:
        return Check("insufficient", "missing", name, f"not readable: {read.unreadable}")
    bad = "a rise" if read.harm == "up" else "a fall"
    said = f"{read.decisive.text()}; {bad} is a loss"
    if read.loss:
        return Check("block", "lost", name, said)
    return Check("pass", "held", name, said)


def experiment_page(reports: Path, flywheel: str, experiment_id: str) -> Path:
    """Where an experiment's page lies: each has its own, so that an old one can still be read."""
    return reports / f"{flywheel}-experiment-{experiment_id}.html"


def write_experiment_page(store: Store, flywheel: str, run: DayRun, path: Path) -> Path:
    """Write the page of a day's run, with every experiment that ended beside it."""
    if run.readout is None:
        raise ValueError(f"day {run.day}: nothing was read, so there is no page")
    releases = [
        ReleaseLifts(label=name, breadth=_lift(read, "breadth"), depth=_lift(read, "depth"))
        for name, read in ended_experiments(store, flywheel)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    rule = Journal(store, flywheel, run.experiment_id).state().rule
    page = render_experiment(
        run.readout, rule, releases=releases, decision=run.said, since=run.since
    )
    path.write_text(page, encoding="utf-8")
    return path


def _lift(read: DayReadout, name: str) -> Lift | None:
    found = read.metrics.get(name)
    return found.decisive if found else None
