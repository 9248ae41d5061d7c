"""The sentence a manager may quote: complete in itself, and never more than the data say."""

import datetime

from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.readout import DayReadout, MetricReadout

WORDS = {"breadth": "engagement breadth", "depth": "engagement depth"}


def quotable(read: DayReadout, first: datetime.date, config: ReadoutConfig) -> str:
    """One or two sentences about the newest day."""
    span = f"From {first} to {read.day}"
    if read.status != "ok":
        return f"{span} the experiment cannot be read: {read.reason}."
    users = read.sample_ratio
    assert users is not None  # a day that is ok has one
    said = [_of(read.metrics[name], words, config) for name, words in WORDS.items()]
    people = f"{users.num_test + users.num_control - sum(read.num_bots.values()):,} users"
    begun = f"{span} ({people}), {'; '.join(said)}."
    if read.losses:
        begun += f" A guardrail was lost: {', '.join(read.losses).replace('_', ' ')}."
    if (read.day - first).days >= config.num_days:
        begun += (
            f" The window of {config.num_days} days is over, and its last day is the result; this "
            "is read on for harm, by the intervals that may be read daily."
        )
    elif not read.is_last_day:
        begun += (
            f" The experiment runs to day {config.num_days}: the intervals are those that may be "
            "read daily, and the result is not final."
        )
    return begun


def _of(read: MetricReadout, words: str, config: ReadoutConfig) -> str:
    lift = read.decisive
    if lift is None:
        return f"{words} could not be read ({read.unreadable})"
    level = f"{100 * (1 - config.alpha):g} %"
    if read.direction:
        verb = "rose" if read.direction > 0 else "fell"
        return f"{words} {verb}: {lift.text()}, {level} interval"
    flat = f"no change of {words} was shown: {lift.text()}, {level} interval"
    if read.minimum_detectable_lift_pct is None:
        return flat
    least = f"{read.minimum_detectable_lift_pct:.2g} %"
    return (
        f"{flat}; a true change of {least} would have been found with "
        f"{100 * config.target_power:g} % probability"
    )
