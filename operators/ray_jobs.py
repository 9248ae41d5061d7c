"""What a stage's Ray job is, and the rule that no key ever has two live ones.

Free of Airflow, and of Ray except behind `open_client`, so the rule can be tested with a fake.
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flywheel_core.errors import JobError

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
MAX_RACES = 5
GIB = 2**30
PATIENCE_S = (2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)


class JobsClient(Protocol):
    """The part of `ray.job_submission.JobSubmissionClient` we use."""

    def submit_job(self, *, entrypoint: str, submission_id: str, **options: Any) -> str: ...

    def list_jobs(self) -> list[Any]: ...

    def get_job_info(self, job_id: str) -> Any: ...

    def get_job_logs(self, job_id: str) -> str: ...

    def stop_job(self, job_id: str) -> bool: ...


@dataclass(frozen=True)
class JobRequest:
    """One stage as a Ray job. Ids are `<prefix>-<n>`, and the prefix holds the stage's key."""

    prefix: str
    entrypoint: str
    num_cpus: float = 0
    num_gpus: float = 0
    memory_gib: float = 0
    env_vars: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LiveJob:
    """A job that is pending or running. `started_at_s` is Ray's own, in seconds since 1970."""

    submission_id: str
    attached: bool
    started_at_s: float | None


@dataclass(frozen=True)
class KnownJob:
    """One job of a prefix, as Ray lists it."""

    submission_id: str
    number: int
    status: str
    started_at_s: float | None

    @property
    def is_live(self) -> bool:
        return self.status not in TERMINAL


def open_client(address: str) -> JobsClient:
    """A client of the Ray at `address`; `JobError` says what to do where there is none."""
    from ray.job_submission import JobSubmissionClient

    try:
        client: JobsClient = JobSubmissionClient(address)
    except ConnectionError as error:
        raise JobError(
            f"Ray does not answer at {address} ({error}); start it (`flywheel up`), then clear "
            "this task"
        ) from error
    return client


def open_client_patiently(address: str, warn: Callable[[str], None]) -> JobsClient:
    """A client, asked for again while Ray restarts: a restarting head is not a failed task."""
    for wait_s in PATIENCE_S:
        try:
            return open_client(address)
        except JobError as error:
            warn(f"{error}; trying again in {wait_s:.0f} s")
            time.sleep(wait_s)
    return open_client(address)


def known_jobs(client: JobsClient, prefix: str) -> list[KnownJob]:
    """Every job of this stage and key that Ray remembers, oldest first."""
    pattern = re.compile(re.escape(prefix) + r"-(\d+)")
    found = []
    for job in client.list_jobs():
        match = pattern.fullmatch(job.submission_id or "")
        if match:
            found.append(
                KnownJob(
                    submission_id=job.submission_id,
                    number=int(match.group(1)),
                    status=status_of(job),
                    started_at_s=job.start_time / 1000 if job.start_time else None,
                )
            )
    return sorted(found, key=lambda job: job.number)


def status_of(job: Any) -> str:
    """`PENDING`, `RUNNING`, `SUCCEEDED`, `FAILED` or `STOPPED`."""
    return str(getattr(job.status, "value", job.status))


def attach_or_submit(client: JobsClient, request: JobRequest) -> LiveJob:
    """The live job of this key, or a new one. Ray's refusal of a used id is the lock."""
    for _ in range(MAX_RACES):
        known = known_jobs(client, request.prefix)
        live = [job for job in known if job.is_live]
        if live:
            return LiveJob(live[-1].submission_id, True, live[-1].started_at_s)
        number = 1 + max((job.number for job in known), default=0)
        submission_id = f"{request.prefix}-{number}"
        if _submit(client, request, submission_id):
            return LiveJob(submission_id, False, None)
    raise JobError(
        f"{request.prefix}: {MAX_RACES} jobs in a row were submitted by somebody else and ended "
        "at once; look at the Ray dashboard"
    )


def _submit(client: JobsClient, request: JobRequest, submission_id: str) -> bool:
    """False if somebody else was first."""
    try:
        client.submit_job(
            entrypoint=request.entrypoint,
            submission_id=submission_id,
            runtime_env={"env_vars": dict(request.env_vars)} if request.env_vars else None,
            metadata=dict(request.metadata),
            entrypoint_num_cpus=request.num_cpus or None,
            entrypoint_num_gpus=request.num_gpus or None,
            entrypoint_memory=int(request.memory_gib * GIB) or None,
        )
    except RuntimeError as error:
        if "already exists" in str(error):
            return False
        raise JobError(f"Ray refused {submission_id}: {error}") from error
    return True


def is_unknown(error: Exception) -> bool:
    """Whether Ray answered that it has no such job: its head was started anew."""
    return isinstance(error, RuntimeError) and "does not exist" in str(error)


def last_error_line(log: str) -> str | None:
    """The job's own last `error: …` line."""
    for line in reversed(log.splitlines()):
        if line.startswith("error: "):
            return line.removeprefix("error: ").strip()
    return None


def last_line(log: str) -> str | None:
    """The last line that says anything."""
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), None)
