"""An experiment's question and its answer: only Airflow's record of exactly these figures counts;
and the simulated world lives an experiment day by day, from a promoted candidate on."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ab_store import (
    EXPERIMENT,
    FLYWHEEL,
    borne_out,
    day,
    log_days,
    production,
    say,
    start,
)

from flywheel_core.artifacts import ArtifactRef, Attempt
from flywheel_core.errors import ArtifactMissing, InputDataError, PromotionRefused
from flywheel_core.experiments.config import ExperimentRule, GuardrailConfig, ReadoutConfig
from flywheel_core.experiments.journal import Journal, ended_experiments
from flywheel_core.pointers import Pointer
from flywheel_core.release.decision import (
    DigestMismatch,
    NoResponse,
    NotApproved,
    ResponderNotAllowed,
    ResponseOutdated,
    SelfApprovalNotAllowed,
)
from flywheel_core.release.experiment_answers import experiment_question, proof_by, settle
from flywheel_core.release.experiment_days import day_of_run
from flywheel_core.release.experiments import Experiment, read_open_experiment
from flywheel_core.release.policy import ReleasePolicy
from flywheel_core.release.ramping import DayRun, run_day
from flywheel_core.report.experiment_page import experiment_page, write_experiment_page
from flywheel_core.store import LocalStore, Store
from flywheel_core.world.experiment import ExperimentConfig
from flywheel_core.world.experiment_day import log_world_day

RULE = ExperimentRule(guardrails=(GuardrailConfig(column="reports"),))
POLICY = ReleasePolicy(release_managers=("alice",), release="ab", experiment=RULE)
CONFIG = ReadoutConfig.under(RULE)
NOW = datetime.datetime.now(datetime.UTC)


class AirflowFake:
    """Airflow's four answers, as a dictionary each; named a fake, for tests only."""

    def __init__(
        self, detail: dict[str, Any] | None, *, earlier: Sequence[dict[str, Any]] = (), **run: Any
    ) -> None:
        self.detail = detail
        self.earlier = list(earlier)
        self.run = {"run_type": "scheduled", "triggering_user_name": None, **run}

    def approval_record(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any] | None:
        return self.detail

    def approval_tries(
        self, dag_id: str, run_id: str, task_id: str, *, up_to: int
    ) -> list[dict[str, Any]]:
        known = [*self.earlier, *([self.detail] if self.detail else [])]
        return [one for one in known if one["task_instance"]["try_number"] <= up_to]

    def current_try(self, dag_id: str, run_id: str, task_id: str) -> int:
        return 1

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self.run


def answer(body: str, option: str = "Approve", by: str = "alice", **more: Any) -> dict[str, Any]:
    return {
        "task_instance": {"try_number": 1},
        "created_at": (NOW - datetime.timedelta(hours=1)).isoformat(),
        "response_received": True,
        "responded_at": NOW.isoformat(),
        "responded_by_user": {"id": by, "name": by.title()},
        "chosen_options": [option],
        "body": body,
        **more,
    }


def ask(store: Store) -> str:
    run = run_day(store, FLYWHEEL, EXPERIMENT, day(6), CONFIG)
    return experiment_question(EXPERIMENT, run, POLICY, Path("page.html")).body


def follow(store: Store, detail: dict[str, Any] | None, **run: Any) -> DayRun:
    return settle(
        store,
        FLYWHEEL,
        EXPERIMENT,
        day(6),
        POLICY,
        AirflowFake(detail, **run),
        dag_id="flywheel_ab_test",
        run_id="r",
        task_id="ramp_approval",
    )


def test_an_approval_ramps_and_a_rejection_rolls_back(store: Store, tmp_path: Path) -> None:
    start(store, 1.0)
    body = ask(store)
    assert "**Approve** ramps the candidate (generation 2) to half of all users" in body
    assert "| breadth | +" in body
    run = follow(store, answer(body))
    assert (run.action.kind, run.moved) == ("ramp", True)
    decision = Journal(store, FLYWHEEL, "x7").decision(day(6))
    assert decision is not None
    assert decision.by == "alice"
    assert follow(store, answer(body, "Reject")).action.kind == "nothing"  # it is decided
    page = experiment_page(tmp_path, FLYWHEEL, "x7")
    assert page != experiment_page(tmp_path, FLYWHEEL, "x8")
    write_experiment_page(store, FLYWHEEL, run, page)
    assert "ramp: approved: 50 %" in page.read_text()
    assert "Over the releases" in page.read_text()
    assert [name for name, _ in ended_experiments(store, FLYWHEEL)] == ["x7"]


