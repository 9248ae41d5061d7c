"""A readout in a terminal."""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.table import Table

from flywheel_core.evaluation.statistics import Interval
from flywheel_core.experiments.readout import MetricReadout, Readout


def show_readout(readout: Readout, console: Console) -> None:
    """The newest day: what may be quoted, the lifts, and what was left out."""
    newest = readout.newest
    console.print(readout.sentence, highlight=False)
    if newest.sample_ratio is not None:
        ratio = newest.sample_ratio
        console.print(
            f"{ratio.num_test:,} test and {ratio.num_control:,} control users, sample ratio "
            f"p = {ratio.p_value:.3g}",
            highlight=False,
        )
    if newest.metrics:
        console.print(_lifts(readout), highlight=False)
    for line in _asked_for(newest.metrics.values()):
        console.print(line, highlight=False)
    left_out = [f"{name} {count:,}" for name, count in readout.left_out.items() if count]
    if left_out:
        console.print("not counted, or counted apart: " + ", ".join(left_out), highlight=False)
    for note in readout.notes:
        console.print(note, highlight=False)


def _asked_for(metrics: Iterable[MetricReadout]) -> Iterator[str]:
    """The intervals that are there on request only."""
    for read in metrics:
        if read.delta:
            yield f"{read.name}, delta method: {_text(read.delta)}"
        if read.bootstrap:
            yield f"{read.name}, bootstrap: {_text(read.bootstrap)}"
        elif read.bootstrap_undefined:
            yield f"{read.name}, bootstrap {read.bootstrap_undefined}"


def _text(interval: Interval) -> str:
    return f"{interval.estimate:+.2f} % ({interval.lower:+.2f} to {interval.upper:+.2f})"


def _lifts(readout: Readout) -> Table:
    newest = readout.newest
    table = Table("metric", "test", "control", "lift", "may be read daily", "detectable", box=None)
    others = [one for name, one in newest.guardrails.items() if name not in newest.metrics]
    for read in [*newest.metrics.values(), *others]:
        table.add_row(*_row(read))
    return table


def _row(read: MetricReadout) -> tuple[str, ...]:
    name = f"{read.name} (guardrail)" if read.harm else read.name
    if read.lift is None or read.always_valid is None or not (read.test and read.control):
        return name, "", "", f"not readable: {read.unreadable}", "", ""
    least = read.minimum_detectable_lift_pct
    return (
        name,
        f"{read.test.mean:.5g}",
        f"{read.control.mean:.5g}",
        read.lift.text() + (" peeking" if read.peeking else ""),
        read.always_valid.text(),
        "" if least is None else f"{least:.2g} %",
    )
