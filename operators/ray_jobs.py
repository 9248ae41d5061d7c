"""What a stage's Ray job is, and the rule that no key ever has two live ones.

Free of Airflow, and of Ray except behind `open_client`, so the rule can be tested with a fake.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from flywheel_core.errors import JobError, RayRefused, RayUnreachable

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
MAX_RACES = 5
GIB = 2**30


class JobsClient(Protocol):
    """The part of `ray.job_submission.JobSubmissionClient` we use."""

    def submit_job(self, *, entrypoint: str, submission_id: str, **options: Any) -> str: ...

    def list_jobs(self) -> list[Any]: ...

    def get_job_info(self, job_id: str) -> Any: ...

    def get_job_logs(self, job_id: str) -> str: ...

    def stop_job(self, job_id: str) -> bool: ...


@dataclass(frozen=True)
class JobRequest:
    """One stage as a Ray job. Ids are `<prefix>-<n>`, and the prefix holds the stage's key.

    `past_numbers` are numbers of this key that an earlier Ray head gave out: a fresh head knows
    nothing of them, and a second job under one id would write over the first one's log.
    """

    prefix: str
    entrypoint: str
    num_cpus: float = 0
    num_gpus: float = 0
    memory_gib: float = 0
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    past_numbers: frozenset[int] = frozenset()


SUBMITTED_AT = "submitted_at_s"
"""Metadata of a job: when it was submitted, by the clock of Airflow, in seconds since 1970. A
deadline is counted on this clock alone, so that Ray's may be wrong by an hour."""


@dataclass(frozen=True)
class LiveJob:
    """A job that is pending or running, and when it was submitted by Airflow's clock."""

    submission_id: str
    attached: bool
    submitted_at_s: float


@dataclass(frozen=True)
class KnownJob:
    """One job of a prefix, as Ray lists it."""

    submission_id: str
    number: int
    status: str
    submitted_at_s: float

    @property
    def is_live(self) -> bool:
        return self.status not in TERMINAL


@contextmanager
def ray_errors(address: str) -> Iterator[None]:
    """What Ray's client raises, as ours, with the next step. Refusals of a request pass through:
    what they mean depends on what was asked."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise RayRefused(
            f"Ray at {address} refuses our token ({one_line(error)}); give Airflow the token of "
            "this cluster (RAY_AUTH_TOKEN_PATH), then clear this task"
        ) from error
    except OSError as error:  # requests' ConnectionError and Timeout are OSErrors
        raise RayUnreachable(
            f"Ray does not answer at {address} ({one_line(error)}); start it (`flywheel up`, or "
            "the RayCluster), or mend FLYWHEEL_RAY_ADDRESS, then clear this task"
        ) from error
    except RuntimeError as error:
        if not is_server_fault(error):
            raise
        raise RayUnreachable(
            f"Ray at {address} answers with a fault of its own ({one_line(error)}); look at its "
            "dashboard and head log, then clear this task"
        ) from error


def open_client(address: str) -> JobsClient:
    """A client of the Ray at `address`."""
    from ray.job_submission import JobSubmissionClient

    with ray_errors(address):
        client: JobsClient = JobSubmissionClient(address)
    return client


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
                    submitted_at_s=float((job.metadata or {}).get(SUBMITTED_AT, 0)) or time.time(),
                )
            )
    return sorted(found, key=lambda job: job.number)


def status_of(job: Any) -> str:
    """`PENDING`, `RUNNING`, `SUCCEEDED`, `FAILED` or `STOPPED`."""
    return str(getattr(job.status, "value", job.status))


def attach_or_submit(
    client: JobsClient, request: JobRequest, may_submit: Callable[[], None] = lambda: None
) -> LiveJob:
    """The live job of this key, or a new one. Ray's refusal of a used id is the lock.

    `may_submit` raises where nothing new may be started; a live job is attached to all the same.
    """
    for _ in range(MAX_RACES):
        known = known_jobs(client, request.prefix)
        live = [job for job in known if job.is_live]
        if live:
            return LiveJob(live[-1].submission_id, True, live[-1].submitted_at_s)
        may_submit()
        number = 1 + max({job.number for job in known} | request.past_numbers, default=0)
        submission_id = f"{request.prefix}-{number}"
        submitted_at_s = time.time()
        if _submit(client, request, submission_id, submitted_at_s):
            return LiveJob(submission_id, False, submitted_at_s)
    raise JobError(
        f"{request.prefix}: {MAX_RACES} jobs in a row were submitted by somebody else and ended "
        "at once; look at the Ray dashboard"
    )


def _submit(
    client: JobsClient, request: JobRequest, submission_id: str, submitted_at_s: float
) -> bool:
    """False if somebody else was first."""
    try:
        client.submit_job(
            entrypoint=f"{request.entrypoint} --job {submission_id}",
            submission_id=submission_id,
            runtime_env=dict(request.runtime_env) or None,
            metadata={**request.metadata, SUBMITTED_AT: f"{submitted_at_s:.3f}"},
            entrypoint_num_cpus=request.num_cpus or None,
            entrypoint_num_gpus=request.num_gpus or None,
            entrypoint_memory=int(request.memory_gib * GIB) or None,
        )
    except RuntimeError as error:
        if "already exists" in str(error):
            return False
        if is_server_fault(error):
            raise
        raise RayRefused(
            f"Ray refused {submission_id}: {one_line(error)}; mend the recipe's "
            "execution section, then clear this task"
        ) from error
    return True


def is_server_fault(error: Exception) -> bool:
    """Whether Ray's own server failed (HTTP 5xx): its head is starting, stopping or overloaded."""
    return "status code 5" in str(error)


def is_unknown(error: Exception) -> bool:
    """Whether Ray answered that it has no such job: its head was started anew."""
    return isinstance(error, RuntimeError) and "does not exist" in str(error)


EXIT_TRANSIENT = 75
"""How a stage's job ends when its own error may mend itself (sysexits' EX_TEMPFAIL);
`flywheel_core.jobs.base` gives it, and this side does not import jobs."""

SIGNALLED = 128


def was_interrupted(job: Mapping[str, Any]) -> bool:
    """Whether a failed job was ended by its surroundings, so that another try may go through.

    A driver killed by a signal has a negative exit code, or 128 and more where a shell stood
    between. A job without an exit code never ended by itself: its node or its supervisor died,
    unless its runtime environment could not be set up, which will not mend itself.
    """
    code = job.get("driver_exit_code")
    if code is None:
        return job.get("error_type") != "RUNTIME_ENV_SETUP_FAILURE"
    return bool(code == EXIT_TRANSIENT or code < 0 or code > SIGNALLED)


def one_line(error: BaseException) -> str:
    """An error's words on one line, cut where a log line should end."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
