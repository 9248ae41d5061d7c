"""The generation's report, whatever the gates said."""

from typing import Any

from airflow.sdk import BaseOperator

from operators.config import Site
from operators.plans import pinned_plan


class WriteReport(BaseOperator):
    """Writes one HTML page below `<home>/reports/` and returns its path."""

    ui_color = "#f3e8f7"

    def execute(self, context: Any) -> str:
        from flywheel_core.report.build import write_report

        site = Site.from_environment()
        plan = pinned_plan(site, context)
        path = write_report(
            site.store(),
            plan.flywheel,
            plan.generation,
            site.home / "reports",
            site.policy(),
            plan=plan,
        )
        self.log.info("report: %s", path)
        return str(path)
