"""Retries by kind of failure: only what may mend itself is tried again."""

from datetime import timedelta
from typing import Any

from airflow.sdk import RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryDecision

from flywheel_core.errors import FlywheelError

RETRIES = 4
"""The tries also pay for a killed worker, which no policy sees."""

FIRST_DELAY_S = 15.0
MAX_DELAY_S = 600.0


class RetryByKind(RetryPolicy):
    """A lost node, a preemption or a broken connection: again, with back-off. A bad
    configuration, a failed validation, a blocked gate, a job's own error: never.

    An exception that is not the flywheel's own follows the task's `retries`: mostly it is
    Airflow's API server that did not answer.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        if not isinstance(exception, FlywheelError):
            return RetryDecision.default()
        kind = type(exception).__name__
        if not exception.transient:
            return RetryDecision.fail(f"{kind}: trying again would not help")
        # A clear grants new tries on top of the ones that were used: those are past nights.
        delay = backoff(try_number - max(0, max_tries - RETRIES))
        return RetryDecision.retry(delay, f"{kind}: trying again in {delay.total_seconds():.0f} s")


def backoff(try_number: int) -> timedelta:
    """The wait before the next try: doubled each time, up to ten minutes."""
    return timedelta(seconds=min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** max(0, try_number - 1)))


def retry_defaults() -> dict[str, Any]:
    """What every task of a flow is given, unless it says otherwise (an approval asks once)."""
    return {
        "retries": RETRIES,
        "retry_delay": timedelta(seconds=FIRST_DELAY_S),
        "retry_policy": RetryByKind(),
    }
