"""Waits for a Ray job: polls it, follows its log, and stops it when its time is over.

It lives in the triggerer and outlasts restarts: everything it needs is in its arguments, and how
much of the log was kept, and when the job began to run, is in the store.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from flywheel_core.budget import record_start, record_usage
from flywheel_core.errors import FlywheelError
from flywheel_core.store import open_store
from operators.job_log import LogFollower, StallWatch
from operators.ray_jobs import TERMINAL, JobsClient, is_unknown, one_line, open_client, status_of
from operators.threads import in_thread

POLL_S = 2.0
MAX_POLL_FAILURES = 12
MAX_BACKOFF_S = 30.0
STOP_GRACE_S = 30.0
AWAY_POLL_S = 5.0
LOG_TAIL_GRACE_S = 5.0

Answer = TypeVar("Answer")


class RayJobTrigger(BaseTrigger):
    """Fires once: `{"ended": "finished" | "deadline" | "budget" | "unknown" | "unreachable", …}`.

    `submitted_at_s` is seconds since 1970 by Airflow's clock, so a restart of the triggerer gives
    no extra time and Ray's clock does not matter. The job is stopped `timeout_s` after that, and
    once it has *run* for `budget_s` (waiting for GPUs uses none). One whose log shows no progress
    for `stall_after_s` is reported, again and again, but not stopped. What it used of `num_gpus`
    is recorded at `usage_path` when it ends.
    """

    def __init__(
        self,
        *,
        address: str,
        submission_id: str,
        store_root: str,
        log_path: str,
        submitted_at_s: float,
        timeout_s: float,
        budget_s: float | None,
        stall_after_s: float,
        usage_path: str,
        num_gpus: float,
        poll_s: float = POLL_S,
        max_poll_failures: int = MAX_POLL_FAILURES,
    ) -> None:
        super().__init__()
        self.address = address
        self.submission_id = submission_id
        self.store_root = store_root
        self.log_path = log_path
        self.submitted_at_s = submitted_at_s
        self.timeout_s = timeout_s
        self.budget_s = budget_s
        self.stall_after_s = stall_after_s
        self.usage_path = usage_path
        self.num_gpus = num_gpus
        self.poll_s = poll_s
        self.max_poll_failures = max_poll_failures
        self._client: JobsClient | None = None
        self._was_pending = False
        self._started_at_s: float | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "address": self.address,
                "submission_id": self.submission_id,
                "store_root": self.store_root,
                "log_path": self.log_path,
                "submitted_at_s": self.submitted_at_s,
                "timeout_s": self.timeout_s,
                "budget_s": self.budget_s,
                "stall_after_s": self.stall_after_s,
                "usage_path": self.usage_path,
                "num_gpus": self.num_gpus,
                "poll_s": self.poll_s,
                "max_poll_failures": self.max_poll_failures,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        follower = LogFollower(self)
        following = asyncio.create_task(follower.follow())
        watching = asyncio.create_task(StallWatch(self, follower).watch())
        try:
            event = await self._wait()
            watching.cancel()
            await asyncio.wait({following}, timeout=LOG_TAIL_GRACE_S)
        finally:
            following.cancel()
            watching.cancel()
            await asyncio.gather(following, watching, return_exceptions=True)
        await follower.keep_whole()
        if event["ended"] != "unreachable":  # such a job may live, and whoever attaches counts it
            await self._record_usage()
        # With the event, because the store that should hold the log may be what failed.
        said = {"submission_id": self.submission_id, "said": follower.error_line}
        yield TriggerEvent(event | said)

    async def on_kill(self) -> None:
        """Somebody cleared or marked the task: the job ends with it."""
        self.log.info("task ended by a person: stopping Ray job %s", self.submission_id)
        await self._stop()
        await LogFollower(self).keep_whole()
        await self._record_usage()

    @property
    def is_running(self) -> bool:
        """Whether the job has been seen running."""
        return self._started_at_s is not None

    async def client(self) -> JobsClient:
        if self._client is None:
            self._client = await in_thread(open_client, self.address)
        return self._client

    async def _wait(self) -> dict[str, Any]:
        failures = 0
        while True:
            try:
                client = await self.client()
                job = await in_thread(client.get_job_info, self.submission_id)
            except Exception as error:  # bounded: Ray may be restarting
                if is_unknown(error):
                    return {"ended": "unknown", "message": str(error)}
                failures += 1
                self._client = None
                self.log.warning("Ray does not answer (%d): %s", failures, one_line(error))
                if failures >= self.max_poll_failures:
                    return {"ended": "unreachable", "message": one_line(error)}
                await asyncio.sleep(min(MAX_BACKOFF_S, self.poll_s * 2 ** (failures - 1)))
                continue
            failures = 0
            if status_of(job) in TERMINAL:
                return _finished(job)
            await self._note_start(status_of(job))
            out_of_time = self._out_of_time()
            if out_of_time is not None:
                self.log.error("%s is over: stopping Ray job %s", out_of_time, self.submission_id)
                return {"ended": out_of_time, "stopped": await self._stop()}
            await asyncio.sleep(self.poll_s)

    def _out_of_time(self) -> str | None:
        """`deadline` or `budget`, where the job has had all of it."""
        now_s = time.time()
        if now_s > self.submitted_at_s + self.timeout_s:
            return "deadline"
        if self.budget_s is not None and self._started_at_s is not None:
            return "budget" if now_s > self._started_at_s + self.budget_s else None
        return None

    async def _note_start(self, status: str) -> None:
        """When the job got its GPUs; kept in the store, so that a later triggerer knows. Where
        nobody saw it wait, it counts from its submission."""
        if status != "RUNNING":
            self._was_pending = True
        elif self._started_at_s is None:
            seen_at_s = time.time() if self._was_pending else self.submitted_at_s
            self._started_at_s = await self._in_store(record_start, seen_at_s) or seen_at_s

    async def _in_store(self, call: Callable[..., Answer], *arguments: Any) -> Answer | None:
        """A record about this job's use; losing one is a warning."""

        def work() -> Answer:
            return call(open_store(self.store_root), self.usage_path, *arguments)

        try:
            return await in_thread(work)
        except FlywheelError as error:
            self.log.warning("use of %s not recorded: %s", self.submission_id, error)
            return None

    async def _stop(self) -> bool:
        """Stop the job and wait until it has stopped, as long as that is worth waiting."""
        try:
            client = await self.client()
            await in_thread(client.stop_job, self.submission_id)
            ends_s = time.monotonic() + STOP_GRACE_S
            while time.monotonic() < ends_s:
                job = await in_thread(client.get_job_info, self.submission_id)
                if status_of(job) in TERMINAL:
                    return True
                await asyncio.sleep(min(1.0, self.poll_s))
        except Exception as error:  # the event must fire whatever Ray does
            self.log.warning("could not stop %s: %s", self.submission_id, one_line(error))
        return False

    async def _record_usage(self) -> None:
        """From when it ran; a job that was seen waiting and never running used nothing."""
        started_at_s = self._started_at_s
        if started_at_s is None:
            started_at_s = time.time() if self._was_pending else self.submitted_at_s
        await self._in_store(record_usage, self.num_gpus, time.time() - started_at_s)


