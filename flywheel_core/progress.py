"""Progress for whoever sits in front of a terminal: on standard error, which leaves standard output
to the result."""

import sys
import time
from dataclasses import dataclass, field


@dataclass
class TerminalProgress:
    """One line a piece of work at its start and end, and at most one every `interval_s` between."""

    interval_s: float = 2.0
    _last_s: float = 0.0
    _shown: set[str] = field(default_factory=set)

    def __call__(self, done: int, total: int, what: str = "") -> None:
        now_s = time.monotonic()
        is_news = what not in self._shown or (total and done >= total)
        if not is_news and now_s - self._last_s < self.interval_s:
            return
        self._shown.add(what)
        self._last_s = now_s
        of = f"/{total}" if total else ""
        print(f"progress: {what} {done}{of}", file=sys.stderr, flush=True)
