"""From two logs to a readout."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from flywheel_core.errors import ConfigError
from flywheel_core.experiments.aggregate import (
    Aggregator,
    Log,
    aggregate,
    first_exposure_us,
    open_log,
)
from flywheel_core.experiments.config import COVARIATES, ReadoutConfig
from flywheel_core.experiments.days import EPOCH, read_sums
from flywheel_core.experiments.logs import DAY_US, MICROSECONDS
from flywheel_core.experiments.readout import Readout
from flywheel_core.experiments.users import Window


def analyze(
    exposures: Path,
    events: Path,
    config: ReadoutConfig,
    *,
    experiment_id: str | None = None,
    notes: Sequence[str] = (),
    aggregator: Aggregator = aggregate,
) -> Readout:
    """Read the logs to the end of the newest day, cumulatively, and say what each day says;
    `notes` is what the caller knows of the logs."""
    guardrails = [one.column for one in config.guardrails]
    logs = open_log("exposures", exposures), open_log("events", events, guardrails)
    window = window_of(logs[0], logs[1], config)
    sums = aggregator(*logs, window)
    said = [
        f"{log.name}: column {name!r} is not known and was not read"
        for log in logs
        for name in log.ignored
    ]
    if logs[1].event_id is None:
        said.append("events: no column event_id, so events that were logged twice count twice")
    return read_sums(sums, window, config, notes=[*notes, *said], experiment_id=experiment_id)


def window_of(exposures: Log, events: Log, config: ReadoutConfig) -> Window:
    """The days to read, and the columns there are."""
    first_us = first_exposure_us(exposures)
    first = config.first_day or EPOCH + datetime.timedelta(days=first_us // DAY_US)
    num_days = config.num_days
    if config.through is not None:
        num_days = (config.through - first).days + 1
        longest = config.num_days + config.watched_days
        if not 1 <= num_days <= longest:
            raise ConfigError(
                f"through {config.through}: must lie in the window of {longest} days from "
                f"{first}; give a day of it"
            )
    return Window(
        start_us=(first - EPOCH).days * DAY_US,
        num_days=num_days,
        days=tuple(range(num_days)),
        clock_skew_us=int(config.clock_skew_s * MICROSECONDS),
        max_sends_per_day=config.max_sends_per_day,
        dimensions=tuple(name for name in config.breakdowns if name in exposures.columns),
        covariates=tuple(name for name in COVARIATES if name in exposures.columns),
        guardrails=tuple(one.column for one in config.guardrails if one.column != "sends"),
        with_histogram=config.with_bootstrap,
    )
