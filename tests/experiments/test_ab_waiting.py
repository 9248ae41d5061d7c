"""Before the first day and after the last one: an experiment that waits is seen to wait, and what
happens meanwhile is not missed."""

import datetime
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ab_store import (
    CONFIG,
    EVENTS,
    EXPERIMENT,
    FIRST,
    FLYWHEEL,
    SMALL,
    day,
    journal,
    log_days,
    production,
    run,
    say,
    start,
)

from flywheel_core.artifacts import digest_of
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.config import GuardrailConfig, ReadoutConfig
from flywheel_core.experiments.eligibility import Eligibility
from flywheel_core.experiments.exposure_log import append_day
from flywheel_core.experiments.journal import ended_experiments
from flywheel_core.experiments.readout import Readout
from flywheel_core.release.experiment_answers import asked_elsewhere, experiment_question
from flywheel_core.release.experiment_days import day_of_run
from flywheel_core.release.experiments import read_open_experiment
from flywheel_core.release.policy import ReleasePolicy
from flywheel_core.release.promotion import set_freeze
from flywheel_core.report.experiment_page import write_experiment_page
from flywheel_core.store import Store
from flywheel_core.world.experiment_logs import simulate_logs

POLICY = ReleasePolicy(release_managers=("alice",), release="ab", experiment=CONFIG.rule())


def log(store: Store, num_days: int, harmed: Collection[int] = (), **more: Any) -> None:
    """The first `num_days` days of a better candidate, which on the days `harmed` makes a third of
    its users report it."""
    noise = np.random.default_rng(3).normal(1.0, 1.6, 3_000)
    allocation = more.get("allocation", Allocation(experiment_id="x7"))
    size = SMALL.model_copy(update={"num_days": 9})  # one simulation: a day is the same each time
    first = more.get("first", FIRST)
    tested: set[str] = set()
    for one in islice(simulate_logs(noise, noise + 1.0, allocation, size, first, seed=5), num_days):
        tested |= {row["user_id"] for row in one.exposures.to_pylist() if row["arm"] == "test"}
        events = one.events
        if (one.day - first).days in harmed:
            rows = events.to_pylist()
            for row in rows[::3]:
                row["reports"] += row["user_id"] in tested
            events = pa.Table.from_pylist(rows, schema=events.schema)
        if more.get("with_crashes"):
            events = events.append_column("crashes", pa.array([0] * events.num_rows))
        append_day(store, EXPERIMENT.exposures, one.day, one.exposures, "exposed_at")
        append_day(store, EVENTS, one.day, events, "at")


# -- after the last day ----------------------------------------------------------------------------


def test_a_guardrail_lost_while_the_answer_is_awaited_rolls_back(store: Store) -> None:
    log(store, 7)
    asked = run(store, 6)
    assert (asked.action.kind, asked.since) == ("ask", None)
    log(store, 9, harmed=(7, 8))
    found = run(store, 8)
    assert (found.action.kind, found.day, found.moved) == ("rollback", day(8), True)
    assert "guardrail lost by 2026-01-13, after the last day" in found.action.reason
    assert "reports +" in found.action.reason
    assert read_open_experiment(store, FLYWHEEL) is None
    assert journal(store).state().allocation.test_share == 0
    late = run(store, 6, "approve")
    assert (late.action.kind, late.moved) == ("nothing", False)
    assert production(store) == EXPERIMENT.control_digest
    ((_, read),) = ended_experiments(store, FLYWHEEL)  # what it was rolled back on is what is shown
    assert (read.day, read.losses) == (day(8), ("reports",))


def test_an_answer_is_not_followed_past_a_lost_guardrail(store: Store) -> None:
    """No daily run came between: the run that follows the answer looks for itself."""
    log(store, 9, harmed=(7, 8))
    said: list[Readout] = []

    def approved(readout: Readout) -> Any:
        said.append(readout)
        return say("approve")(readout)

    found = run(store, 6, answered=approved)
    assert (found.action.kind, found.moved, said) == ("rollback", True, [])
    assert journal(store).decision(day(8)).by == "flywheel_ab_test"  # type: ignore[union-attr]
    assert journal(store).decision(day(6)) is None


