"""Where this flywheel lives: its home folder, store, policy and Ray address.

The one place that reads the deployment's environment variables on the command line's side.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from flywheel_core.errors import ConfigError
from flywheel_core.recipe import RECIPE_FOLDER
from flywheel_core.release.policy import ReleasePolicy, load_policy
from flywheel_core.store import Store, open_store

HOME_VARIABLE = "FLYWHEEL_HOME"
STORE_VARIABLE = "FLYWHEEL_STORE"
POLICY_VARIABLE = "FLYWHEEL_POLICY"
DEFAULT_POLICY = RECIPE_FOLDER.parent / "policy" / "tiny_cpu.yaml"


@dataclass(frozen=True)
class Deployment:
    """`home` keeps Airflow, Ray, logs and scratch; `store_root` keeps what must last."""

    home: Path
    store_root: str
    policy_path: Path

    @staticmethod
    def from_environment() -> "Deployment":
        home = Path(os.environ.get(HOME_VARIABLE, ".flywheel")).expanduser().absolute()
        return Deployment(
            home=home,
            store_root=os.environ.get(STORE_VARIABLE, str(home / "store")),
            policy_path=Path(os.environ.get(POLICY_VARIABLE, str(DEFAULT_POLICY))),
        )

    def store(self) -> Store:
        return open_store(self.store_root)

    def policy(self) -> ReleasePolicy:
        return load_policy(self.policy_path)

    @property
    def scratch(self) -> Path:
        return self.home / "scratch"

    def require_flywheel(self, store: Store, flywheel: str) -> None:
        """An error that lists the flywheels there are, unless this is one of them."""
        known = sorted({path.split("/")[0] for path in store.list("")})
        if flywheel not in known:
            raise ConfigError(
                f"flywheel {flywheel!r}: {self.store_root} holds "
                f"{', '.join(known) or 'none yet'}; run `flywheel climb` first"
            )
