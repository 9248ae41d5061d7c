"""The stack that is shot at: short heartbeats, one worker slot, plans of the two chaos stages."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from flywheel_core.airflow_client import AirflowClient
from flywheel_core.artifacts import ArtifactRef, digest_of
from flywheel_core.errors import FlywheelError, StackError
from flywheel_core.parents import Parent
from flywheel_core.plan import PinnedPlan, PlannedStage, plan_path
from flywheel_core.recipe import RECIPE_FOLDER, Recipe, load_recipe
from flywheel_core.sections import StageResources
from flywheel_core.stack import Stack, StackInfo
from flywheel_core.stack.processes import choose_port
from flywheel_core.stack.stack import REPOSITORY
from flywheel_core.stages import MODULES_VARIABLE
from flywheel_core.store import LocalStore

HERE = Path(__file__).parent
DAG = "chaos"
FLYWHEEL = "chaos"
STAGES = ("chaos_generate", "chaos_train")
SHARDS = {"num_shards": 24, "shard_s": 1.0}
STEPS = {"num_steps": 30, "checkpoint_every_steps": 5, "step_s": 0.8}
ENDED = ("success", "failed")
ANSWER_S = 120.0

SHORT_HEARTBEATS = {
    "AIRFLOW__CORE__PARALLELISM": "1",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
}
"""Airflow finds out in seconds what takes it minutes by default; the worker's own heartbeats and
its patience with the API server stay as they are. One slot: a deferred task must not hold it."""


@dataclass
class ChaosStack:
    """The running stack, its store, and the events its jobs append to."""

    stack: Stack
    store: LocalStore
    recipe: Recipe
    events_file: Path
    admin: AirflowClient

    def info(self) -> StackInfo:
        info = self.stack.info()
        assert info is not None, "the chaos stack has no stack.json"
        return info

    def start_run(self, run_id: str) -> PinnedPlan:
        """Pin the run's plan and trigger it, however often the API server dies meanwhile."""
        plan = pin_plan(self.store, self.recipe, run_id)
        body = {"conf": {"recipe": FLYWHEEL}, "logical_date": None, "dag_run_id": run_id}
        for pause_s in _patience():
            try:
                self.admin.request("POST", f"/dags/{DAG}/dagRuns", json=body, allowed=(409,))
                break
            except StackError:
                time.sleep(pause_s)
        return plan

    def run_state(self, run_id: str) -> str | None:
        """None while Airflow does not answer."""
        try:
            return self.admin.run_state(DAG, run_id)
        except StackError:
            return None

    def task_states(self, run_id: str) -> dict[str, str | None]:
        """Empty while Airflow does not answer."""
        try:
            return self.admin.task_states(DAG, run_id)
        except StackError:
            return {}

    def tasks(self, run_id: str) -> list[dict[str, Any]]:
        """The run's task instances; waits for the API server."""
        for pause_s in _patience():
            try:
                return self.admin.task_instances(DAG, run_id)
            except StackError:
                time.sleep(pause_s)
        raise StackError("unreachable")

    def ray_jobs(self) -> dict[str, str]:
        """Submission id to status of every job the present Ray head knows."""
        headers = {"Authorization": f"Bearer {self.stack.ray_token_file.read_text()}"}
        for pause_s in _patience():
            try:
                url = f"{self.info().ray_url}/api/jobs/"
                answer = httpx.get(url, headers=headers, timeout=10)
                answer.raise_for_status()
                return {job["submission_id"]: job["status"] for job in answer.json()}
            except httpx.HTTPError:
                time.sleep(pause_s)
        raise StackError("unreachable")

    def events(self) -> list[dict[str, Any]]:
        """Every event so far, in the order of writing."""
        if not self.events_file.is_file():
            return []
        return [json.loads(line) for line in self.events_file.read_text().splitlines()]


def _patience() -> Iterator[float]:
    """Pauses of 2 s until a server must have come back; then the error of whoever still asks."""
    ends_s = time.monotonic() + ANSWER_S
    while time.monotonic() < ends_s:
        yield 2.0
    raise StackError(f"no answer for {ANSWER_S:.0f} s, though the supervisor restarts the dead")


@contextmanager
def chaos_stack(home: Path) -> Iterator[ChaosStack]:
    """A stack of its own below `home`, on free ports; stopped at the end, its state stays."""
    flows, recipes = home / "dags", home / "recipes"
    flows.mkdir(parents=True)
    shutil.copy(HERE / "dags" / "chaos.py", flows)
    events_file = home / "events.jsonl"
    recipe = write_recipe(recipes, events_file)
    stack = Stack(
        home / "state",
        recipes=recipes,
        dags_folder=flows,
        # Not the usual ports: another stack that starts at this moment would choose the same.
        airflow_port=choose_port(None, (), "Airflow"),
        ray_port=choose_port(None, (), "Ray dashboard"),
        extra_env=SHORT_HEARTBEATS | {MODULES_VARIABLE: ",".join(STAGES)},
    )
    stack.up(print)
    try:
        with stack.client() as admin:
            admin.wait_for_dag(DAG)
            yield ChaosStack(stack, LocalStore(stack.store_root), recipe, events_file, admin)
    finally:
        stack.down()


def write_recipe(folder: Path, events_file: Path) -> Recipe:
    """The tiny recipe whose jobs find the chaos stages and the file of events."""
    data = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data |= {"name": FLYWHEEL, "flywheel": FLYWHEEL}
    data["execution"]["env"] = {
        "PYTHONPATH": f"{HERE / 'stages'}:{REPOSITORY}",
        "FLYWHEEL_CHAOS_EVENTS": str(events_file),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{FLYWHEEL}.yaml"
    path.write_text(yaml.safe_dump(data))
    return load_recipe(str(path))


def pin_plan(store: LocalStore, recipe: Recipe, run_id: str) -> PinnedPlan:
    """Two stages with keys of this run and the same work in every run."""
    refs = {
        name: ArtifactRef(
            flywheel=FLYWHEEL, generation=1, stage=name, key=digest_of([run_id, name])[:16]
        )
        for name in STAGES
    }
    generate, train = STAGES
    inputs: dict[str, dict[str, ArtifactRef]] = {generate: {}, train: {generate: refs[generate]}}
    configs: dict[str, dict[str, Any]] = {generate: SHARDS, train: STEPS}
    base = ArtifactRef(flywheel=FLYWHEEL, generation=0, stage="base_model", key="none")
    plan = PinnedPlan(
        run_id=run_id,
        flywheel=FLYWHEEL,
        generation=1,
        recipe=recipe.model_dump(mode="json"),
        parent=Parent(ref=base, digest="none", pointer_number=1),
        policy_digest="none",
        erasure_digest="none",
        days=(),
        pinned_days={},
        stages=tuple(
            PlannedStage(
                name=name,
                version=1,
                module=name,
                ref=refs[name],
                inputs=inputs[name],
                config=configs[name],
                seed=0,
                resources=StageResources(timeout_s=900),
                summary="is killed",
            )
            for name in STAGES
        ),
    )
    if not store.put_if_absent(plan_path(FLYWHEEL, run_id), plan.model_dump_json().encode()):
        raise FlywheelError(f"run {run_id} has a plan already; give each run a new id")
    return plan
