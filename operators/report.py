"""The generation's report, whatever the gates said."""

from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from flywheel_core.artifacts import is_done
from operators.config import Site
from operators.plans import pinned_plan, pinned_plan_path


class WriteReport(BaseOperator):
    """Writes one HTML page below `<home>/reports/` and returns its path.

    A run that ended before its evaluation has nothing to report on: then it is skipped, so that
    the red box is the reason and not its consequence.
    """

    ui_color = "#f3e8f7"

    def execute(self, context: Any) -> str:
        from flywheel_core.report.build import write_report

        site = Site.from_environment()
        store = site.store()
        if not store.exists(pinned_plan_path(site, context)):
            raise AirflowSkipException("no plan was pinned: there is nothing to report on")
        plan = pinned_plan(site, context)
        if not is_done(store, plan.stage("evaluate").ref):
            raise AirflowSkipException("no finished evaluation: there is nothing to report on")
        path = write_report(
            store,
            plan.flywheel,
            plan.generation,
            site.home / "reports",
            site.policy(),
            plan=plan,
        )
        self.log.info("report: %s", path)
        return str(path)
