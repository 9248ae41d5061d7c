"""The pinned plan: everything a climb will read and make, decided once.

`resolve` commits one plan per run id, put-if-absent: the parent (production) digest, the traffic
days' versions, the generation number, the policy's digest and every stage's key. Each later try
of each task reads that plan and resolves nothing anew, so a re-run next week, under another
production model, is still the same climb.
"""

import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from flywheel_core.artifacts import (
    KEY_HEX_DIGITS,
    SCHEMA_VERSION,
    ArtifactRef,
    Attempt,
    Record,
    digest_of,
    file_sha256,
    is_done,
    model_digest,
    read_manifest,
)
from flywheel_core.erasure.users import commit_list, read_erasures
from flywheel_core.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    ConfigError,
    PointerConflict,
    SchemaTooNew,
    StoreMissing,
)
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.recipe import Recipe, StageResources, parse_recipe
from flywheel_core.stages import BASE, CLIMB, ERASURES, POOL, PRODUCTION, Stage
from flywheel_core.store import Store

BUILTIN_TINY = Path(__file__).resolve().parent / "world" / "base_model"
WORLD_EPOCH = datetime.date(2026, 1, 5)
"""The Monday on which the simulated product's first week starts: its clock is the generation."""

NIGHTLY = ("traffic", "curate")
"""The stages of one night."""

SMALL_FILE_BYTES = 64 * 1024 * 1024


class Parent(Record):
    """The production model a climb starts from, and the pointer record that named it."""

    ref: ArtifactRef
    digest: str
    pointer_number: int = Field(ge=1)


class PlannedStage(Record):
    """One stage of a pinned plan."""

    name: str
    version: int
    module: str
    ref: ArtifactRef
    inputs: dict[str, ArtifactRef]
    config: dict[str, Any]
    seed: int
    resources: StageResources
    summary: str


class PinnedPlan(Record):
    """Everything one climb reads and makes."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    flywheel: str
    generation: int
    recipe: dict[str, Any]
    parent: Parent
    policy_digest: str
    erasure_digest: str
    days: tuple[str, ...]
    pinned_days: dict[str, ArtifactRef]
    stages: tuple[PlannedStage, ...]

    def stage(self, name: str) -> PlannedStage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ConfigError(f"plan {self.run_id} has no stage {name!r}")

    def parsed_recipe(self) -> Recipe:
        return parse_recipe(self.recipe, f"of plan {self.run_id}")


def plan_path(flywheel: str, run_id: str) -> str:
    """Where a run's plan lies; the run id is hashed, because it may hold any character."""
    return f"{flywheel}/plans/{digest_of(run_id)[:KEY_HEX_DIGITS]}.json"


def load_plan(store: Store, path: str) -> PinnedPlan:
    """The pinned plan at `path` in the store."""
    try:
        data = json.loads(store.get(path))
    except StoreMissing as error:
        raise ArtifactMissing(f"no plan at {path}: run the `resolve` task first") from error
    except ValueError as error:
        raise ArtifactCorrupt(f"{path} is not JSON ({error}); start a new run") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SchemaTooNew(f"{path} was written by a newer flywheel; upgrade this one")
    try:
        return PinnedPlan.model_validate(data)
    except ValidationError as error:
        raise ArtifactCorrupt(f"{path} is not a plan ({error}); start a new run") from error


def resolve(recipe: Recipe, store: Store, run_id: str, *, policy_digest: str) -> PinnedPlan:
    """Pin the plan of `run_id`; the plan that was pinned first is the one returned."""
    return _pin(recipe, store, run_id, policy_digest, draft)


def resolve_nightly(recipe: Recipe, store: Store, run_id: str, *, policy_digest: str) -> PinnedPlan:
    """Pin the plan of one night: a day of traffic, curated."""
    return _pin(recipe, store, run_id, policy_digest, draft_nightly)


def _pin(
    recipe: Recipe,
    store: Store,
    run_id: str,
    policy_digest: str,
    make: Callable[..., PinnedPlan],
) -> PinnedPlan:
    path = plan_path(recipe.flywheel, run_id)
    if not store.exists(path):
        plan = make(recipe, store, run_id, policy_digest=policy_digest)
        store.put_if_absent(path, plan.model_dump_json(indent=1).encode())
    return load_plan(store, path)


def draft(recipe: Recipe, store: Store, run_id: str, *, policy_digest: str) -> PinnedPlan:
    """The plan as it would be pinned now. Takes the base model and the list of erased users into
    the store, commits nothing else."""
    parent = production_parent(recipe, store)
    days = traffic_days(recipe, store, parent.ref.generation + 1)
    return _draft(recipe, store, run_id, policy_digest, parent, days, CLIMB)


