"""What the chaos jobs did, one line an event, in a file outside the store."""

import json
import os
import time

EVENTS_VARIABLE = "FLYWHEEL_CHAOS_EVENTS"


def note(event: str, *, stage: str, key: str, number: int = -1) -> None:
    """Append one event. A single short write to a file opened for appending is never split, and
    the order of lines is the order of writes."""
    line = {
        "event": event,
        "stage": stage,
        "key": key,
        "number": number,
        "pid": os.getpid(),
        "submission_id": submission_id(),
        "at_s": time.time(),
    }
    descriptor = os.open(os.environ[EVENTS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


def submission_id() -> str:
    """This job's id, as Ray hands it to the driver; empty in a worker."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return str(config.get("metadata", {}).get("job_submission_id", ""))
