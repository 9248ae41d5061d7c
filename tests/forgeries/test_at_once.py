"""Two promotes at once: one moves the pointer, and the others say why they did not."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flywheel_core.errors import PromotionRefused
from flywheel_core.plan import load_plan, plan_path
from flywheel_core.pointers import Pointer
from flywheel_core.release import promotion
from flywheel_core.release.decision import StaleCandidate
from flywheel_core.release.promotion import promote, question
from tests.forgeries.scene import FLYWHEEL, MANAGER, OTHER_RUN, RUN, answered, approved_scene

BY_ADMIN = {"run_type": "manual", "triggering_user_name": "admin"}


def test_of_two_approved_runs_one_is_released(tmp_path: Path) -> None:
    scene = approved_scene(tmp_path / "store")
    plans = [load_plan(scene.store, plan_path(FLYWHEEL, run)) for run in (RUN, OTHER_RUN)] * 4
    start = threading.Barrier(len(plans))

    def release(plan: Any) -> str | None:
        body = question(scene.store, plan, scene.policy, reports=tmp_path).body
        start.wait()
        try:
            promote(
                scene.store,
                plan,
                scene.policy,
                detail=answered(body),
                current_try_number=1,
                dag_run=BY_ADMIN,
            )
        except PromotionRefused as refusal:
            return str(refusal)
        return None

    with ThreadPoolExecutor(len(plans)) as releases:
        refusals = list(releases.map(release, plans))
    history = Pointer(scene.store, FLYWHEEL, "production").history()
    assert [record.number for record in history] == [1, 2]
    assert history[-1].by == MANAGER
    said = [refusal for refusal in refusals if refusal]
    assert len(said) >= 4  # the other run, at least
    assert all("run a new climb" in refusal for refusal in said)


def test_an_experiment_that_opens_during_the_checks_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = approved_scene(tmp_path / "store")
    scene.policy = scene.policy.model_copy(update={"release": "ab"})
    scene.ask_again()
    candidate = Pointer(scene.store, FLYWHEEL, "candidate")
    genuine = promotion.check_approval

    def checks_while_another_opens_one(*arguments: Any, **named: Any) -> None:
        genuine(*arguments, **named)
        candidate.append({"experiment": None}, by=MANAGER, reason="an experiment was opened")

    monkeypatch.setattr(promotion, "check_approval", checks_while_another_opens_one)
    with pytest.raises(StaleCandidate, match="while this candidate was being promoted"):
        scene.promote()
    assert len(candidate.history()) == 1
