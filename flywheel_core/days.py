"""Days of traffic: which ones a run reads, and which of them are not there yet.

A day is there once the pointer `traffic/<day>` has a record. The days of a run are decided once
and kept under its run id, put-if-absent, before it waits for them: `resolve` pins exactly those,
however long the wait was and whatever was ingested meanwhile. The simulated world's days need no
waiting, because its traffic job makes the missing ones; its clock is the generation, not the date.
"""

import datetime

from pydantic import ValidationError

from flywheel_core.artifacts import KEY_HEX_DIGITS, SCHEMA_VERSION, Record, digest_of
from flywheel_core.errors import ArtifactCorrupt, ArtifactMissing, ConfigError
from flywheel_core.pointers import Pointer
from flywheel_core.recipe import Recipe
from flywheel_core.store import Store

WORLD_EPOCH = datetime.date(2026, 1, 5)
"""The Monday on which the simulated product's first week starts: its clock is the generation."""


class RunDays(Record):
    """The days one run waits for and reads."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    days: tuple[str, ...]


def week_asked_for(
    recipe: Recipe, store: Store, *, given: str | None, scheduled_for: datetime.date | None
) -> tuple[str, ...] | None:
    """The days of one climb, or None where the world's own week is meant.

    `given` is the week's last day as a person asked for it; else a scheduled run reads the days
    before the one it is scheduled for, and a run by hand the newest ones there are.
    """
    if recipe.traffic.source == "world":
        if given is not None:
            raise ConfigError(
                f"week_ending: {given!r} was given, but the simulated world's week follows from "
                "the generation; leave it empty"
            )
        return None
    last = last_day("week_ending", given, scheduled_for)
    return newest_days(recipe, store) if last is None else days_until(last, recipe.traffic.num_days)


def night_asked_for(
    recipe: Recipe, store: Store, *, given: str | None, scheduled_for: datetime.date | None
) -> str | None:
    """The day of one night, or None where the world's next unmade day is meant."""
    if recipe.traffic.source == "world":
        return str(last_day("day", given, None)) if given is not None else None
    last = last_day("day", given, scheduled_for)
    return newest_days(recipe, store)[-1] if last is None else str(last)


def last_day(
    field: str, given: str | None, scheduled_for: datetime.date | None
) -> datetime.date | None:
    """The day that was given, else the one before the date a run is scheduled for."""
    if given is not None:
        try:
            return datetime.date.fromisoformat(given)
        except ValueError as error:
            raise ConfigError(
                f"{field}: {given!r} is not a date; write it as YYYY-MM-DD"
            ) from error
    return scheduled_for - datetime.timedelta(days=1) if scheduled_for is not None else None


def days_until(last: datetime.date, count: int) -> tuple[str, ...]:
    """`count` days in a row, oldest first; the last one is `last`."""
    return tuple(str(last - datetime.timedelta(days=back)) for back in reversed(range(count)))


def world_week(recipe: Recipe, generation: int) -> tuple[str, ...]:
    """The simulated product's week that leads to `generation`."""
    count = recipe.traffic.num_days
    last = WORLD_EPOCH + datetime.timedelta(days=count * generation - 1)
    return days_until(last, count)


def newest_days(recipe: Recipe, store: Store) -> tuple[str, ...]:
    """The newest ingested days, at most a week of them."""
    days = ingested_days(store, recipe.flywheel)
    if not days:
        raise ArtifactMissing(
            f"flywheel {recipe.flywheel!r} has no day of traffic; run `flywheel ingest FILE` first"
        )
    return days[-recipe.traffic.num_days :]


def ingested_days(store: Store, flywheel: str) -> tuple[str, ...]:
    """Every day of traffic there is, oldest first."""
    folder = f"{flywheel}/pointers/traffic"
    return tuple(sorted({path.split("/")[-2] for path in store.list(folder)}))


def missing_days(store: Store, flywheel: str, days: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `days` that nobody has ingested yet."""
    return tuple(day for day in days if Pointer(store, flywheel, f"traffic/{day}").newest() is None)


def keep_days(store: Store, flywheel: str, run_id: str, days: tuple[str, ...]) -> tuple[str, ...]:
    """Keep the days of a run; the ones that were kept first are the ones returned."""
    record = RunDays(run_id=run_id, days=days)
    store.put_if_absent(_path(flywheel, run_id), record.model_dump_json(indent=1).encode())
    return kept_days(store, flywheel, run_id) or days


def kept_days(store: Store, flywheel: str, run_id: str) -> tuple[str, ...] | None:
    """The days this run waited for; None where it did not have to wait."""
    path = _path(flywheel, run_id)
    if not store.exists(path):
        return None
    try:
        return RunDays.model_validate_json(store.get(path)).days
    except ValidationError as error:
        raise ArtifactCorrupt(f"{path} is not a list of days ({error}); start a new run") from error


def _path(flywheel: str, run_id: str) -> str:
    return f"{flywheel}/days/{digest_of(run_id)[:KEY_HEX_DIGITS]}.json"
