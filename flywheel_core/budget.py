"""GPU-hours of a climb: what its jobs have used, and how long the next one may run.

The limit is in the deployed policy. Each job's use is recorded once, when it ends; a running job
is stopped at the moment at which the climb's limit is reached, so the stop is hard.
"""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath

from flywheel_core.errors import BudgetExceeded
from flywheel_core.plan import PinnedPlan, PlannedStage, plan_path
from flywheel_core.recipe import Recipe
from flywheel_core.release.policy import ReleasePolicy
from flywheel_core.stages import TRAINING_STAGES
from flywheel_core.store import Store

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Allowance:
    """What one job may take: it holds `num_gpus` for at most `job_s` seconds (None: no limit).

    `refusal` says why no new job may be started; a live one has `job_s` 0 left.
    """

    folder: str
    num_gpus: float
    job_s: float | None
    refusal: str | None = None

    def require(self) -> None:
        """`BudgetExceeded` where nothing is left for a new job."""
        if self.refusal is not None:
            raise BudgetExceeded(self.refusal)

    def usage_path(self, submission_id: str) -> str:
        return f"{self.folder}/{submission_id}.json"


def num_gpus_of(recipe: Recipe, stage: PlannedStage) -> float:
    """GPUs that a stage's job holds: its driver's, and its ranks' where it trains."""
    launch = recipe.execution.launch
    trains = stage.name in TRAINING_STAGES
    ranks = launch.num_workers * launch.gpus_per_worker if trains else 0.0
    return stage.resources.driver_gpus + ranks


def allowance_of(
    store: Store, plan: PinnedPlan, stage: PlannedStage, policy: ReleasePolicy
) -> Allowance:
    """How long the next job of this stage may run."""
    folder = usage_folder(plan)
    num_gpus = num_gpus_of(plan.parsed_recipe(), stage)
    limit = policy.gpu_hours_per_climb_max
    if limit is None or not num_gpus:
        return Allowance(folder, num_gpus, None)
    used = gpu_hours_used(store, plan)
    if used >= limit:
        refusal = (
            f"gpu_hours_per_climb_max {limit:g}: this climb has used {used:.2f} GPU-hours, so "
            f"{stage.name} (which holds {num_gpus:g} GPUs) is not started; raise the limit in the "
            "release policy and clear this task, or start a smaller climb"
        )
        return Allowance(folder, num_gpus, 0.0, refusal)
    return Allowance(folder, num_gpus, (limit - used) * SECONDS_PER_HOUR / num_gpus)


def usage_folder(plan: PinnedPlan) -> str:
    """Where the use of a climb's jobs is recorded."""
    name = PurePosixPath(plan_path(plan.flywheel, plan.run_id)).stem
    return f"{plan.flywheel}/usage/{name}"


def gpu_hours_used(store: Store, plan: PinnedPlan) -> float:
    """GPU-hours of the climb's jobs that have ended."""
    ended = [path for path in store.list(usage_folder(plan)) if path.endswith(".json")]
    records = [json.loads(store.get(path)) for path in ended]
    return float(sum(record["gpu_hours"] for record in records))


def record_start(store: Store, path: str, at_s: float) -> float:
    """Record when a job began to run, in seconds since 1970; returns the first such record."""
    started = f"{path.removesuffix('.json')}.started"
    store.put_if_absent(started, json.dumps(at_s).encode())
    return float(json.loads(store.get(started)))


def record_usage(store: Store, path: str, num_gpus: float, running_s: float) -> None:
    """Record what a job used; the first record of a job stands."""
    record = {
        "num_gpus": num_gpus,
        "running_s": round(running_s, 3),
        "gpu_hours": num_gpus * running_s / SECONDS_PER_HOUR,
    }
    store.put_if_absent(path, json.dumps(record).encode())