class RayAwayTrigger(BaseTrigger):
    """Waits for a Ray that is away: fires `{"ended": "back"}` when it answers again, or
    `{"ended": "away", "message": …}` at `until_s` (seconds since 1970).

    It never fires at once: a head that answers may not take jobs yet.
    """

    def __init__(
        self, *, address: str, until_s: float, message: str, poll_s: float = AWAY_POLL_S
    ) -> None:
        super().__init__()
        self.address = address
        self.until_s = until_s
        self.message = message
        self.poll_s = poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "address": self.address,
                "until_s": self.until_s,
                "message": self.message,
                "poll_s": self.poll_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while True:
            await asyncio.sleep(self.poll_s)
            if time.time() > self.until_s:
                yield TriggerEvent({"ended": "away", "message": self.message})
                return
            try:
                client = await in_thread(open_client, self.address)
                await in_thread(client.list_jobs)
            except Exception as error:  # whatever it is: that Ray does not answer
                self.log.info("Ray is still away: %s", one_line(error))
                continue
            yield TriggerEvent({"ended": "back"})
            return


def _finished(job: Any) -> dict[str, Any]:
    return {
        "ended": "finished",
        "status": status_of(job),
        "message": str(job.message or ""),
        "driver_exit_code": getattr(job, "driver_exit_code", None),
        "error_type": str(getattr(job, "error_type", None) or "") or None,
    }
