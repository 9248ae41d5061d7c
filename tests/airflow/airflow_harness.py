"""A running stack as the tests see it."""

from dataclasses import dataclass
from pathlib import Path

from notify_servers import Webhook

from flywheel_core.airflow_client import AirflowClient
from flywheel_core.stack import Stack
from flywheel_core.stack.processes import wait_until
from flywheel_core.store import LocalStore


@dataclass
class Deployed:
    """The running stack, and where its recipes and store lie."""

    stack: Stack
    store: LocalStore
    recipes: Path
    policy: Path
    admin: AirflowClient
    webhook: Webhook

    def wait_for_state(
        self, dag_id: str, run_id: str, task_id: str, *states: str, timeout_s: float = 180
    ) -> str | None:
        """Until the task is in one of the states, or the run has ended; the state it is in."""

        def arrived() -> bool:
            found = self.admin.task_states(dag_id, run_id).get(task_id)
            ended = self.admin.run_state(dag_id, run_id) in ("success", "failed")
            return found in states or ended

        wait_until(arrived, timeout_s=timeout_s, every_s=1.0)
        return self.admin.task_states(dag_id, run_id).get(task_id)

    def wait_for_run(self, dag_id: str, run_id: str, timeout_s: float = 240) -> str:
        """Until the run has ended; its state."""
        wait_until(
            lambda: self.admin.run_state(dag_id, run_id) in ("success", "failed"),
            timeout_s=timeout_s,
            every_s=1.0,
        )
        return self.admin.run_state(dag_id, run_id)

    def log_of(self, dag_id: str, run_id: str, task_id: str) -> str:
        number = self.admin.try_number(dag_id, run_id, task_id)
        return self.admin.task_log(dag_id, run_id, task_id, number)
