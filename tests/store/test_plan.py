"""The pinned plan on every store: one per run, keys that depend only on what is asked for."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from plan_samples import make_checkpoint, make_recipe
from store_samples import Crash, CrashingStore

from flywheel_core.artifacts import ArtifactRef, Attempt, read_manifest
from flywheel_core.erasure.users import add_users
from flywheel_core.errors import ArtifactCorrupt, ArtifactMissing, ConfigError, SchemaTooNew
from flywheel_core.keys import invalidate
from flywheel_core.plan import (
    PinnedPlan,
    draft,
    load_plan,
    plan_path,
    resolve,
)
from flywheel_core.pointers import Pointer
from flywheel_core.recipe import Recipe
from flywheel_core.store import Store


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "base")


@pytest.fixture
def recipe(base: Path) -> Recipe:
    return make_recipe(base)


def keys(plan: PinnedPlan) -> dict[str, str]:
    return {stage.name: stage.ref.key for stage in plan.stages}


def pin(recipe: Recipe, store: Store, run_id: str = "run") -> PinnedPlan:
    return resolve(recipe, store, run_id, policy_digest="policy")


def changed(one: PinnedPlan, other: PinnedPlan) -> set[str]:
    """Stages whose keys differ."""
    return {name for name, key in keys(one).items() if keys(other)[name] != key}


def test_the_plan_that_was_pinned_first_is_the_one_returned(
    store: Store, recipe: Recipe, base: Path
) -> None:
    first = pin(recipe, store)
    other = make_recipe(base, seed=5)
    Pointer(store, "test", "production").append(
        {"ref": first.parent.ref.model_dump(), "digest": "another"}, by="rm", reason="moved"
    )
    assert pin(other, store) == first
    assert pin(other, store, "another run") != first
    assert load_plan(store, plan_path("test", "run")) == first
    assert first.parsed_recipe() == recipe


def test_of_many_that_resolve_at_once_all_read_one_plan(store: Store, base: Path) -> None:
    recipes = [make_recipe(base, seed=seed) for seed in range(6)]
    pin(recipes[0], store, "warm-up: imports the base model")
    with ThreadPoolExecutor(6) as resolvers:
        plans = list(resolvers.map(lambda one: pin(one, store), recipes))
    assert all(plan == plans[0] for plan in plans)


def test_many_first_runs_at_once_make_one_production_model(store: Store, recipe: Recipe) -> None:
    with ThreadPoolExecutor(4) as resolvers:
        plans = list(resolvers.map(lambda n: pin(recipe, store, f"run {n}"), range(4)))
    assert len({plan.parent.digest for plan in plans}) == 1
    assert all(keys(plan) == keys(plans[0]) for plan in plans)
    assert len(Pointer(store, "test", "production").history()) == 1


def test_keys_are_the_same_on_every_store(
    all_stores: dict[str, Store], recipe: Recipe, tmp_path: Path
) -> None:
    elsewhere = make_recipe(
        make_checkpoint(tmp_path / "copied" / "elsewhere"),
        execution={"launch": {"num_workers": 64}, "engine": {"max_num_seqs": 4}},
    )
    plans = [pin(one, store) for one in (recipe, elsewhere) for store in all_stores.values()]
    assert len({json.dumps(keys(plan)) for plan in plans}) == 1
    assert len({plan.parent.digest for plan in plans}) == 1


@pytest.mark.parametrize("store", ["memory"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"seed": 1}, "traffic"),
        ({"rl": {"max_steps": 3}}, "rl"),
        ({"evaluation": {"sampling": {"max_tokens": 9}, "judge": "rules"}}, "sft"),
    ],
)
def test_a_semantic_change_changes_the_stage_and_what_follows(
    store: Store, recipe: Recipe, base: Path, changes: dict[str, Any], first: str
) -> None:
    before = pin(recipe, store)
    after = pin(make_recipe(base, **changes), store, "after")
    order = list(keys(before))
    assert min(changed(before, after), key=order.index) == first
    assert "evaluate" in changed(before, after)


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_other_weights_are_another_base_model(store: Store, recipe: Recipe, base: Path) -> None:
    before = draft(recipe, store, "before", policy_digest="policy")
    (base / "model.safetensors").write_bytes(b"others!")
    after = draft(recipe, store, "after", policy_digest="policy")
    assert after.parent == before.parent
    assert after.stage("sft").inputs["base"] != before.stage("sft").inputs["base"]
    assert "traffic" not in changed(before, after)


def finish(store: Store, ref: ArtifactRef, scratch: Path) -> None:
    attempt = Attempt(store, ref, scratch)
    (attempt.folder / "made").write_bytes(ref.stage.encode())
    attempt.commit(kind=ref.stage, stage_version=1)


def test_invalidating_raises_the_revision_and_changes_what_follows(
    store: Store, recipe: Recipe, tmp_path: Path
) -> None:
    first = pin(recipe, store)
    rejected = first.stage("rejection_sampling").ref
    with pytest.raises(ArtifactMissing, match="no artifact of 'test' has it"):
        invalidate(store, "test", rejected.key, by="me", reason="not made yet")
    finish(store, rejected, tmp_path / "scratch")
    record = invalidate(store, "test", rejected.key, by="me", reason="bad shard")
    assert (record.by, record.reason) == ("me", "bad shard")
    second = pin(recipe, store, "second")
    assert changed(first, second) == {"rejection_sampling", "sft", "dpo", "rl", "evaluate"}
    assert pin(recipe, store) == first, "a pinned run keeps its keys"
    finish(store, second.stage("rejection_sampling").ref, tmp_path / "scratch")
    invalidate(
        store, "test", second.stage("rejection_sampling").ref.key, by="me", reason="bad again"
    )
    third = pin(recipe, store, "third")
    made = {plan.stage("rejection_sampling").ref.key for plan in (first, second, third)}
    assert len(made) == 3


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_an_erasure_changes_every_key(store: Store, recipe: Recipe) -> None:
    before = pin(recipe, store)
    add_users(store, "test", ["u1"], by="me", reason="asked for")
    assert changed(before, pin(recipe, store, "after")) == set(keys(before))


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_a_crash_at_any_write_of_resolve_leaves_a_store_that_resolves(
    store: Store, recipe: Recipe
) -> None:
    crash_at = 0
    while True:
        try:
            plan = pin(recipe, CrashingStore(store, crash_at), f"run {crash_at}")
        except Crash:
            crash_at += 1
            assert pin(recipe, store, f"run {crash_at - 1}").stages
            store.delete(plan_path("test", f"run {crash_at - 1}"))
        else:
            break
    assert plan.stages
    assert len(Pointer(store, "test", "production").history()) == 1


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_a_plan_that_cannot_be_read_says_why(store: Store, recipe: Recipe) -> None:
    pin(recipe, store)
    path = plan_path("test", "run")
    good = json.loads(store.get(path))
    with pytest.raises(ArtifactMissing, match="run the `resolve` task first"):
        load_plan(store, plan_path("test", "another"))
    for data, error in (
        (b"{", ArtifactCorrupt),
        (b"[]", ArtifactCorrupt),
        (json.dumps(good | {"extra": 1}).encode(), ArtifactCorrupt),
        (json.dumps(good | {"schema_version": 99}).encode(), SchemaTooNew),
    ):
        store.put(path, data)
        with pytest.raises(error):
            load_plan(store, path)


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_a_checkpoint_that_is_not_there_is_named(
    store: Store, recipe: Recipe, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="has no config"):
        pin(make_recipe(tmp_path / "nothing"), store)
    pool = {"base": str(base), "pool": {"other": str(tmp_path / "nowhere")}}
    with pytest.raises(ConfigError, match="pool-other"):
        pin(make_recipe(base, model=pool), store)


def test_the_base_model_is_imported_once_with_its_files(store: Store, recipe: Recipe) -> None:
    plan = pin(recipe, store)
    manifest = read_manifest(store, plan.parent.ref)
    assert [entry.name for entry in manifest.files] == [
        "model/config.json",
        "model/model.safetensors",
    ]
    assert plan.generation == 1
    assert plan.stage("sft").inputs["base"] == plan.parent.ref
