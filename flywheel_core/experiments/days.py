"""From sums over users to what each day says; pure."""

import datetime
from collections.abc import Sequence
from typing import Any

from flywheel_core.errors import InputDataError
from flywheel_core.experiments.breakdowns import explore
from flywheel_core.experiments.broken import broken_day, left_out
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.logs import ARMS, DAY_US, Arm
from flywheel_core.experiments.metrics import METRICS, ArmSums, Metric
from flywheel_core.experiments.reading import Histogram, guardrail_metrics, read_metric
from flywheel_core.experiments.readout import DayReadout, MetricReadout, Readout
from flywheel_core.experiments.sentence import quotable
from flywheel_core.experiments.trust import SampleRatio, check_sample_ratio, unbalanced_bots
from flywheel_core.experiments.users import Cell, Sums, Window

EPOCH = datetime.date(1970, 1, 1)
TEST_FIRST: tuple[Arm, Arm] = ("test", "control")


def read_sums(
    sums: Sums,
    window: Window,
    config: ReadoutConfig,
    *,
    notes: Sequence[str] = (),
    experiment_id: str | None = None,
) -> Readout:
    """The readout of sums over users; pure."""
    first = EPOCH + datetime.timedelta(days=window.start_us // DAY_US)
    last = last_logged_day(sums) if config.through is None else window.num_days - 1
    drawn = sums.histogram if config.with_bootstrap else None
    days = tuple(
        _read_day(sums, window, config, day, first, drawn if day == last else None)
        for day in range(last + 1)
    )
    readable = days[-1].status == "ok" and days[-1].is_last_day  # before it, it would be peeking
    exploratory = explore(sums, window, config, last) if readable else ()
    return Readout(
        experiment_id=experiment_id,
        first_day=first,
        num_days=config.num_days,
        days=days,
        exploratory=exploratory,
        left_out=left_out(sums, last),
        notes=tuple(notes),
        sentence=quotable(days[-1], first, config),
    )


def last_logged_day(sums: Sums) -> int:
    """The last day with any row in either log."""
    days = [
        day
        for (what, day, _), count in sums.counts.items()
        if count and what in ("exposures_of_day", "events_of_day")
    ]
    if not days:
        raise InputDataError(
            "exposures: no row lies within the window; check first_day and the log's times"
        )
    return max(days)


def _read_day(
    sums: Sums,
    window: Window,
    config: ReadoutConfig,
    day: int,
    first: datetime.date,
    drawn: Histogram | None,
) -> DayReadout:
    bots: dict[Arm, int] = {
        arm: sums.counts["users_bots", day, place] for place, arm in enumerate(ARMS)
    }
    known: dict[str, Any] = {
        "day": first + datetime.timedelta(days=day),
        "is_last_day": day == config.num_days - 1,
        "num_bots": bots,
        "num_in_both_arms": sums.counts["users_in_both_arms", day, -1],
    }
    test, control = (arm_sums(sums, window, day, arm) for arm in TEST_FIRST)
    if test is None or control is None:
        said = _missing_arm(test, control) or broken_day(sums, day, first) or "nobody was exposed"
        return DayReadout(status="insufficient", reason=said, **known)
    fault = broken_day(sums, day, first)
    if fault is not None:
        return DayReadout(status="insufficient", reason=fault, **known)
    ratio = check_sample_ratio(
        test.num_users + bots["test"],
        control.num_users + bots["control"],
        test_share=config.test_share,
        control_share=config.control_share,
    )
    stopping = (
        _stopping(ratio, known["num_in_both_arms"], config)
        or unbalanced_bots(bots, ratio)
        or _too_many_programs(sum(bots.values()), ratio, config)
    )
    if stopping is not None:
        return DayReadout(status="stopped", reason=stopping, sample_ratio=ratio, **known)

    def read(metrics: Sequence[Metric]) -> dict[str, MetricReadout]:
        return {one.name: read_metric(one, test, control, config, day, drawn) for one in metrics}

    return DayReadout(
        status="ok",
        reason="read",
        sample_ratio=ratio,
        metrics=read(METRICS),
        guardrails=read(guardrail_metrics(config)),
        **known,
    )


def _missing_arm(test: ArmSums | None, control: ArmSums | None) -> str | None:
    if (test is None) == (control is None):
        return None
    arm = "test" if test is None else "control"
    return f"the {arm} arm has no user; an experiment needs both"


def _stopping(ratio: SampleRatio, num_in_both: int, config: ReadoutConfig) -> str | None:
    """Why who was found in which arm forbids the read, or None."""
    share = num_in_both / (num_in_both + ratio.num_test + ratio.num_control)
    if share > config.max_in_both_arms_share:
        return (
            f"{num_in_both:,} users ({100 * share:.2g} %) met both arms, more than "
            f"{100 * config.max_in_both_arms_share:g} %: the assignment does not stick; mend it"
        )
    if ratio.stops_the_read:
        return (
            f"sample ratio: {ratio.num_test:,} test and {ratio.num_control:,} control users, "
            f"expected {100 * ratio.expected_test_share:.4g} % test (p = {ratio.p_value:.1g}); "
            "users are lost or added in one arm, find where before anything is read"
        )
    return None


def _too_many_programs(num_bots: int, ratio: SampleRatio, config: ReadoutConfig) -> str | None:
    share = num_bots / (ratio.num_test + ratio.num_control)
    if share <= config.max_programs_share:
        return None
    return (
        f"programs: {num_bots:,} users ({100 * share:.2g} %) sent more than "
        f"{config.max_sends_per_day:,} on some day, more than {100 * config.max_programs_share:g} "
        "%: what is left is not the product's users; raise max_sends_per_day, or find what sends"
    )


def arm_sums(
    sums: Sums, window: Window, day: int, arm: Arm, dimension: str = "", value: str = ""
) -> ArmSums | None:
    """An arm's sums at the end of a day; None where nobody is in it."""
    matrix = sums.moments.get(Cell(day, ARMS.index(arm), dimension, value))
    return None if matrix is None else ArmSums(window.columns, matrix)
