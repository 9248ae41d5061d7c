"""One real Airflow and Ray for the whole session."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_harness import Deployed

from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.stack import Stack
from flywheel_core.stack.stack import REPOSITORY
from flywheel_core.store import LocalStore

HERE = Path(__file__).parent


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
