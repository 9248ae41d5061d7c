"""Days that were logged in part: far fewer events per exposed user than the rest leads to expect.

Two comparisons, each beyond a factor and beyond `SURE_SE` standard errors of chance:

- *One arm.* The ratio of the arms' events per exposed user on a day, over that ratio on the other
  days: below 1 / `ARMS_FACTOR` the arm's logging is broken. An effect of the candidate is there on
  the other days too and cancels, however large it is. On the first day there is no other one, and
  the arms are compared as they are: a loss of more than half waits for the second day.
- *Both arms.* A day's events per exposed user over those of the other days (the lower median: on
  their first day all users are there, later few): below 1 / `DAYS_FACTOR` the day was not fully
  ingested. Weekends and holidays move a product's use less; and an equal loss in both arms biases
  no lift.

What this hides: an arm that loses more than half of its events from one day to the next and not
before. The paper's largest effect is +19.4 %. Logs cannot tell such a collapse from lost rows; the
day waits for a person, moves nothing forward, and the reason says how to end the experiment. What
it does not see: an arm that loses the same share on every day, which looks like an effect.
"""

import datetime
import math
import statistics

from flywheel_core.experiments.logs import ARMS
from flywheel_core.experiments.users import Sums

ARMS_FACTOR = 2.0
DAYS_FACTOR = 4.0
SURE_SE = 3.0


def thin_day(sums: Sums, day: int, first: datetime.date) -> str | None:
    """Which day up to `day` was logged in part, or None. Every arm must have events on each."""
    rates = [
        [_log_rate(sums, one, [place]) for place in range(len(ARMS))] for one in range(day + 1)
    ]
    found = _thin_arm(rates)
    if found is not None:
        one, place, share = found
        other = ARMS[1 - place]
        return (
            f"the {ARMS[place]} arm has {100 * share:.2g} % of the events on "
            f"{first + datetime.timedelta(days=one)} that the {other} arm and the other days lead "
            "to expect; a part of that day is lost: ingest it again, or if all of it is there, "
            "end the experiment (`flywheel ab end`)"
        )
    thin = _thin_both([_log_rate(sums, one, [0, 1]) for one in range(day + 1)])
    if thin is None:
        return None
    return (
        f"both arms have {100 * thin[1]:.2g} % of the other days' events per user on "
        f"{first + datetime.timedelta(days=thin[0])}; a part of that day is lost: ingest it again"
    )


def _log_rate(sums: Sums, day: int, places: list[int]) -> tuple[float, float]:
    """The logarithm of the events per exposed user on a day, and its variance (delta method)."""
    users, events, squares = (
        sum(sums.counts[what, one, place] for place in places for one in days)
        for what, days in (
            ("users_new", range(day + 1)),
            ("usual_events", (day,)),
            ("usual_squares", (day,)),
        )
    )
    return math.log(events / users), squares / events**2 - 1 / users


def _thin_arm(rates: list[list[tuple[float, float]]]) -> tuple[int, int, float] | None:
    """Day, arm and share of what was expected, of the worst."""
    gaps = [control[0] - test[0] for control, test in rates]
    variances = [control[1] + test[1] for control, test in rates]
    found = []
    for day, gap in enumerate(gaps):
        usual, usual_variance = 0.0, 0.0
        if len(gaps) > 1:
            others = (1 - day,) if len(gaps) == 2 else range(len(gaps))
            usual = statistics.median([gaps[one] for one in others])
            usual_variance = statistics.median([variances[one] for one in others])
        off = gap - usual
        if _is_thin(-abs(off), variances[day] + usual_variance, ARMS_FACTOR):
            place = 1 if off > 0 else 0  # of two days that differ, the one with fewer events
            found.append((-abs(off), rates[day][place][0], day, place))
    if not found:
        return None
    worst, _, day, place = min(found)
    return day, place, math.exp(worst)


def _thin_both(rates: list[tuple[float, float]]) -> tuple[int, float] | None:
    """Day and share of what was expected, of the worst."""
    if len(rates) < 3:
        return None
    usual, usual_variance = sorted(rates)[(len(rates) - 1) // 2]
    worst, variance = min(rates)
    if not _is_thin(worst - usual, variance + usual_variance, DAYS_FACTOR):
        return None
    return rates.index((worst, variance)), math.exp(worst - usual)


def _is_thin(off: float, variance: float, factor: float) -> bool:
    return off < -math.log(factor) and off < -SURE_SE * math.sqrt(max(0.0, variance))
