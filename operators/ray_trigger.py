"""Waits for a Ray job: polls it, follows its log, and stops it when its time is over.

It lives in the triggerer and outlasts restarts: everything it needs is in its arguments, and how
much of the log was kept is in the store.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from flywheel_core.budget import record_start, record_usage
from flywheel_core.errors import FlywheelError, StoreMissing
from flywheel_core.store import open_store
from operators.ray_jobs import TERMINAL, JobsClient, is_unknown, open_client, status_of

POLL_S = 2.0
MAX_POLL_FAILURES = 12
MAX_BACKOFF_S = 30.0
CALL_TIMEOUT_S = 60.0
"""Ray's client waits for ever; a head that hangs is a head that does not answer."""

STOP_GRACE_S = 30.0
AWAY_POLL_S = 5.0
LOG_TAIL_GRACE_S = 5.0
LINE_CHARS = 1000
KEEP_LOG_EVERY_S = 20.0
PROGRESS = "progress: "

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
        await self._record_usage()
        yield TriggerEvent(event | {"submission_id": self.submission_id})

    async def on_kill(self) -> None:
        """Somebody cleared or marked the task: the job ends with it."""
        self.log.info("task ended by a person: stopping Ray job %s", self.submission_id)
        await self._stop()
        await self._record_usage()

    async def client(self) -> JobsClient:
        if self._client is None:
            self._client = await _ask(open_client, self.address)
        return self._client

    async def _wait(self) -> dict[str, Any]:
        failures = 0
        while True:
            out_of_time = self._out_of_time()
            if out_of_time is not None:
                self.log.error("%s is over: stopping Ray job %s", out_of_time, self.submission_id)
                await self._stop()
                return {"ended": out_of_time}
            try:
                client = await self.client()
                job = await _ask(client.get_job_info, self.submission_id)
            except Exception as error:  # bounded: Ray may be restarting
                if is_unknown(error):
                    return {"ended": "unknown", "message": str(error)}
                failures += 1
                self._client = None
                self.log.warning("Ray does not answer (%d): %s", failures, _one_line(error))
                if failures >= self.max_poll_failures:
                    return {"ended": "unreachable", "message": _one_line(error)}
                await asyncio.sleep(min(MAX_BACKOFF_S, self.poll_s * 2 ** (failures - 1)))
                continue
            failures = 0
            if status_of(job) in TERMINAL:
                return _finished(job)
            await self._note_start(status_of(job))
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
            return await asyncio.to_thread(work)
        except FlywheelError as error:
            self.log.warning("use of %s not recorded: %s", self.submission_id, error)
            return None

    async def _stop(self) -> None:
        """Stop the job and wait until it has stopped, as long as that is worth waiting."""
        try:
            client = await self.client()
            await _ask(client.stop_job, self.submission_id)
            ends_s = time.monotonic() + STOP_GRACE_S
            while time.monotonic() < ends_s:
                job = await _ask(client.get_job_info, self.submission_id)
                if status_of(job) in TERMINAL:
                    return
                await asyncio.sleep(min(1.0, self.poll_s))
        except Exception as error:  # the event must fire whatever Ray does
            self.log.warning("could not stop %s: %s", self.submission_id, _one_line(error))

    async def _record_usage(self) -> None:
        started_at_s = self._started_at_s or self.submitted_at_s
        await self._in_store(record_usage, self.num_gpus, time.time() - started_at_s)


class RayAwayTrigger(BaseTrigger):
    """Waits for a Ray that is away: fires `{"ended": "back"}` when it answers again, or
    `{"ended": "away", "message": …}` at `until_s` (seconds since 1970).

    It never fires at once: a head that answers may not take jobs yet.
    """

    def __init__(self, *, address: str, until_s: float, message: str, poll_s: float = AWAY_POLL_S):
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
                client = await _ask(open_client, self.address)
                await _ask(client.list_jobs)
            except Exception as error:  # whatever it is: that Ray does not answer
                self.log.info("Ray is still away: %s", _one_line(error))
                continue
            yield TriggerEvent({"ended": "back"})
            return


