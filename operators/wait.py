"""A run waits for its days of traffic, and says which are missing."""

import time
from typing import Any

from airflow.sdk import BaseOperator

from flywheel_core.days import keep_days, kept_days, missing_days
from flywheel_core.errors import ArtifactMissing
from flywheel_core.recipe import Recipe
from flywheel_core.store import Store
from operators.asked import asked_night, asked_week, is_dry_run
from operators.config import Site
from operators.plans import plan_id, recipe_of
from operators.traffic_trigger import TrafficTrigger, waiting_for


class WaitForTraffic(BaseOperator):
    """Decides the run's days, keeps them for `resolve`, and defers until they are all there.

    The simulated world's days need no waiting: its traffic job makes them. A dry run says what is
    missing and does not wait.

    :param nightly: one day, for a nightly run.
    """

    ui_color = "#e8eef7"

    def __init__(self, *, nightly: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nightly = nightly

    def execute(self, context: Any) -> list[str]:
        site = Site.from_environment()
        recipe, store = recipe_of(site, context), site.store()
        days = self._days(recipe, store, context)
        if days is None:
            self.log.info("the simulated world makes its own days: nothing to wait for")
            return []
        missing = missing_days(store, recipe.flywheel, days)
        if missing:
            said = waiting_for(missing, [*days], recipe.flywheel)
            if is_dry_run(context):
                self.log.info("dry run: not %s", said)
                return [*days]
            self.log.info("%s", said)
            self._wait(site, recipe.flywheel, days, missing)
        self.log.info("traffic of %s is there", ", ".join(days))
        return [*days]

    def execute_complete(self, context: Any, event: dict[str, Any], days: list[str]) -> list[str]:
        """The wait is over: with every day, or without some."""
        site = Site.from_environment()
        flywheel = recipe_of(site, context).flywheel
        missing = event["missing"]
        if missing:
            raise ArtifactMissing(
                f"{len(missing)} of {len(days)} days of traffic did not come within "
                f"{site.wait_timeout_h:g} h: {', '.join(missing)}. Run `flywheel ingest FILE "
                f"--flywheel {flywheel}` for them, then clear this task"
            )
        self.log.info("traffic of %s is there", ", ".join(days))
        return days

    def _days(self, recipe: Recipe, store: Store, context: Any) -> tuple[str, ...] | None:
        """What an earlier try decided, else what is asked for; None where the world makes them."""
        run_id = plan_id(context, nightly=self.nightly)
        kept = kept_days(store, recipe.flywheel, run_id)
        if kept is not None:
            return kept
        days = asked_days(recipe, store, context, nightly=self.nightly)
        if days is None or is_dry_run(context):
            return days
        return keep_days(store, recipe.flywheel, run_id, days)

    def _wait(
        self, site: Site, flywheel: str, days: tuple[str, ...], missing: tuple[str, ...]
    ) -> None:
        """Defer: this never returns."""
        self.defer(
            trigger=TrafficTrigger(
                store_root=site.store_root,
                flywheel=flywheel,
                days=[*days],
                named=[*missing],
                poll_s=site.wait_poll_s,
                deadline_at_s=time.time() + site.wait_timeout_h * 3600,
            ),
            method_name="execute_complete",
            kwargs={"days": [*days]},
        )


def asked_days(
    recipe: Recipe, store: Store, context: Any, *, nightly: bool
) -> tuple[str, ...] | None:
    """The days this run waits for; None where the world makes them."""
    if not nightly:
        return asked_week(recipe, store, context)
    night = asked_night(recipe, store, context)
    return None if night is None or recipe.traffic.source == "world" else (night,)