def test_a_step_that_waits_for_an_unreadable_guardrail_is_watched(store: Store) -> None:
    """`crashes` never moves in either arm, which is no evidence; `reports` goes on being read."""
    config = ReadoutConfig(guardrails=(*CONFIG.guardrails, GuardrailConfig(column="crashes")))
    log(store, 7, with_crashes=True)
    waits = run(store, 6, config=config)
    assert (waits.action.kind, waits.since) == ("wait", None)
    assert "guardrail crashes could not be read" in waits.action.reason
    assert "end the experiment by `flywheel ab end`" in waits.action.reason
    log(store, 9, harmed=(7, 8), with_crashes=True)
    found = run(store, 8, config=config)
    assert (found.action.kind, found.moved) == ("rollback", True)
    assert "reports +" in found.action.reason


def test_the_question_stays_about_the_last_day_and_says_what_came_since(
    store: Store, tmp_path: Path
) -> None:
    log(store, 7)
    before = run(store, 6)
    log(store, 9)
    after = run(store, 8)
    assert (after.action.kind, after.day) == ("ask", day(6))
    assert after.since is not None
    assert after.since.reason == "no guardrail is lost until 2026-01-13"
    questions = [
        experiment_question(EXPERIMENT, one, POLICY, Path("p.html")) for one in (before, after)
    ]
    assert questions[0].digest == questions[1].digest
    assert "Since then: no guardrail is lost until 2026-01-13." in questions[1].body
    page = write_experiment_page(store, FLYWHEEL, after, tmp_path / "page.html").read_text()
    assert "no guardrail is lost until 2026-01-13" in page
    ramped = run(store, 8, "approve")
    assert (ramped.action.kind, ramped.day) == ("ramp", day(6))


def test_days_after_the_window_are_read_by_the_daily_interval(store: Store) -> None:
    log(store, 9, harmed=(7, 8))
    run(store, 6)
    kept = [
        Readout.model_validate_json(store.get(path))
        for path in store.list(f"{FLYWHEEL}/experiments/x7/readouts")
    ]
    window, watch = sorted(kept, key=lambda one: len(one.days))
    assert watch.days[:7] == window.days
    assert (window.is_watch, watch.is_watch) == (False, True)
    assert [one.is_last_day for one in watch.days] == [False] * 6 + [True] + [False] * 2
    reports = watch.newest.guardrails["reports"]
    assert reports.decisive == reports.always_valid
    assert "the window of 7 days is over" in watch.sentence.lower()
    assert watch.exploratory == ()


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_days_since_that_cannot_be_read_hold_a_ramp_but_no_rollback(
    store: Store, answer: str
) -> None:
    log(store, 9)
    for path in store.list(f"{EVENTS}/day={day(7)}"):
        store.delete(path)
    asked = run(store, 8)
    assert asked.action.kind == "ask"
    assert asked.since is not None
    assert "events of 2026-01-12 are missing" in asked.since.reason
    found = run(store, 6, answer)
    if answer == "reject":
        assert found.action.kind == "rollback"
    else:
        assert (found.action.kind, found.moved) == ("wait", False)
        assert "events of 2026-01-12 are missing" in found.said
        assert journal(store).state().phase == "window"


def test_days_of_real_traffic_that_nobody_logged_are_no_evidence(store: Store) -> None:
    run(store, 0, today=day(-1))
    log(store, 7)
    assert run(store, 6, today=day(7)).since is None
    assert run(store, 6, today=day(8)).since is None  # yesterday may still be on its way
    late = run(store, 6, "approve", today=day(10))
    assert (late.action.kind, late.moved) == ("wait", False)
    assert "the days until 2026-01-13 cannot be read" in late.said


def test_a_guardrail_lost_during_a_freeze_at_half_rolls_back(store: Store) -> None:
    log(store, 7)
    state = run(store, 6, "approve").state
    assert state is not None
    set_freeze(store, FLYWHEEL, frozen=True, by="oncall", reason="incident")
    half = {"allocation": state.allocation, "first": day(7)}
    log(store, 1, **half)
    held = run(store, 7)
    assert (held.action.kind, "frozen" in held.said) == ("wait", True)
    log(store, 3, harmed=(1, 2), **half)
    found = run(store, 9)
    assert (found.action.kind, found.moved) == ("rollback", True)
    assert read_open_experiment(store, FLYWHEEL) is None


class QuestionsFake:
    """Airflow's open questions, as a list; named a fake, for tests only."""

    def __init__(self, *found: dict[str, Any]) -> None:
        self.found = list(found)

    def open_questions(self, dag_id: str, task_id: str) -> list[dict[str, Any]]:
        return self.found


