"""What must not move production or users: files that lie, runs that died, late answers."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from ab_store import (
    CONFIG,
    EXPERIMENT,
    FIRST,
    FLYWHEEL,
    borne_out,
    day,
    journal,
    log_days,
    not_borne_out,
    production,
    run,
    start,
)

from flywheel_core.errors import ArtifactCorrupt, PromotionRefused
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.journal import Decision, Journal
from flywheel_core.experiments.ramp import Action, rolled_back
from flywheel_core.pointers import Pointer
from flywheel_core.release.decision import UnprovenRecord
from flywheel_core.release.experiments import read_open_experiment
from flywheel_core.release.promotion import rollback, set_freeze
from flywheel_core.release.releasing import end_experiment
from flywheel_core.store import Store


def plant(store: Store, number: int, kind: Any) -> None:
    found = Decision(
        experiment_id="x7",
        day=day(number),
        readout_digest="0" * 64,
        action=Action(kind=kind, reason="approved"),
        by="alice",
    )
    path = f"{FLYWHEEL}/experiments/x7/decisions/{day(number)}.json"
    store.put(path, found.model_dump_json().encode())


def dies(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def die_in(
    monkeypatch: pytest.MonkeyPatch, target: Any, name: str, act: Callable[[], object]
) -> None:
    with monkeypatch.context() as patched:
        if isinstance(target, str):
            patched.setattr(f"{target}.{name}", dies)
        else:
            patched.setattr(target, name, dies)
        with pytest.raises(KeyboardInterrupt):
            act()


def ramp_to_half(store: Store) -> None:
    start(store, 1.0)
    state = run(store, 6, "approve").state
    assert state is not None
    log_days(store, 1.0, state.allocation, day(7), 1)


# -- files that lie --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["release", "ramp"])
def test_a_planted_decision_is_not_followed(store: Store, kind: str) -> None:
    start(store, 1.0)
    plant(store, 0, kind)
    with pytest.raises(ArtifactCorrupt, match=f"says {kind}, but the logs of that day say cont"):
        run(store, 0)
    assert production(store) == EXPERIMENT.control_digest
    assert journal(store).state().allocation.test_share == 0.1


def test_a_step_that_lies_outside_the_pointers_is_not_read(store: Store) -> None:
    start(store, 1.0)
    run(store, 0)
    forged = journal(store).state().model_copy(update={"phase": "released"})
    aside = Pointer(store, FLYWHEEL, "ramp", area="experiments/x7")
    aside.append(forged.model_dump(mode="json"), by="alice", reason="released")
    assert run(store, 1).action.kind == "continue"
    assert production(store) == EXPERIMENT.control_digest


@pytest.mark.parametrize("has_approval", [True, False])
def test_a_step_that_claims_a_release_needs_the_approval(store: Store, has_approval: bool) -> None:
    ramp_to_half(store)
    state = journal(store).state()
    update: dict[str, Any] = {"phase": "released"}
    if not has_approval:
        update["approval"] = None
    forged = state.model_copy(update=update).model_dump(mode="json")
    Pointer(store, FLYWHEEL, "ramp-x7").append(forged, by="x", reason="released")
    for proof in (not_borne_out, None) if has_approval else (borne_out,):
        with pytest.raises(UnprovenRecord):
            run(store, 7, proof=proof)
    assert production(store) == EXPERIMENT.control_digest


# -- runs that died --------------------------------------------------------------------------------


def test_a_half_made_release_waits_for_the_freeze(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp_to_half(store)
    die_in(monkeypatch, "flywheel_core.release.ramping", "follow", lambda: run(store, 7))
    set_freeze(store, FLYWHEEL, frozen=True, by="oncall", reason="incident")
    assert run(store, 7).action.kind == "wait"
    assert production(store) == EXPERIMENT.control_digest
    set_freeze(store, FLYWHEEL, frozen=False, by="oncall", reason="over")
    completed = run(store, 7)
    assert completed.moved
    assert "production was moved to the candidate; the experiment was closed" in completed.said
    assert production(store) == EXPERIMENT.candidate_digest


def test_a_release_that_was_rolled_back_is_not_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp_to_half(store)
    die_in(monkeypatch, "flywheel_core.release.releasing", "_close", lambda: run(store, 7))
    with pytest.raises(PromotionRefused, match="flywheel rollback"):
        end_experiment(store, FLYWHEEL, by="oncall", reason="complaints")
    rollback(store, FLYWHEEL, by="oncall", reason="complaints")
    completed = run(store, 8)
    assert production(store) == EXPERIMENT.control_digest
    assert read_open_experiment(store, FLYWHEEL) is None
    assert "the experiment was closed" in completed.said
    assert "production" not in completed.said


def test_ending_a_half_made_release_takes_the_candidate_from_everybody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp_to_half(store)
    die_in(monkeypatch, "flywheel_core.release.ramping", "follow", lambda: run(store, 7))
    assert journal(store).state().allocation.test_share == 1.0
    end_experiment(store, FLYWHEEL, by="oncall", reason="complaints")
    assert journal(store).state().phase == "rolled_back"
    assert journal(store).state().allocation.test_share == 0
    run(store, 8)
    assert production(store) == EXPERIMENT.control_digest


def test_a_recorded_ramp_is_completed_before_anybody_is_asked_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(store, 1.0)
    die_in(monkeypatch, Journal, "_take_step", lambda: run(store, 6, "approve"))
    with pytest.raises(UnprovenRecord):
        run(store, 6, proof=not_borne_out)
    assert run(store, 6, proof=None).action.kind == "ask"
    completed = run(store, 6)
    assert (completed.action.kind, completed.moved) == ("ramp", True)
    assert journal(store).state().approval is not None


def test_a_later_rejection_supersedes_a_recorded_ramp(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(store, 1.0)
    die_in(monkeypatch, Journal, "_take_step", lambda: run(store, 6, "approve"))
    rejected = run(store, 6, "reject")
    assert (rejected.action.kind, rejected.moved) == ("rollback", True)
    assert journal(store).state() == rolled_back(journal(store).state())
    decision = journal(store).decision(day(6))
    assert decision is not None
    assert decision.action.kind == "rollback"
    assert journal(store).decided_days() == (day(6),)
    assert read_open_experiment(store, FLYWHEEL) is None


# -- time ------------------------------------------------------------------------------------------


def test_a_late_answer_starts_the_next_step_on_the_first_full_day(store: Store) -> None:
    assert run(store, 0, today=day(-1)).said.startswith("no exposures yet")
    log_days(store, 1.0, Allocation(experiment_id="x7"), FIRST, 9)
    answered_on = day(9)
    late = run(store, 6, "approve", today=answered_on)
    assert late.state is not None
    assert (late.state.took_effect, late.state.first_day) == (answered_on, day(10))
    for number in (9, 10):
        log_days(store, 1.0, late.state.allocation, day(number), 1)
    for number in (7, 8, 9):
        waiting = run(store, number, today=day(number + 1))
        assert (waiting.action.kind, waiting.moved) == ("wait", False)
        assert waiting.said == f"this step starts on {day(10)}"
    released = run(store, 10, today=day(11))
    assert (released.action.kind, released.day) == ("release", day(10)), released.said


def test_a_day_that_is_not_over_is_not_decided(store: Store) -> None:
    assert run(store, 0, today=day(-1)).action.kind == "wait"  # allocated the day before
    start(store, 1.0)
    for today in (FIRST, FIRST - datetime.timedelta(days=1)):
        early = run(store, 0, today=today)
        assert (early.action.kind, early.moved) == ("wait", False)
        assert "is not over" in early.said
    assert journal(store).decided_days() == ()
    assert run(store, 0, today=day(1)).action.kind == "continue"


def test_the_rule_is_fixed_when_the_experiment_starts(store: Store) -> None:
    start(store, 1.0)
    run(store, 0)
    shorter = CONFIG.model_copy(update={"num_days": 3, "guardrails": ()})
    found = run(store, 2, config=shorter)
    assert found.action.kind == "continue"
    assert found.readout is not None
    assert found.readout.num_days == 7
    assert "reports" in found.readout.newest.guardrails