def draft_nightly(recipe: Recipe, store: Store, run_id: str, *, policy_digest: str) -> PinnedPlan:
    """One day: the world's next day that nobody has made, or the newest one ingested."""
    parent = production_parent(recipe, store)
    days = traffic_days(recipe, store, parent.ref.generation + 1)
    if recipe.traffic.source == "world":
        made = _pinned_days(recipe, store, days, parent)
        chosen = next((day for day in days if day not in made), days[-1])
    else:
        chosen = days[-1]
    stages = tuple(stage for stage in CLIMB if stage.name in NIGHTLY)
    return _draft(recipe, store, run_id, policy_digest, parent, (chosen,), stages)


def _draft(
    recipe: Recipe,
    store: Store,
    run_id: str,
    policy_digest: str,
    parent: Parent,
    days: tuple[str, ...],
    wanted: tuple[Stage, ...],
) -> PinnedPlan:
    generation = parent.ref.generation + 1
    pinned_days = _pinned_days(recipe, store, days, parent)
    known: dict[str, ArtifactRef] = {
        PRODUCTION: parent.ref,
        BASE: import_model(recipe, store, "base", recipe.model.base),
        **{
            f"{POOL}-{name}": import_model(recipe, store, f"pool-{name}", path)
            for name, path in sorted(recipe.model.pool.items())
        },
        **{f"day-{day}": ref for day, ref in pinned_days.items()},
    }
    erasures = read_erasures(store, recipe.flywheel)
    if erasures:
        known[ERASURES] = commit_list(store, recipe.flywheel, erasures)
    stages: list[PlannedStage] = []
    for stage in wanted:
        planned = _plan_stage(stage, recipe, store, known, days, generation, erasures.digest)
        known[stage.name] = planned.ref
        stages.append(planned)
    return PinnedPlan(
        run_id=run_id,
        flywheel=recipe.flywheel,
        generation=generation,
        recipe=recipe.model_dump(mode="json"),
        parent=parent,
        policy_digest=policy_digest,
        erasure_digest=erasures.digest,
        days=days,
        pinned_days=pinned_days,
        stages=tuple(stages),
    )


def publish_day(store: Store, plan: PinnedPlan) -> PointerRecord | None:
    """Name a nightly plan's day of traffic, so that the week pins it; None if it is named already.

    A day's pointer is its list of versions: ingesting or making a day again appends one.
    """
    (day,) = plan.days
    ref = plan.stage("traffic").ref
    pointer = Pointer(store, plan.flywheel, f"traffic/{day}")
    newest = pointer.newest()
    named = newest.value["ref"]["key"] if newest else None
    if day in plan.pinned_days or named == ref.key:
        return None
    manifest = read_manifest(store, ref)
    value = {
        "ref": ref.model_dump(mode="json"),
        "digest": manifest.digest,
        "rows": manifest.row_counts.get("rows"),
        "source": plan.run_id,
        "parent_key": plan.parent.ref.key,
    }
    return pointer.append(value, by="flywheel_nightly", reason=f"traffic of {day}")


def _plan_stage(
    stage: Stage,
    recipe: Recipe,
    store: Store,
    known: Mapping[str, ArtifactRef],
    days: tuple[str, ...],
    generation: int,
    erasure_digest: str,
) -> PlannedStage:
    config = stage.config(recipe)
    inputs = {
        name: ref
        for name, ref in known.items()
        if name in stage.inputs or name.split("-")[0] in stage.inputs
    }
    if stage.name == "traffic":
        config = {**config, "days": list(days)}
        inputs |= {name: ref for name, ref in known.items() if name.startswith("day-")}
    seed = int(digest_of([recipe.seed, stage.name])[:8], 16)
    key = stage_key(
        store,
        recipe.flywheel,
        {
            "stage": stage.name,
            "version": stage.version,
            "config": config,
            "inputs": {name: ref.key for name, ref in sorted(inputs.items())},
            "seed": seed,
            "erasures": erasure_digest,
        },
    )
    return PlannedStage(
        name=stage.name,
        version=stage.version,
        module=stage.module,
        ref=ArtifactRef(flywheel=recipe.flywheel, generation=generation, stage=stage.name, key=key),
        inputs=inputs,
        config=config,
        seed=seed,
        resources=recipe.execution.resources.get(stage.name, recipe.execution.default_resources),
        summary=stage.summary,
    )


