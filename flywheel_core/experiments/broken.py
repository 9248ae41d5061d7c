"""Days that cannot be read, and what was left out of those that can."""

import datetime

from flywheel_core.experiments.logs import ARMS
from flywheel_core.experiments.thin import thin_day
from flywheel_core.experiments.users import Sums

COUNTED = (
    "exposures_before_window",
    "exposures_after_window",
    "events_unexposed",
    "events_before_exposure",
    "events_after_window",
    "events_skewed",
    "events_duplicate",
)


def broken_day(sums: Sums, day: int, first: datetime.date) -> str | None:
    """Why the logs up to `day` cannot be read, or None.

    A day without a row is broken, never flat: an empty partition and a quiet day look alike. Of
    events every day must have some from each arm that has users, and no fraction of what is to be
    expected (`thin_day`). Of exposures every day must have some that a later one of those read
    follows, and so must the last, where each of at least two earlier days has them (an experiment
    may expose everybody on its first day).
    """
    exposed = [sums.counts["exposures_of_day", one, -1] for one in range(day + 1)]
    last_exposure = max((one for one in range(day + 1) if exposed[one]), default=-1)
    for one in range(day + 1):
        date = first + datetime.timedelta(days=one)
        if (not exposed[one] and one < last_exposure) or (one == 0 and not exposed[0]):
            return (
                f"exposures of {date} are missing, while later days are there; ingest that day, "
                "then read again"
            )
        counts = [sums.counts["usual_events", one, place] for place in range(len(ARMS))]
        if not any(counts):
            return f"events of {date} are missing; ingest that day, then read again"
        if not all(counts):
            arm = ARMS[counts.index(0)]
            return (
                f"the {arm} arm has no event on {date}, the other one has {max(counts):,}; its "
                "logging is broken, mend it and ingest that day again"
            )
    if day >= 2 and not exposed[day] and all(exposed[:day]):
        return (
            f"exposures of {first + datetime.timedelta(days=day)} are missing, while every day "
            "before has some; ingest that day, then read again"
        )
    return thin_day(sums, day, first)


def left_out(sums: Sums, day: int) -> dict[str, int]:
    """How many rows and users were not counted by the end of `day`, by reason."""
    found = {name: sums.counts[name, -1, -1] for name in COUNTED}
    found["users_in_both_arms"] = sums.counts["users_in_both_arms", day, -1]
    for place, arm in enumerate(ARMS):
        found[f"bots_{arm}"] = sums.counts["users_bots", day, place]
    return found