class StallWatch:
    """Says so when a job has shown no progress for too long: an alert, never a silence."""

    def __init__(self, trigger: RayJobTrigger, follower: "LogFollower") -> None:
        self._trigger = trigger
        self._follower = follower

    async def watch(self) -> None:
        """Until cancelled."""
        from operators.notify import tell

        trigger = self._trigger
        alerted_at_s = time.monotonic()
        while True:
            await asyncio.sleep(min(trigger.stall_after_s / 4, 30.0))
            quiet_since_s = max(self._follower.progressed_at_s, alerted_at_s)
            if time.monotonic() - quiet_since_s < trigger.stall_after_s:
                continue
            silent_min = (time.monotonic() - self._follower.progressed_at_s) / 60
            subject = f"stall: {trigger.submission_id}"
            body = (
                f"Ray job {trigger.submission_id} has shown no progress for {silent_min:.0f} min "
                f"(last line: {self._follower.last_line or 'none'}). Look at "
                f"{trigger.address}/#/jobs/{trigger.submission_id}; clearing the task starts the "
                "job again from its last shard or checkpoint."
            )
            trigger.log.error("%s", body)
            await asyncio.to_thread(tell, subject, body, trigger.log)
            alerted_at_s = time.monotonic()


class LogFollower:
    """Copies a job's log into the task's, line by line, and keeps it whole in the store."""

    def __init__(self, trigger: RayJobTrigger) -> None:
        self._trigger = trigger
        self._text = ""
        self._shown_chars = 0
        self._kept_chars = 0
        self._kept_at_s = time.monotonic()
        self._reports_progress = False
        self.progressed_at_s = time.monotonic()
        self.last_line = ""

    async def follow(self) -> None:
        """Until cancelled or the job's log ends; a broken connection is taken up again."""
        self._shown_chars = await asyncio.to_thread(self._chars_in_store)
        while True:
            try:
                client: Any = await self._trigger.client()
                self._text = ""
                async for piece in client.tail_job_logs(self._trigger.submission_id):
                    self._text += piece
                    self._show()
                    await self._keep_sometimes()
                return
            except asyncio.CancelledError:
                raise
            except Exception as error:  # the log is a view: losing it never fails the task
                self._trigger.log.debug("log of the job: %s", _one_line(error))
                await asyncio.sleep(self._trigger.poll_s)

    async def keep_whole(self) -> None:
        """Put the whole log, as Ray has it, into the store."""
        try:
            client = await self._trigger.client()
            whole = await _ask(client.get_job_logs, self._trigger.submission_id)
            self._text = whole if len(whole) >= len(self._text) else self._text
        except Exception as error:
            self._trigger.log.debug("log of the job: %s", _one_line(error))
        self._show(to_the_end=True)
        if self._text:
            await asyncio.to_thread(self._keep)

    def _show(self, *, to_the_end: bool = False) -> None:
        """Log the complete lines that were not shown yet; of a redrawn line the last state."""
        end = len(self._text) if to_the_end else self._text.rfind("\n") + 1
        fresh = self._text[self._shown_chars : end]
        if not fresh:
            return
        self._shown_chars = end
        for line in fresh.split("\n"):
            shown = line.rstrip("\r").rsplit("\r", 1)[-1]
            if shown.strip():
                self._trigger.log.info("%s", shown[:LINE_CHARS])
                self._note(shown)

    def _note(self, line: str) -> None:
        """When the job last got on: once it reports progress, only that counts, because a
        library that repeats a warning gets nowhere."""
        self.last_line = line[:LINE_CHARS]
        is_progress = line.startswith(PROGRESS)
        self._reports_progress = self._reports_progress or is_progress
        if is_progress or not self._reports_progress:
            self.progressed_at_s = time.monotonic()

    async def _keep_sometimes(self) -> None:
        now = time.monotonic()
        if now - self._kept_at_s >= KEEP_LOG_EVERY_S and len(self._text) > self._kept_chars:
            self._kept_at_s = now
            await asyncio.to_thread(self._keep)

    def _keep(self) -> None:
        open_store(self._trigger.store_root).put(self._trigger.log_path, self._text.encode())
        self._kept_chars = len(self._text)

    def _chars_in_store(self) -> int:
        try:
            data = open_store(self._trigger.store_root).get(self._trigger.log_path)
        except StoreMissing:
            return 0
        except FlywheelError:
            return 0
        return len(data.decode(errors="replace"))


async def _ask(call: Callable[..., Answer], *arguments: Any) -> Answer:
    """A call of Ray's blocking client, from a thread, with an end to its patience."""
    return await asyncio.wait_for(asyncio.to_thread(call, *arguments), CALL_TIMEOUT_S)


def _finished(job: Any) -> dict[str, Any]:
    return {
        "ended": "finished",
        "status": status_of(job),
        "message": str(job.message or ""),
        "driver_exit_code": getattr(job, "driver_exit_code", None),
        "error_type": str(getattr(job, "error_type", None) or "") or None,
    }


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
