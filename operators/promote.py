"""Moves the pointer, if Airflow's own record of the approval allows it."""

from typing import Any

from airflow.sdk import BaseOperator

from operators.config import Site
from operators.plans import pinned_plan_path


class PromoteCandidate(BaseOperator):
    """Reads the record over REST with a read-only account: never XCom, never a task's state."""

    ui_color = "#dff3df"

    def __init__(self, *, approval_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.approval_task_id = approval_task_id

    def execute(self, context: Any) -> str:
        from flywheel_core.airflow_client import AirflowClient
        from flywheel_core.release.promotion import promote_run
        from flywheel_core.stack.secrets import read_service_credentials

        site = Site.from_environment()
        account = read_service_credentials(site.service_credentials)
        with AirflowClient(site.airflow_api, account.username, account.password) as airflow:
            promoted = promote_run(
                site.store(),
                pinned_plan_path(site, context),
                site.policy(),
                airflow,
                dag_id=str(context["ti"].dag_id),
                run_id=str(context["run_id"]),
                task_id=self.approval_task_id,
            )
        self.log.info("%s", promoted.said)
        return promoted.said
