"""Airflow on one machine: SQLite, the LocalExecutor, seeded users, everything on 127.0.0.1.

Its settings are one file, `airflow.cfg`, readable by the owner alone, because it holds the
signing key. The four parts of `airflow standalone` are started one by one, so that each has its
own log and can be started anew when it dies; their log servers, which would listen on every
interface, stay off.
"""

import configparser
import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from flywheel_core.errors import StackError
from flywheel_core.stack.processes import HOST, last_lines
from flywheel_core.stack.secrets import ROLES, airflow_keys, passwords, write_private

PARTS: dict[str, tuple[str, ...]] = {
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "api-server": ("api-server",),
}
MIGRATION_TIMEOUT_S = 300
PARALLELISM = 4
API_ATTEMPTS = 12
API_WAIT_MAX_S = 15


def command(part: str) -> list[str]:
    """The command line of one part."""
    return [sys.executable, "-m", "airflow", *PARTS[part]]


def write_settings(home: Path, *, port: int, dags_folder: Path, passwords_file: Path) -> None:
    """Write `airflow.cfg`. Moving the port takes three settings, not one."""
    keys = airflow_keys(home / "airflow_keys.json")
    passwords(passwords_file)
    url = f"http://{HOST}:{port}"
    settings: dict[str, dict[str, str]] = {
        "core": {
            "dags_folder": str(dags_folder),
            "executor": "LocalExecutor",
            "parallelism": str(PARALLELISM),
            "load_examples": "False",
            "simple_auth_manager_users": ",".join(f"{u}:{role}" for u, role in ROLES.items()),
            "simple_auth_manager_passwords_file": str(passwords_file),
            "simple_auth_manager_all_admins": "False",
            "execution_api_server_url": f"{url}/execution/",
            "fernet_key": keys["fernet_key"],
        },
        "database": {"sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}"},
        "api": {
            "host": HOST,
            "port": str(port),
            "base_url": url,
            "workers": "1",
            "secret_key": keys["secret_key"],
        },
        "api_auth": {"jwt_secret": keys["jwt_secret"]},
        # A worker waits about a minute for an API server that is started anew. Airflow's own five
        # attempts are over in ten seconds, and each failed start of a task spends one of its tries.
        "workers": {
            "execution_api_retries": str(API_ATTEMPTS),
            "execution_api_retry_wait_max": str(API_WAIT_MAX_S),
        },
        "logging": {"base_log_folder": str(home / "logs")},
        "dag_processor": {"parsing_processes": "1", "refresh_interval": "60"},
        "scheduler": {"enable_health_check": "False"},
    }
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(settings)
    text = io.StringIO()
    parser.write(text)
    write_private(home / "airflow.cfg", text.getvalue())


def migrate(home: Path, environment: Mapping[str, str], log: Path) -> None:
    """Make or upgrade the database; once per version of Airflow."""
    mark = home / "migrated"
    version = _airflow_version()
    if mark.is_file() and mark.read_text() == version and (home / "airflow.db").is_file():
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=MIGRATION_TIMEOUT_S,
            check=False,
        )
    if done.returncode:
        raise StackError(f"Airflow's database cannot be made; {log} ends:\n{last_lines(log)}")
    (home / "airflow.db").chmod(0o600)
    mark.write_text(version)


def _airflow_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("apache-airflow")
    except metadata.PackageNotFoundError as error:
        raise StackError(
            "apache-airflow is not installed; run `make env`, or install the extra `airflow`"
        ) from error
