"""The deployment as Airflow sees it: environment variables, read here and nowhere else.

A variable that is missing is an error that names it. Secrets are never variables: they lie in
files that only the owner can read.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from flywheel_core.errors import ConfigError
from flywheel_core.release.policy import ReleasePolicy, load_policy
from flywheel_core.stages import MODULES_VARIABLE
from flywheel_core.store import Store, open_store

DEFAULT_RECIPES = Path(__file__).resolve().parent.parent / "dags" / "recipes"
DEFAULT_WAIT_POLL_S = 60.0
DEFAULT_WAIT_TIMEOUT_H = 20.0
"""Less than a day: a night that waits in vain has ended before the next one is due."""


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
    work_root: str = ""
    stage_modules: str = ""
    wait_poll_s: float = DEFAULT_WAIT_POLL_S
    wait_timeout_h: float = DEFAULT_WAIT_TIMEOUT_H

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
            stage_modules=os.environ.get(MODULES_VARIABLE, ""),
            wait_poll_s=_positive("FLYWHEEL_WAIT_POLL_S", DEFAULT_WAIT_POLL_S),
            wait_timeout_h=_positive("FLYWHEEL_WAIT_TIMEOUT_H", DEFAULT_WAIT_TIMEOUT_H),
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


def default_recipe() -> str:
    """The recipe of a run that names none: every scheduled one (`FLYWHEEL_RECIPE`)."""
    return os.environ.get("FLYWHEEL_RECIPE") or "tiny_cpu"


def notify_path() -> Path | None:
    """The file that says whom to tell (`FLYWHEEL_NOTIFY`); None where nobody is told."""
    value = os.environ.get("FLYWHEEL_NOTIFY", "")
    return Path(value) if value else None


def _positive(name: str, default: float) -> float:
    value = os.environ.get(name, "")
    try:
        number = float(value) if value else default
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(
            f"environment variable {name}: {value!r} must be a number above 0, for example "
            f"{default:g}; mend the deployment (helm/values.yaml)"
        )
    return number


def _required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ConfigError(
            f"environment variable {name} is not set for this Airflow; `flywheel up` sets it, "
            "elsewhere the deployment does (helm/values.yaml)"
        )
    return value
