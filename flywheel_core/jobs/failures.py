"""How a stage's job says why it failed, and whether another try may go through."""

import errno
import sys
import traceback

from flywheel_core.errors import FlywheelError

EXIT_FAILED = 1
EXIT_TRANSIENT = 75
"""sysexits' EX_TEMPFAIL: Airflow's side tries again (`operators.ray_jobs.was_interrupted`)."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def report_failure(error: BaseException) -> int:
    """Print why a stage failed, as its last line, and return the exit code."""
    if not isinstance(error, FlywheelError):
        traceback.print_exception(error)
    print(f"error: {explain(error)}", flush=True)
    return EXIT_TRANSIENT if is_transient(error) else EXIT_FAILED


def explain(error: BaseException) -> str:
    """One sentence: what went wrong, and what to do where that can be told from its kind."""
    if isinstance(error, FlywheelError):
        return " ".join(str(error).split())
    if is_full_disk(error):
        return f"no space is left on the job's machine ({error}); free some, then clear this task"
    if isinstance(error, ImportError):
        return (
            f"the cluster's image lacks a package ({error}); install this repository's `worker` "
            "extra there, or name the wheel in the recipe's execution.runtime_env"
        )
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def is_transient(error: BaseException) -> bool:
    """A lost node or connection; never a fault of code, data or configuration."""
    if isinstance(error, FlywheelError):
        return error.transient
    return isinstance(error, ConnectionError | TimeoutError) or _ray_lost_something(error)


def is_full_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in NO_SPACE


def _ray_lost_something(error: BaseException) -> bool:
    """Ray's own errors, where this process uses Ray: not those that a task of ours raised."""
    exceptions = sys.modules.get("ray.exceptions")
    if exceptions is None or not isinstance(error, exceptions.RayError):
        return False
    return not isinstance(error, exceptions.RayTaskError)
