"""Moves the pointer, if Airflow's own record of the approval allows it."""

from typing import Any

from airflow.sdk import BaseOperator

from operators.config import Site
from operators.plans import airflow_errors, pinned_plan, pinned_plan_path


class PromoteCandidate(BaseOperator):
    """Reads the record over REST with a read-only account: never XCom, never a task's state."""

    ui_color = "#dff3df"

    def __init__(self, *, approval_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.approval_task_id = approval_task_id

    def execute(self, context: Any) -> str:
        from flywheel_core.airflow_client import AirflowClient
        from flywheel_core.release.case import require_plan_of
        from flywheel_core.release.promotion import promote
        from flywheel_core.stack.secrets import read_service_credentials

        with airflow_errors():
            site = Site.from_environment()
            plan = pinned_plan(site, context)
            require_plan_of(plan, pinned_plan_path(site, context))
            account = read_service_credentials(site.service_credentials)
            task = (str(context["ti"].dag_id), str(context["run_id"]), self.approval_task_id)
            with AirflowClient(site.airflow_api, account.username, account.password) as airflow:
                detail = airflow.approval_record(*task)
                current_try = airflow.try_number(*task)
                promoted = promote(
                    site.store(),
                    plan,
                    site.policy(),
                    detail=detail,
                    current_try_number=current_try,
                    dag_run=airflow.dag_run(*task[:2]),
                    tries=airflow.approval_tries(*task, up_to=current_try),
                )
            self.log.info("%s", promoted.said)
            return promoted.said
