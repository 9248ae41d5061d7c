"""An experiment's logs in the store, read: a step's days, and those after them while it waits.

Rows of erased users are left out (`experiments.erased`).
"""

import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flywheel_core.erasure.users import read_erasures
from flywheel_core.errors import InputDataError
from flywheel_core.experiments.analyze import analyze
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.erased import leave_out, notes_on_erasures
from flywheel_core.experiments.exposure_log import days_logged, fetch_days
from flywheel_core.experiments.ramp import RampState, last_day_of, step_config
from flywheel_core.experiments.readout import Readout
from flywheel_core.release.experiments import Experiment
from flywheel_core.store import Store

DAYS_TO_INGEST = 1
"""Days of real traffic that may still be on their way into the logs when an answer is followed."""


@dataclass(frozen=True)
class ExperimentReader:
    """Reads one experiment. `today` is the date of real traffic, None for simulated days."""

    store: Store
    flywheel: str
    experiment: Experiment
    config: ReadoutConfig
    today: datetime.date | None

    def days_exposed(self) -> tuple[datetime.date, ...]:
        """The days that exposures are logged of."""
        return days_logged(self.store, self.experiment.exposures)

    def has_events(self, through: datetime.date) -> bool:
        """Whether any day of events up to `through` is logged."""
        return any(one <= through for one in days_logged(self.store, events_of(self.experiment)))

    def read(self, state: RampState, day: datetime.date) -> Readout:
        """The step's days up to `day`."""
        return self._read(step_config(state, self.config), day)

    def read_since(self, state: RampState) -> Readout | None:
        """The step's days and those after them, while it waits for an answer or the end of a
        freeze; None where none are over yet. A day that should be logged by now and is not makes
        it unreadable, never flat."""
        last = last_day_of(state)
        through = self._newest_over(last)
        if through <= last:
            return None
        config = step_config(state, self.config)
        watched = {"watched_days": (through - last).days}
        return self._read(config.model_copy(update=watched), through)

    def _newest_over(self, last: datetime.date) -> datetime.date:
        logged = {*self.days_exposed(), *days_logged(self.store, events_of(self.experiment))}
        over = [one for one in logged if self.today is None or one < self.today]
        if self.today is not None:
            over.append(self.today - datetime.timedelta(days=1 + DAYS_TO_INGEST))
        return max(over, default=last)

    def _read(self, config: ReadoutConfig, day: datetime.date) -> Readout:
        folder = self.experiment.exposures.rpartition("/")[0]
        erasures = read_erasures(self.store, self.flywheel)
        with tempfile.TemporaryDirectory(prefix="flywheel-ab-") as name:
            exposures, events = (
                fetch_days(self.store, path, day, Path(name) / part)
                for part, path in (
                    ("exposures", self.experiment.exposures),
                    ("events", events_of(self.experiment)),
                )
            )
            rows = leave_out(exposures, erasures) + leave_out(events, erasures)
            return analyze(
                exposures,
                events,
                config.model_copy(update={"through": day}),
                experiment_id=self.experiment.experiment_id,
                notes=notes_on_erasures(self.store, folder, rows),
            )


def events_of(experiment: Experiment) -> str:
    """Where the experiment's events lie: beside its exposures."""
    parent, _, name = experiment.exposures.rpartition("/")
    if name != "exposures":
        raise InputDataError(
            f"{experiment.exposures}: an experiment's exposures lie in a folder of that name, with "
            "its events beside it"
        )
    return f"{parent}/events"
