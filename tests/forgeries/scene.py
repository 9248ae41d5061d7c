"""An approved climb in reach of an attacker, and the attempt to promote it."""

import atexit
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

from flywheel_core.artifacts import ArtifactRef, FileEntry, Manifest, file_sha256, read_manifest
from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.errors import FlywheelError
from flywheel_core.plan import PinnedPlan, load_plan, plan_path
from flywheel_core.pointers import PointerRecord
from flywheel_core.recipe import Recipe
from flywheel_core.release.policy import ReleasePolicy, load_policy
from flywheel_core.release.promotion import Promotion, promote_run, question
from flywheel_core.release.verdicts import run_and_commit_gates
from flywheel_core.store import LocalStore
from tests.airflow.airflow_seeds import seeded_climb, write_recipe

FLYWHEEL = "tiny"
RUN = "run-of-monday"
OTHER_RUN = "run-of-tuesday"
TASK = ("flywheel_weekly", RUN, "approval")
MANAGER = "release_manager"

Seed = Literal["good", "blocked"]
USER_WINS: Mapping[Seed, int] = {"good": 1180, "blocked": 1362}


@dataclass
class Scene:
    """What promote reads, after an honest approval; an attack changes some of it."""

    store: LocalStore
    policy: ReleasePolicy
    detail: dict[str, Any] | None
    dag_run: dict[str, Any]
    try_number: int = 1
    tries: list[dict[str, Any]] = field(default_factory=list)
    unreadable: bool = False
    seed: Seed = "good"

    # -- Airflow's records, as promote asks for them (`AirflowRecords`) --------------------------

    class Reader:
        """The service account's view of this scene."""

        def __init__(self, scene: "Scene") -> None:
            self._scene = scene

        def approval_record(self, *task: str) -> dict[str, Any] | None:
            self._scene.require_readable()
            return self._scene.detail

        def current_try(self, *task: str) -> int:
            return self._scene.try_number

        def dag_run(self, *run: str) -> dict[str, Any]:
            self._scene.require_readable()
            return self._scene.dag_run

        def approval_tries(self, *task: str, up_to: int) -> list[dict[str, Any]]:
            current = [] if self._scene.detail is None else [self._scene.detail]
            return [*self._scene.tries, *current]

    def require_readable(self) -> None:
        from flywheel_core.errors import StackError

        if self.unreadable:
            raise StackError("Airflow does not answer; run `flywheel up`, or look at its logs")

    # -- what attackers do -----------------------------------------------------------------------

    def answer(self, **changes: Any) -> None:
        """Another answer in Airflow's record than the honest one."""
        if self.detail is not None:
            self.detail |= changes

    def ask_again(self) -> None:
        """The honest question and answer anew, about the store and policy as they are now."""
        plan = load_plan(self.store, self.path)
        body = question(self.store, plan, self.policy, reports=Path("/reports")).body
        self.detail = answered(body)

    @property
    def untouched(self) -> LocalStore:
        """The store as it was before any attack."""
        return LocalStore(str(_seeded(self.seed)))

    @property
    def path(self) -> str:
        return plan_path(FLYWHEEL, RUN)

    @property
    def plan(self) -> PinnedPlan:
        """The plan as it was pinned; attacks on its file do not reach this one."""
        return load_plan(self.untouched, self.path)

    @property
    def evaluate(self) -> ArtifactRef:
        return self.plan.stage("evaluate").ref

    def file(self, path: str) -> Path:
        return self.store.local_path(path)

    def edit_json(self, path: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Edit a JSON file in the store; one that is not there or not JSON is left."""
        try:
            data = json.loads(self.file(path).read_text())
        except (OSError, ValueError):
            return
        change(data)
        self.file(path).write_text(json.dumps(data))

    def file_in(self, ref: ArtifactRef, name: str) -> Path:
        """The file behind a committed artifact, by the manifest as it was committed."""
        manifest = read_manifest(self.untouched, ref)
        return Path(self.store.root) / ref.path / "attempts" / manifest.attempt / name

    def seal(self, ref: ArtifactRef) -> None:
        """Make an artifact's manifest agree with its files as they are now."""
        path = Path(self.store.root) / ref.path / "manifest.json"
        try:
            manifest = Manifest.model_validate_json(path.read_text())
        except (OSError, ValueError):
            return
        folder = path.parent / "attempts" / manifest.attempt
        entries = tuple(
            FileEntry(
                name=file.relative_to(folder).as_posix(),
                num_bytes=file.stat().st_size,
                sha256=file_sha256(file),
            )
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        )
        path.write_text(manifest.model_copy(update={"files": entries}).model_dump_json())

    def write_pointer(self, number: int, value: dict[str, Any], by: str = MANAGER) -> None:
        """A record of `production` by hand."""
        record = PointerRecord(number=number, value=value, by=by, reason="generation 1 approved")
        self.store.put(f"{FLYWHEEL}/pointers/production/{number:08d}.json", _json(record))

    # -- the attempt -----------------------------------------------------------------------------

    def promote(self) -> Promotion:
        """The promote task, on the service account's view of this scene."""
        reader = Scene.Reader(self)
        dag_id, run_id, task_id = TASK
        return promote_run(
            self.store,
            self.path,
            self.policy,
            reader,
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
        )

    def pointers(self) -> dict[str, bytes]:
        """Every pointer record of every flywheel."""
        folders = Path(self.store.root).glob("*/pointers/*/*.json")
        return {str(file.relative_to(self.store.root)): file.read_bytes() for file in folders}


@dataclass(frozen=True)
class Attempt:
    """What came of one attempt: the refusal, or that it went through."""

    refusal: Exception | None
    moved: bool

    @property
    def through(self) -> bool:
        return self.refusal is None or self.moved

    @property
    def is_clear(self) -> bool:
        """Refused on purpose, in a sentence, not by an accident of the code."""
        return isinstance(self.refusal, FlywheelError) and len(str(self.refusal)) > 30


def attempt(scene: Scene) -> Attempt:
    """Promote a scene that was attacked; nothing may move."""
    before = scene.pointers()
    refusal: Exception | None = None
    try:
        scene.promote()
    except Exception as error:
        refusal = error
    return Attempt(refusal, moved=scene.pointers() != before)


def approved_scene(folder: Path, seed: Seed = "good") -> Scene:
    """A fresh copy of a seeded climb that the release manager has just approved."""
    shutil.copytree(_seeded(seed), folder)
    scene = Scene(
        store=LocalStore(str(folder)),
        policy=load_policy(DEFAULT_POLICY),
        detail=None,
        dag_run={"run_type": "manual", "triggering_user_name": "admin"},
        seed=seed,
    )
    scene.detail = answered(_body(seed))
    return scene


def answered(body: str) -> dict[str, Any]:
    """Airflow's record of the release manager's approval, as `hitlDetails` returns it."""
    asked = datetime.now(UTC) - timedelta(hours=1)
    return {
        "task_instance": {"try_number": 1},
        "body": body,
        "created_at": asked.isoformat(),
        "responded_at": (asked + timedelta(minutes=5)).isoformat(),
        "response_received": True,
        "responded_by_user": {"id": MANAGER, "name": "Release Manager"},
        "chosen_options": ["Approve"],
        "params_input": {"automated": False},
    }


@cache
def _body(seed: Seed) -> str:
    store = LocalStore(str(_seeded(seed)))
    plan = load_plan(store, plan_path(FLYWHEEL, RUN))
    return question(store, plan, load_policy(DEFAULT_POLICY), reports=Path("/reports")).body


@cache
def _seeded(seed: Seed) -> Path:
    """A store with an evaluated climb, a second run of it, and a second flywheel."""
    home = Path(mkdtemp(prefix="fw-forgeries-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    store = LocalStore(str(home / "store"))
    policy = load_policy(DEFAULT_POLICY)
    for flywheel, run in ((FLYWHEEL, RUN), (FLYWHEEL, OTHER_RUN), ("other", RUN)):
        recipe = _small(write_recipe(home / "recipes", flywheel), home)
        plan = seeded_climb(store, recipe, DEFAULT_POLICY, run, internal=1160, user=USER_WINS[seed])
        run_and_commit_gates(store, plan, policy)
    return home / "store"


def _small(recipe: Recipe, home: Path) -> Recipe:
    """The recipe on a base model of a few bytes."""
    base = home / "base"
    base.mkdir(exist_ok=True)
    (base / "config.json").write_text("{}")
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"base": str(base)})})


def _json(record: PointerRecord) -> bytes:
    return record.model_dump_json(indent=1).encode()
