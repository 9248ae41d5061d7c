"""Pin the run's plan: what it reads and makes, decided once."""

from typing import Any

from airflow.sdk import BaseOperator

from operators.config import Site
from operators.plans import airflow_errors, pinned_plan_path, plan_id, recipe_of


class ResolvePlan(BaseOperator):
    """Commits one plan per run, put-if-absent. What it returns is for display only."""

    ui_color = "#e8eef7"

    def __init__(self, *, nightly: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.nightly = nightly

    def execute(self, context: Any) -> dict[str, Any]:
        from flywheel_core import plan as planning
        from flywheel_core.artifacts import is_done
        from flywheel_core.release.policy import policy_digest

        with airflow_errors():
            site = Site.from_environment()
            store = site.store()
            pin = planning.resolve_nightly if self.nightly else planning.resolve
            plan = pin(
                recipe_of(site, context),
                store,
                plan_id(context, nightly=self.nightly),
                policy_digest=policy_digest(site.policy()),
            )
            for stage in plan.stages:
                said = "is there already" if is_done(store, stage.ref) else "will run"
                self.log.info("%s %s %s", stage.name, stage.ref.key, said)
            return {
                "plan": pinned_plan_path(site, context, nightly=self.nightly),
                "generation": plan.generation,
                "keys": {stage.name: stage.ref.key for stage in plan.stages},
            }