def test_a_release_asks_airflow_again_for_the_approval_of_the_ramp(store: Store) -> None:
    start(store, 1.0)
    approved = answer(ask(store))
    ramped = follow(store, approved)
    assert ramped.state is not None
    assert ramped.state.approval is not None
    assert (ramped.state.approval.run_id, ramped.state.approval.try_number) == ("r", 1)
    log_days(store, 1.0, ramped.state.allocation, day(7), 1)
    for forged in (
        None,
        {**approved, "chosen_options": ["Reject"]},
        {**approved, "responded_by_user": {"id": "mallory", "name": "Mallory"}},
        {**approved, "task_instance": {"try_number": 2}},
        {**approved, "body": "decision digest: " + "0" * 64},
    ):
        proof = proof_by(AirflowFake(forged), POLICY)
        with pytest.raises(PromotionRefused):
            run_day(store, FLYWHEEL, EXPERIMENT, day(7), CONFIG, proof=proof)
        assert production(store) == EXPERIMENT.control_digest
        assert Journal(store, FLYWHEEL, "x7").state().phase == "ramping"
    assert ramped.state.approval is not None
    proof_by(AirflowFake(approved), POLICY)(ramped.state.approval)
    asked_again = {**approved, "task_instance": {"try_number": 2}, "response_received": False}
    proof = proof_by(AirflowFake(asked_again, earlier=[approved]), POLICY)
    released = run_day(store, FLYWHEEL, EXPERIMENT, day(7), CONFIG, proof=proof)
    assert released.action.kind == "release"
    assert production(store) == EXPERIMENT.candidate_digest


def test_a_rejection_rolls_back(store: Store) -> None:
    start(store, 1.0)
    run = follow(store, answer(ask(store), "Reject"))
    assert run.action.kind == "rollback"
    assert read_open_experiment(store, FLYWHEEL) is None
    assert production(store) == EXPERIMENT.control_digest


@pytest.mark.parametrize(
    ("change", "run", "refused"),
    [
        (None, {}, NoResponse),
        ({"response_received": False}, {}, NoResponse),
        ({"responded_by_user": {"id": "mallory", "name": "alice"}}, {}, ResponderNotAllowed),
        ({"chosen_options": ["Maybe"]}, {}, NotApproved),
        ({"chosen_options": ["Approve", "Reject"]}, {}, NotApproved),
        ({"task_instance": {"try_number": 2}}, {}, ResponseOutdated),
        ({"body": "decision digest: " + "0" * 64}, {}, DigestMismatch),
        ({}, {"run_type": "manual", "triggering_user_name": "alice"}, SelfApprovalNotAllowed),
        ({}, {"run_type": "manual"}, SelfApprovalNotAllowed),
    ],
)
def test_what_proves_no_answer_moves_nothing(
    store: Store,
    change: dict[str, Any] | None,
    run: dict[str, Any],
    refused: type[PromotionRefused],
) -> None:
    start(store, 1.0)
    detail = None if change is None else {**answer(ask(store)), **change}
    with pytest.raises(refused):
        follow(store, detail, **run)
    assert Journal(store, FLYWHEEL, "x7").decided_days() == ()
    assert production(store) == EXPERIMENT.control_digest


def test_an_answer_to_other_figures_is_no_answer(store: Store) -> None:
    start(store, 1.0)
    body = ask(store)
    events = f"{FLYWHEEL}/experiments/x7/events/day={day(6)}"
    twin = store.list(events)[0]
    store.put(f"{events}/more.parquet", store.get(twin))  # the last day, ingested again
    with pytest.raises(DigestMismatch, match="the logs or the policy changed since"):
        follow(store, answer(body))


def test_only_the_last_day_asks(store: Store) -> None:
    start(store, 1.0)
    run = run_day(store, FLYWHEEL, EXPERIMENT, day(3), CONFIG)
    with pytest.raises(ValueError, match="the action is continue"):
        experiment_question(EXPERIMENT, run, POLICY, Path("page.html"))


# -- the simulated world ---------------------------------------------------------------------------

SIZE = ExperimentConfig(num_users_per_arm=2000)


def open_world(tmp_path: Path, lift: float | None) -> tuple[LocalStore, Experiment]:
    """A candidate under test, whose evaluation found `lift` of hidden utility."""
    store = LocalStore(str(tmp_path / "store"))
    ref = ArtifactRef(flywheel=FLYWHEEL, generation=2, stage="evaluate", key="k")
    attempt = Attempt(store, ref, tmp_path)
    (attempt.folder / "metrics.json").write_text("{}")
    truth = {"production": {"estimate": 1.0}, "candidate": {"estimate": 1.0 + (lift or 0)}}
    metrics = {"true_effect": truth if lift is not None else None}
    attempt.commit(kind="evaluation", stage_version=1, metrics=metrics)
    Pointer(store, FLYWHEEL, "production").append(
        {"digest": EXPERIMENT.control_digest}, by="setup", reason="first"
    )
    value = {
        "ref": ref.model_dump(mode="json"),
        "digest": EXPERIMENT.candidate_digest,
        "experiment": EXPERIMENT.model_dump(mode="json"),
    }
    Pointer(store, FLYWHEEL, "candidate").append(value, by="alice", reason="open")
    return store, EXPERIMENT


