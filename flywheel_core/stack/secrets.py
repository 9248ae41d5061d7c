"""Passwords and keys of a stack: made once with `secrets`, in files only the owner can read."""

import base64
import json
import os
import secrets
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from flywheel_core.errors import ConfigError, StackError

ROLES = {
    "admin": "admin",
    "release_manager": "user",
    "on_call": "op",
    "service": "viewer",
}
"""Seeded users and their roles in Airflow's simple auth manager. `user` may answer a human task,
`op` may also clear and mark tasks, `viewer` only reads."""

SERVICE_USER = "service"


class ServiceCredentials(BaseModel):
    """The read-only account `promote` reads Airflow's own record with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    username: str
    password: str


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, appearing whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def passwords(path: Path) -> dict[str, str]:
    """Every seeded user's password; missing ones are made."""
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    missing = [user for user in ROLES if user not in known]
    if missing or not path.is_file():
        known |= {user: secrets.token_urlsafe(18) for user in missing}
        write_private(path, json.dumps(known, indent=1) + "\n")
    path.chmod(0o600)
    return known


def password_of(path: Path, user: str) -> str:
    """One user's password, or which users there are."""
    known = passwords(path)
    if user not in known:
        raise StackError(f"user {user!r} has no password in {path}; users: {', '.join(known)}")
    return known[user]


def airflow_keys(path: Path) -> dict[str, str]:
    """Airflow's signing and encryption keys, the same at every start."""
    if not path.is_file():
        keys = {
            "jwt_secret": secrets.token_urlsafe(96),
            "secret_key": secrets.token_urlsafe(48),
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        }
        write_private(path, json.dumps(keys, indent=1) + "\n")
    found: dict[str, str] = json.loads(path.read_text())
    return found


def ray_token(path: Path) -> str:
    """The token that every call to this stack's Ray carries, the same at every start."""
    if not path.is_file():
        write_private(path, secrets.token_hex(32))
    return path.read_text().strip()


def read_service_credentials(path: Path) -> ServiceCredentials:
    """The service account's file, refused where others can read it."""
    if not path.is_file():
        raise ConfigError(f"service credentials: no file {path}; run `flywheel up`")
    if path.stat().st_mode & 0o077:
        raise ConfigError(
            f"service credentials {path}: mode {path.stat().st_mode & 0o777:o} lets others read "
            "the file; chmod 600 it"
        )
    return ServiceCredentials.model_validate_json(path.read_text())
