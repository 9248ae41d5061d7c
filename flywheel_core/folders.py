"""Folders that a command fills, so that the same command goes on after a crash.

A folder is *claimed* while it is empty: it then belongs to exactly these inputs under this
configuration, and another command is refused. Files appear whole or not at all.
"""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import digest_of
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.store import write_whole

__all__ = ["CLAIM_FILE", "claim", "unfinished_path", "write_whole"]

CLAIM_FILE = "job.json"
UNFINISHED = ".tmp-"


def claim(folder: Path, name: str, what: Mapping[str, Any]) -> None:
    """Mark the folder as that of the job `name` over `what` (JSON), or see that it is.

    An unmarked folder that holds a file is somebody else's (`ConfigError`): what lies there would
    be taken for this job's.
    """
    fingerprint = digest_of([name, dict(what)])
    path = folder / CLAIM_FILE
    held = {one.name for one in folder.iterdir()} if folder.exists() else set()
    if CLAIM_FILE not in held:
        foreign = sorted(one for one in held if not one.startswith(UNFINISHED))
        if foreign:
            raise ConfigError(
                f"{name}: {folder} already holds {foreign[0]!r} and {len(foreign) - 1} more, and "
                f"is not marked as the folder of a {name}; give an empty or a new folder"
            )
        write_whole(path, json.dumps({"name": name, "fingerprint": fingerprint}).encode())
    try:
        found = json.loads(path.read_text())["fingerprint"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputDataError(
            f"{path} is not the mark of a job; give an empty folder, or remove that file"
        ) from error
    if found != fingerprint:
        raise ConfigError(
            f"{name}: {folder} holds what was made from other inputs or under another "
            "configuration; give an empty folder, or remove that one"
        )


def unfinished_path(path: Path) -> Path:
    """Where a file lies until it is whole; nobody else writes there."""
    return path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}-{path.name}")