def test_the_same_is_asked_once(store: Store) -> None:
    log(store, 7)
    asked = experiment_question(EXPERIMENT, run(store, 6), POLICY, Path("p.html"))
    other = {"task_instance": {"dag_run_id": "a"}, "body": "decision digest: " + "0" * 64}
    same = {"task_instance": {"dag_run_id": "b"}, "body": asked.body}
    for questions, expected in (((), None), ((other,), None), ((other, same), "b")):
        found = asked_elsewhere(QuestionsFake(*questions), asked, dag_id="d", task_id="t")
        assert found == expected


def test_the_policys_eligibility_is_in_the_allocation_the_router_reads(store: Store) -> None:
    only = Eligibility(locales=("en_US",), min_days_since_joined=7)
    config = CONFIG.model_copy(update={"eligibility": only})
    run(store, 0, config=config)
    assert journal(store).state().allocation.eligibility == only
    narrow = Allocation(experiment_id="x7", eligibility=only)
    with pytest.raises(ConfigError, match="simulated people have no locale"):
        next(simulate_logs(np.ones(3), np.ones(3), narrow, SMALL, FIRST, seed=1))


# -- before the first day --------------------------------------------------------------------------


def test_an_experiment_is_allocated_before_anybody_is_exposed_and_waits(store: Store) -> None:
    found = run(store, 0, today=day(0))
    assert (found.action.kind, found.moved) == ("wait", False)
    assert found.said == "no exposures yet; allocated on 2026-01-05, whose own rows do not count"
    state = journal(store).state()
    assert (state.first_day, state.phase, state.allocation.test_share) == (None, "window", 0.1)
    assert run(store, 5, today=day(6)).action.kind == "wait"
    assert len(store.list(f"{FLYWHEEL}/pointers/ramp-x7")) == 1
    assert ended_experiments(store, FLYWHEEL) == []


def test_exposures_before_the_allocation_do_not_count_and_are_counted(store: Store) -> None:
    log_days(store, 1.0, Allocation(experiment_id="x7"), day(-2), 4)  # up to day 1
    found = run(store, 0, today=day(0))  # allocated in the middle of day 0
    assert found.action.kind == "wait"
    assert journal(store).state().first_day == day(1)
    read = run(store, 1, today=day(2))
    assert (read.action.kind, read.day) == ("continue", day(1))
    assert read.readout is not None
    assert read.readout.first_day == day(1)
    before = sum(
        pa.parquet.read_metadata(store.local_path(path)).num_rows  # type: ignore[attr-defined]
        for number in (-2, -1, 0)
        for path in store.list(f"{EXPERIMENT.exposures}/day={day(number)}")
    )
    assert read.readout.left_out["exposures_before_window"] == before > 0


def test_exposures_without_events_wait(store: Store) -> None:
    start(store, 1.0)
    for path in store.list(EVENTS):
        store.delete(path)
    found = run(store, 0)
    assert (found.action.kind, found.moved) == ("wait", False)
    assert found.said.startswith("no events are logged up to 2026-01-05")


def test_an_allocated_experiment_can_be_ended_and_stays_ended(store: Store) -> None:
    run(store, 0, today=day(0))
    journal(store).end(by="oncall", reason="not now")
    log(store, 3)
    assert run(store, 2).action.kind == "nothing"
    assert journal(store).state().allocation.test_share == 0


def test_a_run_by_hand_before_anything_is_logged_waits_too(store: Store) -> None:
    by_hand: dict[str, Any] = {"given": None, "scheduled_for": None, "simulated": False}
    asked = day_of_run(store, FLYWHEEL, EXPERIMENT, "r", today=day(3), **by_hand)
    assert asked == day(2)
    with pytest.raises(InputDataError, match="no day is logged yet"):
        day_of_run(store, FLYWHEEL, EXPERIMENT, "s", **by_hand)


def test_the_digest_does_not_depend_on_days_after_the_last(store: Store) -> None:
    log(store, 7)
    before = run(store, 6).readout
    log(store, 9)
    after = run(store, 6).readout
    assert before is not None
    assert after is not None
    assert digest_of(before.model_dump(mode="json")) == digest_of(after.model_dump(mode="json"))
    assert datetime.date(2026, 1, 11) == after.newest.day
