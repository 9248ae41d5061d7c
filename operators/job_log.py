"""A Ray job's log as it grows: copied into the task's log, kept whole in the store, and watched
for a stall. The log is a view: losing it never fails a task."""

import asyncio
import time
from typing import Any, Protocol

from flywheel_core.errors import FlywheelError, StoreMissing
from flywheel_core.store import open_store
from operators.failures import last_error_line
from operators.ray_jobs import JobsClient, one_line
from operators.threads import in_thread

LINE_CHARS = 1000
KEEP_EVERY_S = 20.0
KEEP_SLOWER_CHARS = 1_000_000
"""A log of this many characters is put half as often, one of twice as many a third: S3 has no
append, and each put is the whole log."""

PROGRESS = "progress: "


class FollowedJob(Protocol):
    """What the follower needs of the trigger it works for."""

    submission_id: str
    store_root: str
    log_path: str
    poll_s: float
    stall_after_s: float
    address: str

    @property
    def log(self) -> Any:
        """The task's log."""

    @property
    def is_running(self) -> bool:
        """Whether the job has been given what it asked for."""

    async def client(self) -> JobsClient:
        """Ray's client."""


class LogFollower:
    """Copies a job's log, line by line, and keeps it."""

    def __init__(self, job: FollowedJob) -> None:
        self._job = job
        self._text = ""
        self._shown_chars = 0
        self._kept_chars = 0
        self._kept_at_s = time.monotonic()
        self._reports_progress = False
        self.progressed_at_s = time.monotonic()
        self.last_line = ""

    @property
    def error_line(self) -> str | None:
        """The job's own last `error: …` line, as far as the log has come."""
        return last_error_line(self._text)

    async def follow(self) -> None:
        """Until cancelled or the job's log ends; a broken connection is taken up again."""
        self._kept_chars = self._shown_chars = await in_thread(self._chars_in_store)
        while True:
            try:
                client: Any = await self._job.client()
                text = ""  # a connection tells the log from its beginning
                async for piece in client.tail_job_logs(self._job.submission_id):
                    text += piece
                    self._take(text)
                    await self._keep_sometimes()
                return
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._job.log.debug("log of the job: %s", one_line(error))
                await asyncio.sleep(self._job.poll_s)

    async def keep_whole(self) -> None:
        """Put the whole log, as Ray has it or else as it came, into the store."""
        try:
            client = await self._job.client()
            self._take(await in_thread(client.get_job_logs, self._job.submission_id))
        except Exception as error:
            self._job.log.debug("log of the job: %s", one_line(error))
        self._show(to_the_end=True)
        await self._keep()

    def _take(self, text: str) -> None:
        """A log only grows: what a new head or a cut connection knows less of is not taken."""
        if len(text) >= len(self._text):
            self._text = text
            self._show()

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
                self._job.log.info("%s", shown[:LINE_CHARS])
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
        every_s = KEEP_EVERY_S * (1 + len(self._text) / KEEP_SLOWER_CHARS)
        if time.monotonic() - self._kept_at_s >= every_s:
            await self._keep()

    async def _keep(self) -> None:
        """Never a shorter log over a longer one."""
        text = self._text
        self._kept_at_s = time.monotonic()
        if len(text) <= self._kept_chars:
            return
        try:
            await in_thread(self._put, text.encode())
            self._kept_chars = len(text)
        except FlywheelError as error:
            self._job.log.warning("the job's log is not kept: %s", one_line(error))

    def _put(self, data: bytes) -> None:
        open_store(self._job.store_root).put(self._job.log_path, data)

    def _chars_in_store(self) -> int:
        try:
            data = open_store(self._job.store_root).get(self._job.log_path)
        except (StoreMissing, FlywheelError):
            return 0
        return len(data.decode(errors="replace"))


class StallWatch:
    """Says so when a running job has shown no progress for too long: an alert, never a silence."""

    def __init__(self, job: FollowedJob, follower: LogFollower) -> None:
        self._job = job
        self._follower = follower

    async def watch(self) -> None:
        """Until cancelled. Waiting for GPUs is no stall: the clock starts when the job runs."""
        quiet_since_s = time.monotonic()
        while True:
            await asyncio.sleep(min(self._job.stall_after_s / 4, 30.0))
            if not self._job.is_running:
                quiet_since_s = time.monotonic()
                continue
            quiet_since_s = max(quiet_since_s, self._follower.progressed_at_s)
            if time.monotonic() - quiet_since_s >= self._job.stall_after_s:
                await self._alert()
                quiet_since_s = time.monotonic()

    async def _alert(self) -> None:
        from operators.notify import tell

        job = self._job
        silent_min = (time.monotonic() - self._follower.progressed_at_s) / 60
        body = (
            f"Ray job {job.submission_id} has shown no progress for {silent_min:.0f} min "
            f"(last line: {self._follower.last_line or 'none'}). Look at "
            f"{job.address}/#/jobs/{job.submission_id}; clearing the task starts the job again "
            "from its last shard or checkpoint."
        )
        job.log.error("%s", body)
        await in_thread(tell, f"stall: {job.submission_id}", body, job.log)