def stage_key(store: Store, flywheel: str, asked_for: Mapping[str, Any]) -> str:
    """Key of what is asked for; each `invalidate` of the key in force raises its revision."""
    base = digest_of(dict(asked_for))[:KEY_HEX_DIGITS]
    key = base
    while Pointer(store, flywheel, f"invalidated/{key}").newest() is not None:
        key = digest_of([base, key])[:KEY_HEX_DIGITS]
    return key


def invalidate(store: Store, flywheel: str, key: str, *, by: str, reason: str) -> PointerRecord:
    """Record that the artifact under `key` is bad; plans drafted later use another key."""
    if not any(f"/{key}/manifest.json" in path for path in store.list(flywheel)):
        raise ArtifactMissing(
            f"key {key!r}: no artifact of {flywheel!r} has it; see `flywheel status`"
        )
    return Pointer(store, flywheel, f"invalidated/{key}").append({"key": key}, by=by, reason=reason)


def erasures_digest(store: Store, flywheel: str) -> str:
    """Digest of the list of erased users, part of every key."""
    return read_erasures(store, flywheel).digest


def production_parent(recipe: Recipe, store: Store) -> Parent:
    """The production model; on a new flywheel, the base model becomes generation 0."""
    pointer = Pointer(store, recipe.flywheel, PRODUCTION)
    newest = pointer.newest()
    if newest is None:
        base = import_model(recipe, store, "base", recipe.model.base)
        value = {"ref": base.model_dump(), "digest": model_digest(read_manifest(store, base))}
        newest = _start(pointer, value)
    ref = ArtifactRef.model_validate(newest.value["ref"])
    return Parent(ref=ref, digest=newest.value["digest"], pointer_number=newest.number)


def _start(pointer: Pointer, value: dict[str, Any]) -> PointerRecord:
    """Record 1 of `production`; where another run started the flywheel meanwhile, its newest."""
    try:
        return pointer.move(
            value, expected_number=0, by="flywheel", reason="generation 0: the base model"
        )
    except PointerConflict:
        newest = pointer.newest()
        if newest is None:
            raise
        return newest


def traffic_days(recipe: Recipe, store: Store, generation: int) -> tuple[str, ...]:
    """The days this climb reads: the world's own week, or the newest ingested ones."""
    count = recipe.traffic.num_days
    if recipe.traffic.source == "world":
        first = WORLD_EPOCH + datetime.timedelta(days=count * (generation - 1))
        return tuple(str(first + datetime.timedelta(days=offset)) for offset in range(count))
    days = ingested_days(store, recipe.flywheel)
    if not days:
        raise ArtifactMissing(
            f"flywheel {recipe.flywheel!r} has no day of traffic; run `flywheel ingest FILE` first"
        )
    return days[-count:]


def ingested_days(store: Store, flywheel: str) -> tuple[str, ...]:
    """Every day of traffic there is, oldest first."""
    folder = f"{flywheel}/pointers/traffic"
    return tuple(sorted({path.split("/")[-2] for path in store.list(folder)}))


def _pinned_days(
    recipe: Recipe, store: Store, days: tuple[str, ...], parent: Parent
) -> dict[str, ArtifactRef]:
    pinned = {}
    for day in days:
        newest = Pointer(store, recipe.flywheel, f"traffic/{day}").newest()
        if newest is None:
            continue
        if recipe.traffic.source == "world" and newest.value.get("parent_key") != parent.ref.key:
            continue  # a simulated day under another model is made anew, on-policy
        pinned[day] = ArtifactRef.model_validate(newest.value["ref"])
    return pinned


def import_model(recipe: Recipe, store: Store, name: str, path: str) -> ArtifactRef:
    """Take a checkpoint folder into the store, once, as an artifact of generation 0."""
    folder = BUILTIN_TINY if path == "builtin:tiny" else Path(path).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.{name}: {path!r} has no config.json; give a checkpoint folder, or builtin:tiny"
        )
    files = sorted(
        file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")
    )
    listing = [
        [
            file.name,
            file.stat().st_size,
            file_sha256(file) if file.stat().st_size < SMALL_FILE_BYTES else "",
        ]
        for file in files
    ]
    asked_for = {"stage": "base_model", "files": listing}
    ref = ArtifactRef(
        flywheel=recipe.flywheel,
        generation=0,
        stage="base_model",
        key=stage_key(store, recipe.flywheel, asked_for),
    )
    if not is_done(store, ref):
        _commit_folder(store, ref, files, origin=path)
    return ref


def _commit_folder(store: Store, ref: ArtifactRef, files: list[Path], *, origin: str) -> None:
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        attempt = Attempt(store, ref, Path(scratch))
        for file in files:
            target = attempt.folder / "model" / file.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
        attempt.commit(kind="model", stage_version=1, config={"origin": origin})
