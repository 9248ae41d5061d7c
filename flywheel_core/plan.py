"""The pinned plan: everything a climb will read and make, decided once.

`resolve` commits one plan per run id, put-if-absent: the parent (production) digest, the traffic
days' versions, the generation number, the policy's digest and every stage's key. Each later try
of each task reads that plan and resolves nothing anew, so a re-run next week, under another
production model, is still the same climb.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from flywheel_core.artifacts import (
    KEY_HEX_DIGITS,
    SCHEMA_VERSION,
    ArtifactRef,
    Record,
    digest_of,
    is_done,
    read_manifest,
)
from flywheel_core.batches import earlier_batches
from flywheel_core.days import newest_days, world_week
from flywheel_core.erasure.users import Erasures, commit_list, list_ref, read_erasures
from flywheel_core.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    ConfigError,
    SchemaTooNew,
    StoreMissing,
)
from flywheel_core.keys import stage_key
from flywheel_core.parents import Parent, import_model, name_model, parent_to_be, production_parent
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.recipe import Recipe, parse_recipe
from flywheel_core.sections import StageResources
from flywheel_core.stages import (
    BASE,
    CLIMB,
    ERASURES,
    GUARD,
    POOL,
    PRODUCTION,
    SIGNAL_BASE,
    Stage,
)
from flywheel_core.start_at import FROM_THE_START, StartAt, checkpoint_ref
from flywheel_core.store import Store

NIGHTLY = ("traffic", "curate")
"""The stages of one night."""


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
    """Everything one climb reads and makes, and where it was asked to begin."""

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
    start_at: StartAt = FROM_THE_START

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


@dataclass(frozen=True)
class _Taking:
    """How a draft takes what lies outside the store: a checkpoint folder, the erasure list."""

    model: Callable[[Recipe, Store, str, str], ArtifactRef]
    erasures: Callable[[Store, str, Erasures], ArtifactRef]


INTO_THE_STORE = _Taking(import_model, commit_list)
BY_NAME = _Taking(name_model, lambda _store, flywheel, listed: list_ref(flywheel, listed))


@dataclass(frozen=True)
class _Draft:
    """What a plan is drafted from."""

    recipe: Recipe
    store: Store
    run_id: str
    policy_digest: str
    parent: Parent
    days: tuple[str, ...]
    pinned_days: dict[str, ArtifactRef]
    taking: _Taking
    stages: tuple[Stage, ...] = CLIMB
    start_at: StartAt = FROM_THE_START

    @property
    def generation(self) -> int:
        return self.parent.ref.generation + 1


def resolve(
    recipe: Recipe,
    store: Store,
    run_id: str,
    *,
    policy_digest: str,
    days: tuple[str, ...] | None = None,
    start_at: StartAt = FROM_THE_START,
) -> PinnedPlan:
    """Pin the plan of `run_id`; the plan that was pinned first is the one returned.

    `days` are the ones the run waited for. Where a stage before `start_at.start_from` is not
    done, nothing is pinned, and the error lists which.
    """

    def make() -> PinnedPlan:
        plan = draft(
            recipe, store, run_id, policy_digest=policy_digest, days=days, start_at=start_at
        )
        require_days(recipe, plan)
        require_start(store, plan)
        return plan

    return _pin(recipe, store, run_id, make)


def resolve_nightly(
    recipe: Recipe, store: Store, run_id: str, *, policy_digest: str, day: str | None = None
) -> PinnedPlan:
    """Pin the plan of one night: a day of traffic, curated."""

    def make() -> PinnedPlan:
        plan = draft_nightly(recipe, store, run_id, policy_digest=policy_digest, day=day)
        require_days(recipe, plan)
        return plan

    return _pin(recipe, store, run_id, make)


def _pin(recipe: Recipe, store: Store, run_id: str, make: Callable[[], PinnedPlan]) -> PinnedPlan:
    path = plan_path(recipe.flywheel, run_id)
    if not store.exists(path):
        store.put_if_absent(path, make().model_dump_json(indent=1).encode())
    return load_plan(store, path)


def draft(
    recipe: Recipe,
    store: Store,
    run_id: str,
    *,
    policy_digest: str,
    days: tuple[str, ...] | None = None,
    start_at: StartAt = FROM_THE_START,
) -> PinnedPlan:
    """The plan as it would be pinned now. Takes the base model and the list of erased users into
    the store, commits nothing else."""
    parent = production_parent(recipe, store)
    return _climb(recipe, store, run_id, policy_digest, parent, days, start_at, INTO_THE_STORE)


def sketch(
    recipe: Recipe,
    store: Store,
    *,
    policy_digest: str,
    days: tuple[str, ...] | None = None,
    start_at: StartAt = FROM_THE_START,
) -> PinnedPlan:
    """`draft` that writes nothing at all: models are named as their import would name them."""
    parent = parent_to_be(recipe, store)
    return _climb(recipe, store, "not pinned", policy_digest, parent, days, start_at, BY_NAME)


def _climb(
    recipe: Recipe,
    store: Store,
    run_id: str,
    policy_digest: str,
    parent: Parent,
    days: tuple[str, ...] | None,
    start_at: StartAt,
    taking: _Taking,
) -> PinnedPlan:
    days = days or traffic_days(recipe, store, parent.ref.generation + 1)
    pinned = _pinned_days(recipe, store, days, parent)
    return _plan(
        _Draft(
            recipe, store, run_id, policy_digest, parent, days, pinned, taking, start_at=start_at
        )
    )


def draft_nightly(
    recipe: Recipe, store: Store, run_id: str, *, policy_digest: str, day: str | None = None
) -> PinnedPlan:
    """One day: the one asked for, else the world's next day that nobody has made, or the newest
    one ingested.

    An ingested day is read from its newest version, so a late file makes new keys. A day of the
    world is made by this plan's own traffic stage: asked for again, it has the same keys.
    """
    parent = production_parent(recipe, store)
    pinned: dict[str, ArtifactRef] = {}
    if recipe.traffic.source == "world":
        chosen = _night_of_the_world(recipe, store, parent, day)
    else:
        chosen = day or newest_days(recipe, store)[-1]
        pinned = _pinned_days(recipe, store, (chosen,), parent)
    stages = tuple(stage for stage in CLIMB if stage.name in NIGHTLY)
    return _plan(
        _Draft(
            recipe,
            store,
            run_id,
            policy_digest,
            parent,
            (chosen,),
            pinned,
            INTO_THE_STORE,
            stages=stages,
        )
    )


def _night_of_the_world(recipe: Recipe, store: Store, parent: Parent, day: str | None) -> str:
    week = world_week(recipe, parent.ref.generation + 1)
    if day is None:
        made = _pinned_days(recipe, store, week, parent)
        return next((one for one in week if one not in made), week[-1])
    if day not in week:
        raise ConfigError(
            f"day: {day!r} is not in the simulated world's week {week[0]} to {week[-1]}, which "
            "the next climb reads; give one of its days, or leave it empty"
        )
    return day


def require_days(recipe: Recipe, plan: PinnedPlan) -> None:
    """Refuse a plan that lacks a day of ingested traffic: once pinned, it would always lack it."""
    missing = [day for day in plan.days if day not in plan.pinned_days]
    if missing and recipe.traffic.source != "world":
        raise ArtifactMissing(
            f"traffic of {', '.join(missing)} is not there, so no plan is pinned; run `flywheel "
            f"ingest FILE --flywheel {recipe.flywheel}`, then clear wait_for_traffic"
        )


def require_start(store: Store, plan: PinnedPlan) -> None:
    """Refuse a plan whose stages before `start_from` are not all in the store."""
    before = plan.start_at.stages_before
    missing = [
        stage for stage in plan.stages if stage.name in before and not is_done(store, stage.ref)
    ]
    if missing:
        listed = ", ".join(f"{stage.name} ({stage.ref.path})" for stage in missing)
        raise ConfigError(
            f"start_from: {plan.start_at.start_from!r} was asked for, but these stages before it "
            f"are not in the store: {listed}; start from {missing[0].name!r} or earlier"
        )


def _plan(wanted: _Draft) -> PinnedPlan:
    recipe, store = wanted.recipe, wanted.store
    known: dict[str, ArtifactRef] = {
        PRODUCTION: wanted.parent.ref,
        BASE: wanted.taking.model(recipe, store, "base", recipe.model.base),
        **{
            f"{POOL}-{name}": wanted.taking.model(recipe, store, f"pool-{name}", path)
            for name, path in sorted(recipe.model.pool.items())
        },
        **_signal_base(wanted),
        **{f"day-{day}": ref for day, ref in wanted.pinned_days.items()},
        **earlier_batches(store, recipe.flywheel, wanted.parent.pointer_number),
    }
    if recipe.curation.safety.model is not None:
        known[GUARD] = wanted.taking.model(recipe, store, GUARD, recipe.curation.safety.model)
    erasures = read_erasures(store, recipe.flywheel)
    if erasures:
        known[ERASURES] = wanted.taking.erasures(store, recipe.flywheel, erasures)
    replaced = _replaced(wanted)
    stages: list[PlannedStage] = []
    for stage in wanted.stages:
        planned = replaced.get(stage.name) or _plan_stage(
            stage, recipe, store, known, wanted.days, wanted.generation, erasures.digest
        )
        known[stage.name] = planned.ref
        stages.append(planned)
    return PinnedPlan(
        run_id=wanted.run_id,
        flywheel=recipe.flywheel,
        generation=wanted.generation,
        recipe=recipe.model_dump(mode="json"),
        parent=wanted.parent,
        policy_digest=wanted.policy_digest,
        erasure_digest=erasures.digest,
        days=wanted.days,
        pinned_days=wanted.pinned_days,
        stages=tuple(stages),
        start_at=wanted.start_at,
    )


def _signal_base(wanted: _Draft) -> dict[str, ArtifactRef]:
    path = wanted.recipe.model.signal_base
    if path is None:
        return {}
    return {SIGNAL_BASE: wanted.taking.model(wanted.recipe, wanted.store, SIGNAL_BASE, path)}


def _replaced(wanted: _Draft) -> dict[str, PlannedStage]:
    """The stages whose output is the checkpoint that was asked for.

    Their config is not a stage's: should the checkpoint be deleted, such a job fails before it
    can commit something else under the checkpoint's key.
    """
    recipe, start_at = wanted.recipe, wanted.start_at
    if start_at.checkpoint is None:
        return {}
    ref = checkpoint_ref(wanted.store, recipe.flywheel, start_at.checkpoint)
    return {
        stage.name: PlannedStage(
            name=stage.name,
            version=stage.version,
            module=stage.module,
            ref=ref,
            inputs={},
            config={"checkpoint": ref.path},
            seed=0,
            resources=recipe.execution.resources_of(stage.name),
            summary=f"not run: {ref.path} takes the place of its output",
        )
        for stage in wanted.stages
        if stage.name in start_at.replaced
    }


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
        resources=recipe.execution.resources_of(stage.name),
        summary=stage.summary,
    )


def traffic_days(recipe: Recipe, store: Store, generation: int) -> tuple[str, ...]:
    """The days a climb reads that was asked for none: the world's own week, or the newest
    ingested ones."""
    if recipe.traffic.source == "world":
        return world_week(recipe, generation)
    return newest_days(recipe, store)


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
