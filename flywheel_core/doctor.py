"""`flywheel doctor`: what would stop a climb, found before it starts."""

import configparser
import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from flywheel_core.clocks import clock_fault
from flywheel_core.deployment import Deployment
from flywheel_core.errors import FlywheelError
from flywheel_core.recipe import RECIPE_FOLDER, load_recipe
from flywheel_core.release.policy import load_policy

MIN_FREE_GIB = 5
LIGHT_PACKAGES = ("apache-airflow", "ray", "pyarrow", "pydantic")
SECRET_FILES = (
    "ray_token",
    "airflow/airflow.cfg",
    "airflow/airflow_keys.json",
    "airflow/airflow.db",
)
ALL_ADMINS = "simple_auth_manager_all_admins"
ALL_ADMINS_VARIABLE = f"AIRFLOW__CORE__{ALL_ADMINS.upper()}"
WORKER_PACKAGES = ("torch", "transformers", "trl", "deepspeed")


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, whether it holds, and what to do if not."""

    check: str
    ok: bool
    said: str


def examine(deployment: Deployment, *, only_recipes: bool = False) -> list[Finding]:
    """Every check, in order; a failing check never hides the next."""
    findings = [*_recipes(), *_policies()]
    if only_recipes:
        return findings
    return [
        *findings,
        _packages("Airflow's side", LIGHT_PACKAGES),
        _packages("the worker's side", WORKER_PACKAGES),
        _disk(deployment.home),
        _store(deployment),
        _credentials(deployment.home),
        _auth_manager(deployment.home),
        *_clocks(deployment.home),
    ]


def _try(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, True, look())
    except (FlywheelError, OSError, metadata.PackageNotFoundError) as error:
        return Finding(check, False, str(error))


def _recipes() -> list[Finding]:
    return [
        _try(f"recipe {path.stem}", lambda path=path: f"{load_recipe(str(path)).flywheel} parses")  # type: ignore[misc]
        for path in sorted(RECIPE_FOLDER.glob("*.yaml"))
    ]


def _policies() -> list[Finding]:
    folder = RECIPE_FOLDER.parent / "policy"
    return [
        _try(
            f"policy {path.stem}",
            lambda path=path: "release managers: " + ", ".join(load_policy(path).release_managers),  # type: ignore[misc]
        )
        for path in sorted(folder.glob("*.yaml"))
    ]


def _packages(side: str, names: tuple[str, ...]) -> Finding:
    def look() -> str:
        return ", ".join(f"{name} {metadata.version(name)}" for name in names)

    finding = _try(side, look)
    return finding if finding.ok else Finding(side, False, f"{finding.said}; run `make env`")


def _disk(home: Path) -> Finding:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free_gib = shutil.disk_usage(existing).free / 2**30
    return Finding(
        "disk",
        free_gib >= MIN_FREE_GIB,
        f"{free_gib:.0f} GiB free under {existing}, {MIN_FREE_GIB} needed",
    )


def _store(deployment: Deployment) -> Finding:
    def look() -> str:
        store = deployment.store()
        store.put("doctor/probe", b"ok")
        store.delete("doctor/probe")
        return f"{deployment.store_root} can be written"

    return _try("store", look)


def _credentials(home: Path) -> Finding:
    secret = [
        *(
            path
            for path in home.glob("*.json")
            if "credential" in path.name or "password" in path.name
        ),
        *(path for path in (home / name for name in SECRET_FILES) if path.is_file()),
    ]
    loose = [str(path) for path in sorted(secret) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    said = f"readable by others: {', '.join(loose)}; chmod 600 them" if loose else "private"
    return Finding("password files", not loose, said)


def _auth_manager(home: Path) -> Finding:
    """An auth manager that makes everybody an administrator makes every approval worthless."""
    places = [ALL_ADMINS_VARIABLE] if _is_on(os.environ.get(ALL_ADMINS_VARIABLE)) else []
    try:
        places += [str(file) for file in _airflow_settings(home) if _makes_all_admins(file)]
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        return Finding("auth manager", False, f"Airflow's settings cannot be read: {error}")
    if not places:
        return Finding("auth manager", True, "users are told apart")
    said = f"{ALL_ADMINS} is on in {', '.join(places)}; turn it off"
    return Finding("auth manager", False, said)


def _airflow_settings(home: Path) -> list[Path]:
    """The `airflow.cfg` of this home's stack, and of the Airflow that the environment names."""
    folders = [home / "airflow", Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()]
    files = [Path(os.environ.get("AIRFLOW_CONFIG", folders[-1] / "airflow.cfg"))]
    files.append(folders[0] / "airflow.cfg")
    return sorted({file for file in files if file.is_file()})


def _makes_all_admins(file: Path) -> bool:
    settings = configparser.ConfigParser(interpolation=None, strict=False)
    settings.read_string(file.read_text(encoding="utf-8"))
    return _is_on(settings.get("core", ALL_ADMINS, fallback=None))


def _is_on(value: str | None) -> bool:
    """As Airflow reads a boolean, comment and all."""
    return (value or "").split("#")[0].strip().lower() in ("true", "t", "1", "yes", "on")


def _clocks(home: Path) -> list[Finding]:
    """The running stack's servers against this machine."""
    path = home / "stack.json"
    if not path.is_file():
        return []
    info = json.loads(path.read_text())
    faults = {url: clock_fault(url) for url in (info["airflow_url"], info["ray_url"])}
    return [
        Finding(f"clock of {url}", fault is None, fault or "within two minutes of this machine's")
        for url, fault in faults.items()
    ]