def live_a_day(store: Store, run_id: str, *, approve: bool = False) -> DayRun:
    """What a run of the flow does in the world: the day is decided once, then lived and read."""
    asked = day_of_run(
        store, FLYWHEEL, EXPERIMENT, run_id, given=None, scheduled_for=None, simulated=True
    )
    log_world_day(store, FLYWHEEL, EXPERIMENT, RULE, asked, size=SIZE)
    answered = say("approve", "alice") if approve else None
    return run_day(store, FLYWHEEL, EXPERIMENT, asked, CONFIG, answered=answered, proof=borne_out)


def test_the_world_lives_an_experiment_to_its_release(tmp_path: Path) -> None:
    store, _ = open_world(tmp_path, lift=1.0)
    kinds = [live_a_day(store, f"run-{number}").action.kind for number in range(7)]
    assert kinds == ["continue"] * 6 + ["ask"]
    again = live_a_day(store, "run-6")  # a cleared task of the same run reads the same day
    assert (again.day, again.action.kind) == (datetime.date(2026, 1, 25), "ask")
    assert live_a_day(store, "run-6b", approve=True).action.kind == "ramp"
    old = live_a_day(store, "run-2")
    assert (old.day, old.moved) == (datetime.date(2026, 1, 21), False)
    assert production(store) == EXPERIMENT.control_digest
    released = live_a_day(store, "run-8")
    assert released.action.kind == "release"
    assert released.readout is not None
    ratio = released.readout.newest.sample_ratio
    assert ratio is not None
    assert ratio.expected_test_share == pytest.approx(0.5 / 0.6)
    assert production(store) == EXPERIMENT.candidate_digest


def test_outside_the_world_nobody_invents_users(tmp_path: Path) -> None:
    store, _ = open_world(tmp_path, lift=None)
    with pytest.raises(ArtifactMissing, match="holds no true effect"):
        log_world_day(store, FLYWHEEL, EXPERIMENT, RULE, datetime.date(2026, 1, 19))
    with pytest.raises(InputDataError, match="no day is logged yet"):
        day_of_run(
            store, FLYWHEEL, EXPERIMENT, "r", given=None, scheduled_for=None, simulated=False
        )
    scheduled = {"given": None, "scheduled_for": day(4), "simulated": False}
    assert day_of_run(store, FLYWHEEL, EXPERIMENT, "s", **scheduled) == day(3)
    given = {"given": "2026-01-06", "scheduled_for": day(4), "simulated": False}
    assert day_of_run(store, FLYWHEEL, EXPERIMENT, "g", **given) == day(1)
    # The first answer of a run is the run's.
    assert day_of_run(store, FLYWHEEL, EXPERIMENT, "s", **given) == day(3)


# -- Figure 8's panel ------------------------------------------------------------------------------


def test_a_candidate_rolled_back_before_its_last_day_is_among_the_ended(store: Store) -> None:
    start(store, -1.5)
    kinds = []
    while "rollback" not in kinds:
        assert ended_experiments(store, FLYWHEEL) == []  # it still runs
        found = run_day(store, FLYWHEEL, EXPERIMENT, day(len(kinds)), CONFIG)
        kinds.append(found.action.kind)
    assert len(kinds) < 7
    ((name, read),) = ended_experiments(store, FLYWHEEL)
    assert (name, read.day) == ("x7", day(len(kinds) - 1))
    assert read.metrics["breadth"].decisive == read.metrics["breadth"].always_valid


def test_the_readout_that_was_decided_on_is_the_one_shown(store: Store) -> None:
    """Other readouts of the last day, whose names sort before and after its own, change nothing."""
    start(store, 1.0)
    run = run_day(
        store, FLYWHEEL, EXPERIMENT, day(6), CONFIG, answered=say("approve", "a"), proof=borne_out
    )
    assert run.readout is not None
    journal = Journal(store, FLYWHEEL, "x7")
    own = journal.keep_readout(run.readout)
    newest = run.readout.newest.model_copy(update={"num_in_both_arms": 99})
    days = (*run.readout.days[:-1], newest)
    sides = set()
    for number in range(100):
        other = run.readout.model_copy(update={"notes": (str(number),), "days": days})
        sides.add(journal.keep_readout(other) > own)
        if len(sides) == 2:
            break
    assert sides == {False, True}
    ((_, read),) = ended_experiments(store, FLYWHEEL)
    assert read == run.readout.newest
