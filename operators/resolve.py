"""Pin the run's plan: what it reads and makes, decided once; or, on a dry run, only say it."""

from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.bases.skipmixin import SkipMixin

from flywheel_core.days import kept_days
from flywheel_core.plan import PinnedPlan
from flywheel_core.recipe import Recipe
from flywheel_core.store import Store
from operators.asked import asked_night, asked_start, asked_week, is_dry_run
from operators.config import Site
from operators.plans import pinned_plan_path, plan_id, recipe_of


class ResolvePlan(BaseOperator, SkipMixin):
    """Commits one plan per run, put-if-absent. What it returns is for display only.

    On a dry run it commits nothing and skips every later task, whatever its trigger rule.

    :param nightly: pin the plan of one night.
    """

    ui_color = "#e8eef7"

    def __init__(self, *, nightly: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nightly = nightly

    def execute(self, context: Any) -> dict[str, Any]:
        from flywheel_core.artifacts import is_done

        site = Site.from_environment()
        recipe, store = recipe_of(site, context), site.store()
        if is_dry_run(context):
            self._say(site, recipe, store, context)
        plan = self._pin(site, recipe, store, context)
        for stage in plan.stages:
            said = "is there already" if is_done(store, stage.ref) else "will run"
            self.log.info("%s %s %s", stage.name, stage.ref.key, said)
        return {
            "plan": pinned_plan_path(site, context, nightly=self.nightly),
            "generation": plan.generation,
            "days": [*plan.days],
            "start_at": plan.start_at.model_dump(),
            "keys": {stage.name: stage.ref.key for stage in plan.stages},
        }

    def _pin(self, site: Site, recipe: Recipe, store: Store, context: Any) -> PinnedPlan:
        """The plan of this run, with the days it waited for."""
        from flywheel_core.plan import resolve, resolve_nightly
        from flywheel_core.release.policy import policy_digest

        policy = policy_digest(site.policy())
        run_id = plan_id(context, nightly=self.nightly)
        days = kept_days(store, recipe.flywheel, run_id)
        if self.nightly:
            day = days[0] if days else asked_night(recipe, store, context)
            return resolve_nightly(recipe, store, run_id, policy_digest=policy, day=day)
        return resolve(
            recipe,
            store,
            run_id,
            policy_digest=policy,
            days=days or asked_week(recipe, store, context),
            start_at=asked_start(context),
        )

    def _say(self, site: Site, recipe: Recipe, store: Store, context: Any) -> None:
        """Log what the run would do, and skip all that follows: this never returns."""
        from flywheel_core.preview import preview
        from flywheel_core.release.policy import policy_digest

        seen = preview(
            recipe,
            store,
            policy_digest=policy_digest(site.policy()),
            days=asked_week(recipe, store, context),
            start_at=asked_start(context),
        )
        for line in seen.lines():
            self.log.info("%s", line)
        # Airflow drops the return value of a task that skips others.
        context["ti"].xcom_push(key="return_value", value=seen.model_dump(mode="json"))
        self.skip(context["ti"], context["task"].get_flat_relatives(upstream=False))
