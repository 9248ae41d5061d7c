"""How far a server's clock is from this machine's, by the date it answers with."""

import time
from email.utils import parsedate_to_datetime

import httpx

MAX_OFFSET_S = 120.0
TIMEOUT_S = 5.0


def clock_offset_s(url: str) -> float | None:
    """Seconds by which the server at `url` is ahead; None where it does not answer or say."""
    try:
        asked_s = time.time()
        answer = httpx.get(url, timeout=TIMEOUT_S)
        there_s = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (httpx.HTTPError, KeyError, ValueError):
        return None
    return there_s - (asked_s + time.time()) / 2


def clock_fault(url: str) -> str | None:
    """One sentence where the two clocks differ by more than two minutes."""
    offset_s = clock_offset_s(url)
    if offset_s is None or abs(offset_s) <= MAX_OFFSET_S:
        return None
    return (
        f"the clock of {url} is {abs(offset_s) / 60:.0f} min "
        f"{'ahead of' if offset_s > 0 else 'behind'} this machine's. Deadlines and budgets are "
        "kept on this machine's clock alone, but logs and object stores will disagree: set both "
        "by NTP"
    )
