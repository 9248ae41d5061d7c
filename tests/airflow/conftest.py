"""One real Airflow and Ray for the whole session."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from airflow_harness import Deployed
from notify_servers import Webhook

from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.stack import Stack
from flywheel_core.stack.stack import REPOSITORY
from flywheel_core.stages import MODULES_VARIABLE
from flywheel_core.store import LocalStore

HERE = Path(__file__).parent


SOONER = {"FLYWHEEL_WAIT_POLL_S": "0.5", "FLYWHEEL_WAIT_TIMEOUT_H": "0.005"}
"""A wait for traffic of 18 s, not of 20 h."""


@pytest.fixture(scope="session")
def webhook() -> Iterator[Webhook]:
    """Hears of everything that fails or waits in the session."""
    with Webhook() as server:
        yield server


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory, webhook: Webhook) -> Iterator[Deployed]:
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
    (home / "webhook").write_text(webhook.url)
    notify = home / "notify.yaml"
    notify.write_text(yaml.safe_dump({"slack": {"webhook_url_file": str(home / "webhook")}}))
    stack = Stack(
        home / "state",
        policy_path=policy,
        recipes=recipes,
        dags_folder=flows,
        extra_env=SOONER
        | {"FLYWHEEL_NOTIFY": str(notify), MODULES_VARIABLE: "first_stage,second_stage"},
    )
    stack.up(print)
    try:
        with stack.client() as admin:
            admin.wait_for_dag("flywheel_weekly")
            admin.wait_for_dag("two_stages")
            yield Deployed(stack, LocalStore(stack.store_root), recipes, policy, admin, webhook)
    finally:
        stack.down()
