"""Starting late, from a checkpoint, and the dry run that says what either would cost."""

from pathlib import Path

import pytest
from plan_samples import make_checkpoint, make_recipe

from flywheel_core.artifacts import ArtifactRef, Attempt
from flywheel_core.errors import ConfigError
from flywheel_core.keys import invalidate
from flywheel_core.plan import (
    PinnedPlan,
    load_plan,
    plan_path,
    resolve,
)
from flywheel_core.preview import preview
from flywheel_core.recipe import Recipe
from flywheel_core.start_at import FROM_THE_START, StartAt
from flywheel_core.store import MemoryStore

EARLY = ("traffic", "curate", "annotate", "reward_models", "rejection_sampling")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return make_recipe(make_checkpoint(tmp_path / "base"))


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


def pin(
    recipe: Recipe, store: MemoryStore, run_id: str, start_at: StartAt = FROM_THE_START
) -> PinnedPlan:
    return resolve(recipe, store, run_id, policy_digest="policy", start_at=start_at)


def finish(
    store: MemoryStore, ref: ArtifactRef, scratch: Path, *, model: bool = False, wall_s: float = 1
) -> ArtifactRef:
    attempt = Attempt(store, ref, scratch)
    file = attempt.folder / "model" / "weights" if model else attempt.folder / "made"
    file.parent.mkdir(exist_ok=True)
    file.write_text(ref.path)
    attempt.commit(kind=ref.stage, stage_version=1, timings_s={"total": wall_s})
    return ref


def finish_early(store: MemoryStore, plan: PinnedPlan, scratch: Path) -> None:
    for name in EARLY:
        finish(store, plan.stage(name).ref, scratch)


@pytest.fixture
def candidate(memory: MemoryStore, tmp_path: Path) -> ArtifactRef:
    """What an earlier generation promoted: a model without a `checkpoints/` folder."""
    ref = ArtifactRef(flywheel="test", generation=7, stage="evaluate", key="0123456789abcdef")
    return finish(memory, ref, tmp_path / "scratch", model=True)


def test_starting_late_refuses_at_once_and_lists_what_is_not_there(
    recipe: Recipe, memory: MemoryStore, tmp_path: Path
) -> None:
    first = pin(recipe, memory, "first")
    start = StartAt(start_from="reward_models")
    for name in ("traffic", "curate"):
        finish(memory, first.stage(name).ref, tmp_path)
    with pytest.raises(ConfigError) as refused:
        pin(recipe, memory, "late", start)
    said = str(refused.value)
    assert f"annotate ({first.stage('annotate').ref.path})" in said
    assert "start from 'annotate' or earlier" in said
    assert "curate (" not in said
    assert not memory.exists(plan_path("test", "late")), "nothing is pinned"
    finish(memory, first.stage("annotate").ref, tmp_path)
    late = pin(recipe, memory, "late", start)
    assert late.start_at == start
    assert [stage.ref for stage in late.stages] == [stage.ref for stage in first.stages]
    assert load_plan(memory, plan_path("test", "late")) == late


def test_a_checkpoint_takes_the_place_of_every_model_before(
    recipe: Recipe, memory: MemoryStore, candidate: ArtifactRef, tmp_path: Path
) -> None:
    plain = pin(recipe, memory, "plain")
    finish_early(memory, plain, tmp_path)
    replaced = {}
    for stage, expected in (("dpo", {"sft"}), ("rl", {"sft", "dpo"}), ("evaluate", set())):
        start = StartAt(start_from=stage, checkpoint=candidate.path)
        plan = pin(recipe, memory, f"from {stage}", start)
        replaced[stage] = {one.name for one in plan.stages if one.ref == candidate}
        assert replaced[stage] == (expected or {"sft", "dpo", "rl"})
        after = list(plan.stages)[len(start.stages_before) :]
        assert all(one.ref.key != plain.stage(one.name).ref.key for one in after), "new keys"
        assert all(one.ref == plain.stage(one.name).ref for one in plan.stages[: len(EARLY)])
        assert plan.start_at == start
    evaluate = pin(recipe, memory, "from evaluate").stage("evaluate")
    assert {evaluate.inputs[name] for name in ("sft", "dpo", "rl")} == {candidate}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("test/gen-0007/evaluate/none", "no finished artifact at"),
        ("test/gen-00007/evaluate/0123456789abcdef", "no finished artifact at"),
        ("other/gen-0007/evaluate/0123456789abcdef", "is of flywheel 'other'"),
        ("{traffic}", "holds no model/ folder"),
    ],
)
def test_a_checkpoint_that_is_none_says_why(
    recipe: Recipe,
    memory: MemoryStore,
    candidate: ArtifactRef,
    tmp_path: Path,
    path: str,
    said: str,
) -> None:
    plain = pin(recipe, memory, "plain")
    finish_early(memory, plain, tmp_path)
    path = path.format(traffic=plain.stage("traffic").ref.path)
    with pytest.raises(ConfigError, match=said):
        pin(recipe, memory, "run", StartAt(start_from="rl", checkpoint=path))


