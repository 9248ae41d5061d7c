"""The in-process runner: a whole climb without Airflow or Ray Jobs.

It drives the same stages, through the same commits, as the DAG does; for tests, for many seeds
and for `flywheel climb --local`. Nobody is asked here, so what it promotes is recorded as
automated, and a policy that forbids automated approvals forbids this too.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flywheel_core.artifacts import Manifest, is_done
from flywheel_core.plan import PinnedPlan, resolve
from flywheel_core.recipe import Recipe
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.release.verdict import Verdict
from flywheel_core.release.verdicts import run_and_commit_gates
from flywheel_core.start_at import FROM_THE_START, StartAt
from flywheel_core.store import Store


@dataclass(frozen=True)
class StageDone:
    """One finished stage: its manifest, how long it took here, and whether it was there already."""

    manifest: Manifest
    wall_s: float
    was_cached: bool


@dataclass(frozen=True)
class Climb:
    """One climbing step up to its verdicts."""

    plan: PinnedPlan
    stages: dict[str, StageDone]
    verdicts: list[Verdict]


def run_climb(
    recipe: Recipe,
    store: Store,
    policy: ReleasePolicy,
    run_id: str,
    *,
    scratch: Path,
    on_stage: Callable[[str, StageDone | None], None] = lambda name, done: None,
    start_at: StartAt = FROM_THE_START,
) -> Climb:
    """Every stage in order, then the gates. `on_stage` hears of each stage's start (None) and end.

    Trainings run inline (one rank, no DeepSpeed): the launch mode is execution, not part of any
    key, and the store then holds the same artifacts as a run through Airflow would.
    """
    from flywheel_core.engines.environment import prepare_environment
    from flywheel_core.engines.pool import EnginePool
    from flywheel_core.jobs.base import LineProgress, Site, execute

    prepare_environment(recipe.execution.engine)
    plan = resolve(recipe, store, run_id, policy_digest=policy_digest(policy), start_at=start_at)
    site = Site(
        store=store,
        scratch=scratch,
        work_root=scratch / "work",
        engines=EnginePool(recipe.execution.engine),
        launch=recipe.execution.launch.model_copy(update={"mode": "inline", "num_workers": 1}),
        progress=LineProgress(),
    )
    stages: dict[str, StageDone] = {}
    try:
        for stage in plan.stages:
            on_stage(stage.name, None)
            cached = is_done(store, stage.ref)
            started_s = time.monotonic()
            manifest = execute(site, plan, stage.name)
            stages[stage.name] = StageDone(manifest, time.monotonic() - started_s, cached)
            on_stage(stage.name, stages[stage.name])
    finally:
        site.engines.close()
    verdicts = run_and_commit_gates(store, plan, policy)
    return Climb(plan, stages, verdicts)
