"""One live line a task while a DAG run is watched; plain lines where nobody sees them move."""

import datetime
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

STYLES = {
    "success": "green",
    "failed": "bold red",
    "upstream_failed": "red",
    "running": "cyan",
    "deferred": "cyan",
    "awaiting_input": "bold yellow",
    "skipped": "dim",
}
QUIET = {None, "scheduled", "queued", "none"}


class TaskBoard:
    """Shows task instances as Airflow's API returns them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._last: dict[str, str | None] = {}

    def __enter__(self) -> "TaskBoard":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """A line beside the board."""
        self._console.print(line, highlight=False)

    def show(self, tasks: list[dict[str, Any]]) -> None:
        """Bring the board up to date."""
        ordered = sorted(tasks, key=lambda task: (task["start_date"] or "9", task["task_id"]))
        if self._live:
            self._live.update(_table(ordered))
            return
        for task in ordered:
            name, state = task["task_id"], task["state"]
            if state not in QUIET and self._last.get(name) != state:
                self._console.print(f"{name:<22}{state:<16}{_elapsed(task)}", highlight=False)
            self._last[name] = state


def _table(tasks: list[dict[str, Any]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for task in tasks:
        style = STYLES.get(task["state"], "dim")
        state = task["state"] or "waiting"
        table.add_row(task["task_id"], f"[{style}]{state}[/]", _elapsed(task))
    return table


def _elapsed(task: dict[str, Any]) -> str:
    """Wall time of a task so far; nothing before it has started."""
    if not task["start_date"]:
        return ""
    start = datetime.datetime.fromisoformat(task["start_date"])
    end = (
        datetime.datetime.fromisoformat(task["end_date"])
        if task["end_date"]
        else datetime.datetime.now(datetime.UTC)
    )
    return f"{(end - start).total_seconds():.0f} s"
