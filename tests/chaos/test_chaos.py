"""Six kills, six kinds of process, one real Airflow and Ray: nothing lost, nothing doubled."""

import pytest

from tests.chaos.proofs import (
    DUPLICATE_JOB,
    LOST_ARTIFACT,
    REPEATED_WORK,
    SECOND_COMMIT,
    STOPPED_JOB,
    WRONG_END_STATE,
)
from tests.chaos.session import Outcome, run_chaos

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1500)]
NUM_KILLS = 6
SLOT_S = 25.0
SEED = 20260105


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_chaos(
        tmp_path_factory.mktemp("chaos"), num_kills=NUM_KILLS, slot_s=SLOT_S, seed=SEED
    )


@pytest.mark.parametrize(
    "kind",
    [DUPLICATE_JOB, SECOND_COMMIT, LOST_ARTIFACT, WRONG_END_STATE, REPEATED_WORK, STOPPED_JOB],
)
def test_no_promise_is_broken(outcome: Outcome, kind: str) -> None:
    broken = [str(violation) for violation in outcome.violations if violation.kind == kind]
    assert not broken, "\n".join(broken)


def test_six_kinds_of_process_were_killed(outcome: Outcome) -> None:
    assert len(outcome.kills_by_target) == NUM_KILLS, (outcome.kills_by_target, outcome.missed)


def test_deferred_tasks_hold_no_worker(outcome: Outcome) -> None:
    """Two waited at once beside an executor with a single slot."""
    assert outcome.both_deferred
