"""From a failed job's log to the one sentence that an on-call engineer reads."""

import re
from collections.abc import Mapping
from typing import Any

from flywheel_core.errors import StoreError
from flywheel_core.plan import PlannedStage
from flywheel_core.store import Store
from operators.ray_jobs import SIGNALLED

NO_MODULE = re.compile(
    r"(?:No module named|Error while finding module specification for) '?([\w.]+)'?"
)

LAST_LINES = 5


def cause_in_log(store: Store, path: str, event: Mapping[str, Any]) -> str:
    """The job's own last error line; without one, what Ray says of its end."""
    try:
        log = store.get(path).decode(errors="replace")
    except StoreError:
        log = ""
    said = event.get("said") or last_error_line(log) or _killed(event)
    said = said or _missing_module(log) or _first_line(event.get("message")) or last_line(log)
    return f"{said or 'no message'} ({event.get('status')})"


def last_error_line(log: str) -> str | None:
    """The job's own last `error: …` line."""
    for line in reversed(log.splitlines()):
        if line.startswith("error: "):
            return line.removeprefix("error: ").strip()
    return None


def last_line(log: str) -> str | None:
    """The last line that says anything."""
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), None)


def empty_success(stage: PlannedStage, submission_id: str) -> str:
    return (
        f"{stage.name} (key {stage.ref.key}): Ray job {submission_id} ended as succeeded, but "
        f"there is no {stage.ref.path}/manifest.json. Does the job write to the same store as "
        "Airflow reads? Clear this task to submit it once more."
    )


def _missing_module(log: str) -> str | None:
    """A package that the cluster lacks, where the job could not even start to say so itself. Only
    at the log's end: libraries warn of modules that they can do without."""
    found = NO_MODULE.findall("\n".join(log.strip().splitlines()[-LAST_LINES:]))
    if not found:
        return None
    return (
        f"the cluster's image has no module {found[-1]!r}; install this repository's `worker` "
        "extra there (docker/Dockerfile), or name the wheel in the recipe's execution.runtime_env"
    )


def _killed(event: Mapping[str, Any]) -> str | None:
    """Which signal ended the driver, where one did."""
    code = event.get("driver_exit_code")
    if code is None or 0 <= code <= SIGNALLED:
        return None
    return f"its driver was killed by signal {-code if code < 0 else code - SIGNALLED}"


def _first_line(message: Any) -> str | None:
    text = str(message or "").strip()
    return text.splitlines()[0] if text else None