def test_a_checkpoint_that_was_called_bad_is_refused(
    recipe: Recipe, memory: MemoryStore, candidate: ArtifactRef
) -> None:
    invalidate(memory, "test", candidate.key, by="me", reason="it swears")
    with pytest.raises(ConfigError, match="called bad"):
        pin(recipe, memory, "run", StartAt(start_from="rl", checkpoint=candidate.path))


def test_what_cannot_be_asked_for() -> None:
    for start_from in (None, "traffic", "sft"):
        with pytest.raises(ConfigError, match="start_from to be one of dpo, rl, evaluate"):
            StartAt(start_from=start_from, checkpoint="test/gen-0007/rl/0123")
    for path in ("../gen-0007/rl/0123", "/test/gen-0007/rl/0123", "test/rl/0123", "a/gen-1/b/c"):
        with pytest.raises(ConfigError, match="is not a path in the store"):
            StartAt(start_from="rl", checkpoint=path)
    with pytest.raises(ConfigError, match="'later' is unknown"):
        StartAt(start_from="later")


def test_a_dry_run_writes_nothing_on_a_new_flywheel(recipe: Recipe, memory: MemoryStore) -> None:
    seen = preview(recipe, memory, policy_digest="policy")
    assert memory.list("") == []
    assert (seen.generation, len(seen.to_run)) == (1, 9)
    plan = pin(recipe, memory, "run")
    assert [one.key for one in seen.stages] == [stage.ref.key for stage in plan.stages]


def test_a_dry_run_says_what_is_there_and_what_the_rest_costs(
    recipe: Recipe, memory: MemoryStore, candidate: ArtifactRef, tmp_path: Path
) -> None:
    plan = pin(recipe, memory, "run")
    finish_early(memory, plan, tmp_path)
    for generation, wall_s in ((2, 50), (3, 40), (3, 45)):
        ref = ArtifactRef(
            flywheel="test", generation=generation, stage="rl", key=f"a{generation}{wall_s}"
        )
        finish(memory, ref, tmp_path, wall_s=wall_s)
    before = memory.list("")
    start = StartAt(start_from="rl", checkpoint=candidate.path)
    seen = preview(recipe, memory, policy_digest="policy", start_at=start)
    assert memory.list("") == before
    assert [one.name for one in seen.to_run] == ["rl", "evaluate"]
    assert {one.name: one.last_wall_s for one in seen.to_run} == {"rl": 45, "evaluate": 1}
    lines = seen.lines()
    assert f"sft {candidate.key} is there already" in "\n".join(lines)
    assert "7 cached, 2 to run, 46 s for the 2 with a known time" in lines[-1]
    with pytest.raises(ConfigError, match="these stages before it"):
        preview(recipe, memory, policy_digest="policy", start_at=StartAt(start_from="evaluate"))


def test_a_dry_run_adds_up_the_gpu_hours(memory: MemoryStore, tmp_path: Path) -> None:
    shape = {
        "vocab_size": 100,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    base = str(make_checkpoint(tmp_path / "base"))
    costs = {"peak_flops": 1e9, "tokens_by_stage": {"sft": 10**9, "rl": 10**9}}
    recipe = make_recipe(
        Path(base),
        model={"base": base, "shape": shape},
        execution={"launch": {}, "engine": {}, "costs": costs},
    )
    seen = preview(recipe, memory, policy_digest="policy")
    hours = {one.name: one.gpu_hours for one in seen.stages if one.gpu_hours is not None}
    assert set(hours) == {"sft", "rl"}
    assert f"{sum(hours.values()):g} GPU-h for the 2" in seen.lines()[-1]
