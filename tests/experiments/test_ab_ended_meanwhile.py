"""`flywheel ab end` while a run of the experiment is under way: what was ended stays ended."""

from typing import Any

import pytest
from ab_store import EXPERIMENT, FLYWHEEL, log_days, production, run, say, start

from flywheel_core.errors import PromotionRefused
from flywheel_core.experiments.journal import Journal
from flywheel_core.experiments.readout import Readout
from flywheel_core.release import ramping
from flywheel_core.release.experiments import read_open_experiment
from flywheel_core.release.releasing import end_experiment
from flywheel_core.store import Store


@pytest.fixture
def store(store: Store) -> Store:
    start(store, 1.0)
    return store


def end(store: Store) -> None:
    end_experiment(store, FLYWHEEL, by="bob", reason="complaints")


def test_a_ramp_under_way_does_not_bring_the_candidate_back(store: Store) -> None:
    def ended_while_it_looked(readout: Readout) -> Any:
        end(store)
        return say("approve")(readout)

    found = run(store, 6, answered=ended_while_it_looked)
    assert (found.action.kind, found.moved) == ("nothing", False)
    state = Journal(store, FLYWHEEL, "x7").state()
    assert (state.phase, state.allocation.test_share) == ("rolled_back", 0.0)
    assert read_open_experiment(store, FLYWHEEL) is None


def test_a_step_under_way_does_not_either(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended between the look at the state and the step."""
    journal = Journal(store, FLYWHEEL, "x7")
    taken = Journal._take_step

    def late(self: Journal, *args: Any) -> bool:
        end(store)
        return taken(self, *args)

    monkeypatch.setattr(Journal, "_take_step", late)
    found = run(store, 6, answered=say("approve"))
    assert not found.moved
    assert journal.state().phase == "rolled_back"


def test_a_release_under_way_does_not_move_production(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(store, 6, answered=say("approve"))
    state = Journal(store, FLYWHEEL, "x7").state()
    assert state.first_day is not None
    log_days(store, 1.0, state.allocation, state.first_day, 1)
    followed = ramping.follow

    def late(*args: Any, **more: Any) -> list[str]:
        end(store)
        return followed(*args, **more)

    monkeypatch.setattr(ramping, "follow", late)
    with pytest.raises(PromotionRefused, match="was ended while this run was under way"):
        run(store, 7)
    assert production(store) == EXPERIMENT.control_digest
    monkeypatch.undo()
    assert run(store, 7).moved is False
    assert production(store) == EXPERIMENT.control_digest
