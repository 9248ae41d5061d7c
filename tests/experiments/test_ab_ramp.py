"""What a day decides, and a simulated experiment run day by day until it is released or not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ab_store import (
    CONFIG,
    EXPERIMENT,
    FIRST,
    FLYWHEEL,
    SMALL,
    day,
    log_days,
    production,
    run,
    start,
)
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.exposure_log import append_day, days_logged, fetch_days
from flywheel_core.experiments.journal import Journal
from flywheel_core.experiments.lifts import ArmMean, Lift, lift_of
from flywheel_core.experiments.ramp import (
    Action,
    RampState,
    advance,
    day_to_read,
    next_action,
    step_config,
)
from flywheel_core.experiments.readout import DayReadout, MetricReadout
from flywheel_core.pointers import Pointer
from flywheel_core.release.decision import StaleCandidate
from flywheel_core.release.experiments import read_open_experiment
from flywheel_core.release.promotion import set_freeze
from flywheel_core.store import Store
from flywheel_core.world.experiment_logs import simulate_logs

STATE = RampState(
    experiment_id="x",
    allocation=Allocation(experiment_id="x"),
    first_day=FIRST,
    rule=CONFIG.rule(),
)


def lift(estimate: float, half: float) -> Lift:
    return Lift(
        estimate_pct=estimate,
        kind="bounded",
        lower_pct=estimate - half,
        upper_pct=estimate + half,
        significant=abs(estimate) > half,
    )


def read(number: int, breadth: Lift, *, lost: bool = False, **more: Any) -> DayReadout:
    metric = MetricReadout(name="breadth", peeking=number < 6, lift=breadth, always_valid=breadth)
    guard = metric.model_copy(update={"name": "reports", "harm": "up", "loss": lost})
    fields = {"status": "ok", "reason": "read", "is_last_day": number == 6, **more}
    return DayReadout(
        day=day(number), metrics={"breadth": metric}, guardrails={"reports": guard}, **fields
    )


UP, FLAT, DOWN = lift(4, 1), lift(0.3, 1), lift(-4, 1)


@pytest.mark.parametrize(
    ("seen", "answer", "kind", "said"),
    [
        (read(2, UP), None, "continue", "not over"),
        (read(2, UP), "approve", "continue", "not over"),
        (read(2, UP, lost=True), None, "rollback", "guardrail lost: reports"),
        (read(6, UP, lost=True), "approve", "rollback", "guardrail lost: reports"),
        (read(6, UP), None, "ask", "recommended: ramp, breadth +4.00 %"),
        (read(6, FLAT), None, "ask", "no significant change"),
        (read(6, DOWN), None, "ask", "recommended: roll back"),
        (read(6, UP), "approve", "ramp", "50 % of all users"),
        (read(6, UP), "reject", "rollback", "rejected by the release manager"),
        (read(6, UP, status="insufficient", reason="gone"), "approve", "wait", "gone"),
        (read(6, UP, status="stopped", reason="ratio"), "approve", "wait", "ratio"),
    ],
)
def test_what_a_day_decides(seen: DayReadout, answer: Any, kind: str, said: str) -> None:
    found = next_action(STATE, seen, answer)
    assert found.kind == kind
    assert said in found.reason
    assert found.automatic == (kind not in ("ask", "ramp") and answer != "reject")


def test_a_guardrail_that_cannot_be_read_is_never_a_pass() -> None:
    seen = read(6, UP)
    unread = MetricReadout(name="reports", peeking=False, unreadable="no variance", harm="up")
    seen = seen.model_copy(update={"guardrails": {"reports": unread}})
    assert next_action(STATE, seen, "approve").kind == "wait"


def test_the_ramp_goes_10_50_100_and_each_step_reads_its_own_days() -> None:
    state = advance(STATE, day(6), next_action(STATE, read(6, UP), "approve"))
    assert (state.phase, state.allocation.test_share, state.first_day) == ("ramping", 0.5, day(7))
    config = step_config(state, CONFIG)
    assert (config.first_day, config.num_days, config.test_share) == (day(7), 1, 0.5)
    following = read(7, FLAT, is_last_day=True)
    action = next_action(state, following)
    assert (action.kind, action.automatic) == ("release", True)
    assert next_action(state, read(7, FLAT, is_last_day=True, lost=True)).kind == "rollback"
    done = advance(state, day(7), action)
    assert (done.phase, done.allocation.test_share, done.allocation.control_share) == (
        "released",
        1.0,
        0.0,
    )
    assert next_action(done, read(8, UP)).kind == "nothing"


def test_an_old_day_never_moves_anything() -> None:
    state = advance(STATE, day(6), Action(kind="ramp", reason="approved"))
    for number in range(7):
        assert next_action(state, read(number, UP), "approve").kind == "nothing"
        with pytest.raises(ConfigError, match="reading a day again moves nothing"):
            advance(state, day(number), Action(kind="ramp", reason="again"))
    assert day_to_read(STATE, day(9)) == day(6)
    assert day_to_read(STATE, day(3)) == day(3)


# -- a simulated experiment, through the store -----------------------------------------------------


def test_a_better_candidate_is_ramped_and_released_and_old_days_move_nothing(store: Store) -> None:
    assert run(store, 0).action.kind == "wait"
    start(store, 1.0)
    for number in range(6):
        found = run(store, number)
        assert (found.action.kind, found.moved) == ("continue", True)
        assert found.readout is not None
        assert found.readout.newest.metrics["breadth"].peeking
    asked = run(store, 6)
    assert asked.action.kind == "ask"
    assert "recommended: ramp" in asked.action.reason
    assert not asked.moved
    assert run(store, 9).day == day(6)  # later runs ask about the same day
    ramped = run(store, 6, answer="approve", by="release_manager")
    assert (ramped.action.kind, ramped.moved) == ("ramp", True)
    assert ramped.state is not None
    assert ramped.state.allocation.test_share == 0.5
    assert production(store) == EXPERIMENT.control_digest

    journal = Journal(store, FLYWHEEL, "x7")
    before = (store.list(FLYWHEEL), journal.state())
    for number in (6, 3, 0, 6):
        again = run(store, number, answer="approve", by="release_manager")
        assert (again.action.kind, again.moved) == ("nothing", False)
    assert (store.list(FLYWHEEL), journal.state()) == before

    log_days(store, 1.0, ramped.state.allocation, day(7), 1)
    released = run(store, 7)
    assert (released.action.kind, released.moved) == ("release", True)
    assert production(store) == EXPERIMENT.candidate_digest
    assert read_open_experiment(store, FLYWHEEL) is None
    history = store.list(f"{FLYWHEEL}/pointers")
    for number in (7, 6, 2, 8):
        assert run(store, number, answer="approve").action.kind == "nothing"
    assert store.list(f"{FLYWHEEL}/pointers") == history
    assert journal.decision(day(6)).by == "release_manager"  # type: ignore[union-attr]
    assert [one.day for one in map(journal.decision, journal.decided_days()) if one] == [
        day(number) for number in range(8)
    ]


def test_a_worse_candidate_is_rolled_back_without_asking(store: Store) -> None:
    start(store, -1.5)
    kinds = []
    for number in range(7):
        kinds.append(run(store, number).action.kind)
        if kinds[-1] == "rollback":
            break
    assert kinds[-1] == "rollback"
    assert len(kinds) < 7
    assert production(store) == EXPERIMENT.control_digest
    assert read_open_experiment(store, FLYWHEEL) is None
    assert Journal(store, FLYWHEEL, "x7").state().allocation.test_share == 0
    assert run(store, 6, answer="approve").action.kind == "nothing"
    assert production(store) == EXPERIMENT.control_digest


def test_a_rejected_candidate_is_rolled_back(store: Store) -> None:
    start(store, 1.0)
    found = run(store, 6, answer="reject", by="release_manager")
    assert found.action.kind == "rollback"
    assert read_open_experiment(store, FLYWHEEL) is None


def test_a_missing_day_waits_and_is_decided_once_it_is_there(store: Store, tmp_path: Any) -> None:
    start(store, 1.0)
    folder = f"{FLYWHEEL}/experiments/x7/events/day={day(3)}"
    kept = {path: store.get(path) for path in store.list(folder)}
    for path in kept:
        store.delete(path)
    found = run(store, 6, answer="approve", by="rm")
    assert (found.action.kind, found.moved) == ("wait", False)
    assert "events of 2026-01-08 are missing" in found.action.reason
    for path, data in kept.items():
        store.put(path, data)
    assert run(store, 6, answer="approve", by="rm").action.kind == "ramp"


def test_a_freeze_holds_the_ramp_but_not_a_rollback(store: Store) -> None:
    start(store, 1.0)
    set_freeze(store, FLYWHEEL, frozen=True, by="oncall", reason="incident")
    held = run(store, 6, answer="approve", by="rm")
    assert held.action.kind == "wait"
    assert "frozen" in held.action.reason
    assert run(store, 6, answer="reject", by="rm").action.kind == "rollback"


def test_a_production_that_moved_meanwhile_is_not_overwritten(store: Store) -> None:
    start(store, 1.0)
    Pointer(store, FLYWHEEL, "production").append({"digest": "z" * 64}, by="x", reason="hotfix")
    with pytest.raises(StaleCandidate, match="production has moved since"):
        run(store, 6, answer="approve", by="rm")
    assert production(store) == "z" * 64


@pytest.mark.parametrize("dies_in", ["_take_step", "follow"])
def test_a_run_that_dies_half_way_is_completed_by_the_next(
    store: Store, dies_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(store, 1.0)
    state = run(store, 6, answer="approve", by="rm").state
    assert state is not None
    log_days(store, 1.0, state.allocation, day(7), 1)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    target: Any = Journal if dies_in == "_take_step" else "flywheel_core.release.ramping"
    with monkeypatch.context() as patched:
        if dies_in == "_take_step":
            patched.setattr(target, dies_in, die)
        else:
            patched.setattr(f"{target}.{dies_in}", die)
        with pytest.raises(KeyboardInterrupt):
            run(store, 7)
    assert production(store) == EXPERIMENT.control_digest
    run(store, 7)
    assert production(store) == EXPERIMENT.candidate_digest
    assert read_open_experiment(store, FLYWHEEL) is None


def test_an_experiment_can_be_ended_by_hand_at_any_time(
    store: Store, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(store, 1.0)
    run(store, 0)
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.setenv("FLYWHEEL_STORE", str(tmp_path / "store"))
    command = ["ab", "end", "--by", "oncall", "--reason", "complaints", "--flywheel", FLYWHEEL]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert read_open_experiment(store, FLYWHEEL) is None
    state = Journal(store, FLYWHEEL, "x7").state()
    assert (state.phase, state.allocation.test_share) == ("rolled_back", 0.0)
    assert run(store, 6, answer="approve").action.kind == "nothing"
    assert production(store) == EXPERIMENT.control_digest
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert "no open experiment" in again.output


def test_a_rule_that_names_no_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric_guardrails: 'bredth' is none of"):
        ReadoutConfig(metric_guardrails=("bredth",))
    with pytest.raises(ValueError, match="must be above 0"):
        ReadoutConfig(expected_lifts_pct={"depth": 0.0})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"guardrails": [{"column": "reports"}, {"column": "reports", "harm": "down"}]},
            "guardrails: 'reports' is given twice",
        ),
        ({"metric_guardrails": ["depth", "depth"]}, "metric_guardrails: 'depth' is given twice"),
        ({"guardrails": [{"column": "breadth"}]}, "'breadth' is the name of a metric"),
    ],
)
def test_a_guardrail_is_given_once(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ReadoutConfig.model_validate(fields)


def test_the_command_line_refuses_a_guardrail_given_twice(tmp_path: Any) -> None:
    command = ["ab", "analyze", "--exposures", str(tmp_path), "--events", str(tmp_path)]
    done = CliRunner().invoke(app, [*command, "--guardrail", "a:up", "--guardrail", "a:down"])
    assert done.exit_code == 1
    assert "'a' is given twice" in done.output


def test_the_recommendation_is_by_the_direction_of_the_readout() -> None:
    """Over a control of 0 there is no lift in percent, but there is a direction."""
    means = {"standard_error": 1e-3, "num_users": 100}
    test, control = ArmMean(mean=0.2, **means), ArmMean(mean=0.0, **means)
    gained = MetricReadout(
        name="breadth", peeking=False, test=test, control=control, lift=lift_of(test, control)
    )
    assert gained.lift is not None
    assert gained.lift.estimate_pct is None
    assert gained.direction == 1
    seen = read(6, FLAT).model_copy(update={"metrics": {"breadth": gained}})
    assert next_action(STATE, seen).reason.startswith("recommended: ramp")


def test_a_day_is_logged_once_and_only_with_its_own_rows(store: Store) -> None:
    make: Callable[[], Any] = lambda: next(  # noqa: E731
        simulate_logs(
            np.ones(3),
            np.ones(3),
            Allocation(experiment_id="x7"),
            SMALL.model_copy(update={"num_users_per_arm": 50}),
            FIRST,
            seed=1,
        )
    )
    logged = make()
    where = (store, EXPERIMENT.exposures)
    assert append_day(*where, FIRST, logged.exposures, "exposed_at")
    assert not append_day(*where, FIRST, make().exposures, "exposed_at")
    assert append_day(*where, FIRST, logged.exposures.slice(0, 3), "exposed_at")
    assert days_logged(*where) == (FIRST,)
    with pytest.raises(InputDataError, match="holds a row of 2026-01-05"):
        append_day(*where, day(1), logged.exposures, "exposed_at")
    with pytest.raises(InputDataError, match="no rows"):
        append_day(*where, FIRST, logged.exposures.slice(0, 0), "exposed_at")


def test_marks_that_writers_leave_beside_the_days_are_no_days(store: Store, tmp_path: Any) -> None:
    start(store, 1.0)
    for name in ("_SUCCESS", ".crc", "day=2026-02-01/_SUCCESS"):
        store.put(f"{EXPERIMENT.exposures}/{name}", b"")
    assert days_logged(store, EXPERIMENT.exposures)[-1] == day(6)
    fetched = fetch_days(store, EXPERIMENT.exposures, day(1), tmp_path / "logs")
    assert len(list(fetched.rglob("*.parquet"))) == 2
    store.put(f"{EXPERIMENT.exposures}/readme.txt", b"")
    with pytest.raises(InputDataError, match=r"'readme.txt' is no day; a log's files lie in"):
        days_logged(store, EXPERIMENT.exposures)
