"""Waits in the triggerer until every day of traffic has been ingested, or time is up."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from flywheel_core.days import missing_days
from flywheel_core.errors import FlywheelError
from flywheel_core.store import open_store


class TrafficTrigger(BaseTrigger):
    """Fires once: `{"missing": […]}`, empty when every day is there.

    `named` are the missing days that the task's log names already; it names them anew whenever
    they change.
    `deadline_at_s` is seconds since 1970, so a restart of the triggerer gives no extra time. A
    store that does not answer is asked again until then.
    """

    def __init__(
        self,
        *,
        store_root: str,
        flywheel: str,
        days: list[str],
        named: list[str],
        poll_s: float,
        deadline_at_s: float,
    ) -> None:
        super().__init__()
        self.store_root = store_root
        self.flywheel = flywheel
        self.days = days
        self.named = named
        self.poll_s = poll_s
        self.deadline_at_s = deadline_at_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "store_root": self.store_root,
                "flywheel": self.flywheel,
                "days": self.days,
                "named": self.named,
                "poll_s": self.poll_s,
                "deadline_at_s": self.deadline_at_s,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        missing = tuple(self.days)
        said = waiting_for(tuple(self.named), self.days, self.flywheel)
        while True:
            try:
                missing = await asyncio.to_thread(self._missing)
                now_said = waiting_for(missing, self.days, self.flywheel)
            except FlywheelError as error:
                now_said = f"the store does not answer: {error}"
            if not missing or time.time() > self.deadline_at_s:
                break
            if now_said != said:
                said = now_said
                self.log.info("%s", said)
            await asyncio.sleep(self.poll_s)
        yield TriggerEvent({"missing": list(missing)})

    def _missing(self) -> tuple[str, ...]:
        return missing_days(open_store(self.store_root), self.flywheel, tuple(self.days))


def waiting_for(missing: tuple[str, ...], days: list[str], flywheel: str) -> str:
    """What is missing and what ends the wait, in one line of a log."""
    return (
        f"waiting for {len(missing)} of {len(days)} days of traffic: {', '.join(missing)}; "
        f"`flywheel ingest FILE --flywheel {flywheel}` brings one in"
    )
