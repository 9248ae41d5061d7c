"""The deployment as Airflow sees it: environment variables, read here and nowhere else.

A variable that is missing is an error that names it. Secrets are never variables: they lie in
files that only the owner can read.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from flywheel_core.errors import ConfigError
from flywheel_core.release.policy import ReleasePolicy, load_policy
from flywheel_core.store import Store, open_store

DEFAULT_RECIPES = Path(__file__).resolve().parent.parent / "dags" / "recipes"


@dataclass(frozen=True)
class Site:
    """Where this Airflow's flywheel lives."""

    store_root: str
    ray_address: str
    policy_path: Path
    recipes: Path
    home: Path
    airflow_api: str
    service_credentials: Path
    work_root: str

    @staticmethod
    def from_environment() -> "Site":
        home = Path(_required("FLYWHEEL_HOME"))
        return Site(
            store_root=_required("FLYWHEEL_STORE"),
            ray_address=_required("FLYWHEEL_RAY_ADDRESS"),
            policy_path=Path(_required("FLYWHEEL_POLICY")),
            recipes=Path(os.environ.get("FLYWHEEL_RECIPES", str(DEFAULT_RECIPES))),
            home=home,
            airflow_api=_required("FLYWHEEL_AIRFLOW_API"),
            service_credentials=Path(_required("FLYWHEEL_SERVICE_CREDENTIALS")),
            work_root=os.environ.get("FLYWHEEL_WORK", ""),
        )

    def store(self) -> Store:
        return open_store(self.store_root)

    def policy(self) -> ReleasePolicy:
        """The deployed policy, read anew every time it is needed."""
        return load_policy(self.policy_path)


def schedule(cron: str) -> str | None:
    """`cron`, or None where the deployment starts its runs by hand (`FLYWHEEL_SCHEDULE=manual`)."""
    return None if os.environ.get("FLYWHEEL_SCHEDULE") == "manual" else cron


def paused_at_creation() -> bool:
    """A scheduled flywheel starts paused, until somebody means it; by hand, it can be triggered."""
    return os.environ.get("FLYWHEEL_SCHEDULE") != "manual"


def _required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ConfigError(
            f"environment variable {name} is not set for this Airflow; `flywheel up` sets it, "
            "elsewhere the deployment does (helm/values.yaml)"
        )
    return value
