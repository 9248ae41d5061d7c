"""One real Airflow and Ray for the whole session."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flywheel_core.airflow_client import AirflowClient
from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.stack import Stack
from flywheel_core.stack.processes import wait_until
from flywheel_core.stack.stack import REPOSITORY
from flywheel_core.store import LocalStore

HERE = Path(__file__).parent


@dataclass
class Deployed:
    """The running stack, and where its recipes and store lie."""

    stack: Stack
    store: LocalStore
    recipes: Path
    policy: Path
    admin: AirflowClient

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


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Repository flows and the tests' own, on free ports; stopped at the end."""
    home = tmp_path_factory.mktemp("home")
    flows = home / "dags"
    flows.mkdir()
    for source in [*(REPOSITORY / "dags").glob("*.py"), *(HERE / "dags").glob("*.py")]:
        shutil.copy(source, flows)
    recipes = home / "recipes"
    recipes.mkdir()
    policy = home / "policy.yaml"
    shutil.copy(DEFAULT_POLICY, policy)
    stack = Stack(home / "state", policy_path=policy, recipes=recipes, dags_folder=flows)
    stack.up(print)
    try:
        with stack.client() as admin:
            admin.wait_for_dag("flywheel_weekly")
            admin.wait_for_dag("two_stages")
            yield Deployed(stack, LocalStore(stack.store_root), recipes, policy, admin)
    finally:
        stack.down()
