"""Names a night's traffic, so that the week finds it."""

from typing import Any

from airflow.sdk import BaseOperator

from operators.config import Site
from operators.plans import pinned_plan


class PublishDay(BaseOperator):
    """Appends the day's pointer; a day that is named already is left as it is."""

    ui_color = "#e8eef7"

    def execute(self, context: Any) -> str:
        from flywheel_core.plan import publish_day

        site = Site.from_environment()
        plan = pinned_plan(site, context, nightly=True)
        record = publish_day(site.store(), plan)
        said = f"version {record.number}" if record else "was there already"
        self.log.info("traffic of %s: %s", plan.days[0], said)
        return said
