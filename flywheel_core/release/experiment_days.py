"""Which day a run of `flywheel_ab_test` reads: asked for, scheduled, or the world's next one."""

import datetime

from flywheel_core.days import WORLD_EPOCH, keep_days, kept_days, last_day
from flywheel_core.errors import InputDataError
from flywheel_core.experiments.exposure_log import days_logged
from flywheel_core.experiments.journal import Journal
from flywheel_core.release.experiments import Experiment
from flywheel_core.store import Store

DAYS_PER_GENERATION = 7


def day_of_run(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    run_id: str,
    *,
    given: str | None,
    scheduled_for: datetime.date | None,
    simulated: bool,
    today: datetime.date | None = None,
) -> datetime.date:
    """The day that a run reads; kept when it is first worked out, so that every task and try of
    the run means the same one. `today` is the date of real traffic."""
    name = f"ab_test/{experiment.experiment_id}/{run_id}"
    kept = kept_days(store, flywheel, name)
    if kept is None:
        day = _asked(store, flywheel, experiment, given, scheduled_for, simulated, today)
        kept = keep_days(store, flywheel, name, (str(day),))
    return datetime.date.fromisoformat(kept[0])


def _asked(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    given: str | None,
    scheduled_for: datetime.date | None,
    simulated: bool,
    today: datetime.date | None,
) -> datetime.date:
    if given is not None:
        day = last_day("day", given, None)
        assert day is not None
        return day
    journal = Journal(store, flywheel, experiment.experiment_id)
    if simulated:
        return next_world_day(journal, experiment.generation)
    if scheduled_for is not None:
        return scheduled_for - datetime.timedelta(days=1)
    days = days_logged(store, experiment.exposures)
    if not days and today is not None:  # the run says that it waits, and for what
        return today - datetime.timedelta(days=1)
    if not days:
        raise InputDataError(
            f"{experiment.exposures}: no day is logged yet; log exposures and events, or name a day"
        )
    return days[-1]


def next_world_day(journal: Journal, generation: int) -> datetime.date:
    """The simulated world's next day that is not decided; the last one again while it waits for
    an answer. An experiment starts after the week that its generation was trained on."""
    state = journal.state() if journal.is_allocated else None
    if state is None or state.first_day is None:
        return WORLD_EPOCH + datetime.timedelta(days=DAYS_PER_GENERATION * generation)
    if state.decided is None:
        return state.first_day
    return max(state.first_day, state.decided + datetime.timedelta(days=1))
