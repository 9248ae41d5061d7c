"""What a run was asked for: the params of its form, and the date it is scheduled for."""

import datetime
from typing import Any

from airflow.sdk import Param

from flywheel_core.days import night_asked_for, week_asked_for
from flywheel_core.recipe import Recipe
from flywheel_core.stages import STAGES
from flywheel_core.start_at import CHECKPOINT_PATTERN, CHECKPOINT_STARTS, StartAt
from flywheel_core.store import Store
from operators.plans import RECIPE_PARAM

SCHEDULED = ("scheduled", "backfill")
"""Runs whose logical date means a day. One by hand carries the moment somebody pressed a button."""

WEEKLY_PARAMS = {
    "recipe": RECIPE_PARAM,
    "week_ending": Param(
        None,
        type=["null", "string"],
        format="date",
        title="Week ending",
        description="Last day of the week of traffic to read; the run waits for its days. Empty: "
        "a scheduled run reads the days before its date, a run by hand the newest ones ingested.",
    ),
    "start_from": Param(
        None,
        type=["null", "string"],
        enum=[None, *STAGES],
        title="Start from",
        description="First stage that may run; the ones before it must be in the store already, "
        "or `resolve` fails at once and lists which are not. Empty: the first one not there.",
    ),
    "checkpoint": Param(
        None,
        type=["null", "string"],
        pattern=CHECKPOINT_PATTERN,
        title="Checkpoint",
        description="An artifact with a model, <flywheel>/gen-0007/<stage>/<key>: it takes the "
        "place of the output of sft, dpo and rl, as far as they lie before `start_from`. Only "
        f"with start_from {', '.join(CHECKPOINT_STARTS)}.",
    ),
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description="Only say what would run, what is there already and what it costs: nothing "
        "is pinned, and every later task is skipped. The answer is in the log of `resolve`.",
    ),
}

NIGHTLY_PARAMS = {
    "recipe": RECIPE_PARAM,
    "day": Param(
        None,
        type=["null", "string"],
        format="date",
        title="Day",
        description="The day to curate; the run waits for it. Empty: a scheduled run takes the "
        "day before its date, a run by hand the newest one ingested, and with the simulated "
        "world every run takes the next day that is not made yet.",
    ),
}


def asked_week(recipe: Recipe, store: Store, context: Any) -> tuple[str, ...] | None:
    """The days this run of `flywheel_weekly` reads; None for the world's own week."""
    given = context["params"].get("week_ending")
    return week_asked_for(recipe, store, given=given, scheduled_for=scheduled_for(context))


def asked_night(recipe: Recipe, store: Store, context: Any) -> str | None:
    """The day this run of `flywheel_nightly` reads; None for the world's next unmade one."""
    given = context["params"].get("day")
    return night_asked_for(recipe, store, given=given, scheduled_for=scheduled_for(context))


def asked_start(context: Any) -> StartAt:
    """Where this run begins."""
    params = context["params"]
    return StartAt(start_from=params.get("start_from"), checkpoint=params.get("checkpoint"))


def is_dry_run(context: Any) -> bool:
    return bool(context["params"].get("dry_run"))


def scheduled_for(context: Any) -> datetime.date | None:
    """The date a scheduled run stands for; None for a run by hand."""
    run = context["dag_run"]
    kind = str(getattr(run.run_type, "value", run.run_type))
    if kind not in SCHEDULED or run.logical_date is None:
        return None
    date: datetime.date = run.logical_date.date()
    return date
