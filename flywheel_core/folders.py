"""Folders that a command fills, so that the same command goes on after a crash.

A folder is *claimed* before the first file is written: it then belongs to exactly these inputs
under this configuration, and another command is refused. Files appear whole or not at all.
"""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import digest_of
from flywheel_core.errors import ConfigError, InputDataError

CLAIM_FILE = "job.json"


def claim(folder: Path, name: str, what: Mapping[str, Any]) -> None:
    """Mark the folder as that of the job `name` over `what` (JSON), or see that it is."""
    fingerprint = digest_of([name, dict(what)])
    path = folder / CLAIM_FILE
    if not path.exists():
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


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(path)
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


def unfinished_path(path: Path) -> Path:
    """Where a file lies until it is whole; nobody else writes there."""
    return path.with_name(f".tmp-{uuid.uuid4().hex}-{path.name}")
