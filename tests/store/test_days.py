"""Which days a run reads, what is missing, and that late or repeated days never double."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from plan_samples import make_checkpoint, make_recipe

from flywheel_core.artifacts import ArtifactRef, Attempt, read_manifest
from flywheel_core.days import (
    keep_days,
    kept_days,
    missing_days,
    night_asked_for,
    week_asked_for,
)
from flywheel_core.errors import ArtifactCorrupt, ArtifactMissing, ConfigError
from flywheel_core.plan import PinnedPlan, publish_day, resolve, resolve_nightly
from flywheel_core.pointers import Pointer
from flywheel_core.recipe import Recipe
from flywheel_core.report.build import newest_plan
from flywheel_core.store import MemoryStore, Store

SUNDAY = datetime.date(2026, 1, 11)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "base")


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


def recipe_of(base: Path, source: str, num_days: int = 7) -> Recipe:
    rows = {"internal_rows_per_day": 10, "user_rows_per_day": 10} if source == "world" else {}
    sampling = {"max_tokens": 8}
    traffic: dict[str, Any] = {"source": source, "num_days": num_days, "sampling": sampling}
    return make_recipe(base, traffic=traffic | rows)


def take_in(store: Store, day: str, content: str, scratch: Path) -> ArtifactRef:
    """A version of a day, as `flywheel ingest` names it: by its content."""
    ref = ArtifactRef(flywheel="test", generation=0, stage="traffic_day", key=f"{day}-{content}")
    attempt = Attempt(store, ref, scratch)
    (attempt.folder / "traffic.parquet").write_text(content)
    attempt.commit(kind="traffic", stage_version=1)
    Pointer(store, "test", f"traffic/{day}").append(
        {"ref": ref.model_dump()}, by="me", reason="ingested"
    )
    return ref


def finish(store: Store, plan: PinnedPlan, scratch: Path) -> None:
    """Run a night's stages as the jobs do: what is there is not made again."""
    for stage in plan.stages:
        if not store.exists(f"{stage.ref.path}/manifest.json"):
            attempt = Attempt(store, stage.ref, scratch)
            (attempt.folder / "made").write_text(stage.name)
            attempt.commit(kind=stage.name, stage_version=1)


def night(recipe: Recipe, store: Store, run_id: str, day: str | None = None) -> PinnedPlan:
    return resolve_nightly(recipe, store, run_id, policy_digest="policy", day=day)


def test_a_scheduled_week_ends_the_day_before_its_date(base: Path, memory: MemoryStore) -> None:
    recipe = recipe_of(base, "ingested")
    week = week_asked_for(recipe, memory, given=None, scheduled_for=SUNDAY)
    assert week == tuple(f"2026-01-{day:02d}" for day in range(4, 11))
    assert week_asked_for(recipe, memory, given="2026-01-10", scheduled_for=None) == week
    assert night_asked_for(recipe, memory, given=None, scheduled_for=SUNDAY) == "2026-01-10"


def test_by_hand_without_a_date_the_newest_days_are_read(
    base: Path, memory: MemoryStore, tmp_path: Path
) -> None:
    recipe = recipe_of(base, "ingested", num_days=2)
    with pytest.raises(ArtifactMissing, match="flywheel ingest FILE"):
        week_asked_for(recipe, memory, given=None, scheduled_for=None)
    take_in(memory, "2018-11-01", "topical", tmp_path)
    one_day = week_asked_for(recipe, memory, given=None, scheduled_for=None)
    assert one_day == ("2018-11-01",), "a data set of one labelled day is a week of one day"
    for day in ("2026-01-08", "2026-01-05"):
        take_in(memory, day, "a", tmp_path)
    newest = week_asked_for(recipe, memory, given=None, scheduled_for=None)
    assert newest == ("2026-01-05", "2026-01-08")
    assert night_asked_for(recipe, memory, given=None, scheduled_for=None) == "2026-01-08"


def test_the_world_keeps_its_own_calendar(base: Path, memory: MemoryStore) -> None:
    recipe = recipe_of(base, "world")
    assert week_asked_for(recipe, memory, given=None, scheduled_for=SUNDAY) is None
    assert night_asked_for(recipe, memory, given=None, scheduled_for=SUNDAY) is None
    with pytest.raises(ConfigError, match="week_ending: '2026-01-11' was given"):
        week_asked_for(recipe, memory, given="2026-01-11", scheduled_for=None)
    with pytest.raises(ConfigError, match="week 2026-01-05 to 2026-01-11"):
        night(recipe, memory, "run", "2025-01-01")


@pytest.mark.parametrize("given", ["yesterday", "2026-13-01"])
def test_a_date_that_is_none_says_so(base: Path, memory: MemoryStore, given: str) -> None:
    recipe = recipe_of(base, "ingested")
    with pytest.raises(ConfigError, match="YYYY-MM-DD"):
        week_asked_for(recipe, memory, given=given, scheduled_for=None)


def test_missing_days_are_those_nobody_ingested(memory: MemoryStore, tmp_path: Path) -> None:
    days = ("2026-01-07", "2026-01-08", "2026-01-09")
    take_in(memory, "2026-01-08", "a", tmp_path)
    assert missing_days(memory, "test", days) == ("2026-01-07", "2026-01-09")


def test_the_days_a_run_waited_for_are_the_ones_its_plan_pins(
    store: Store, base: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(base, "ingested", num_days=2)
    for day in ("2026-01-05", "2026-01-06"):
        take_in(store, day, "a", tmp_path)
    assert kept_days(store, "test", "run") is None
    kept = keep_days(store, "test", "run", ("2026-01-05", "2026-01-06"))
    assert keep_days(store, "test", "run", ("2026-01-06", "2026-01-07")) == kept
    newer = take_in(store, "2026-01-07", "a", tmp_path)
    plan = resolve(
        recipe, store, "run", policy_digest="policy", days=kept_days(store, "test", "run")
    )
    assert plan.days == kept
    assert newer not in plan.pinned_days.values()
    assert resolve(recipe, store, "other", policy_digest="policy").days != kept


def test_days_that_cannot_be_read_say_so(memory: MemoryStore) -> None:
    keep_days(memory, "test", "run", ("2026-01-05",))
    (path,) = memory.list("test/days")
    memory.put(path, b"{}")
    with pytest.raises(ArtifactCorrupt, match="start a new run"):
        kept_days(memory, "test", "run")


def test_a_late_file_curates_anew_and_a_repeat_changes_nothing(
    store: Store, base: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(base, "ingested")
    day = "2026-01-08"
    first_version = take_in(store, day, "early", tmp_path)
    first = night(recipe, store, "night 1", day)
    finish(store, first, tmp_path)
    assert publish_day(store, first) is None, "ingesting named the day already"

    before = set(store.list("test"))
    repeat = night(recipe, store, "night 1 again", day)
    finish(store, repeat, tmp_path)
    publish_day(store, repeat)
    assert [stage.ref for stage in repeat.stages] == [stage.ref for stage in first.stages]
    assert set(store.list("test")) - before == {
        path for path in store.list("test/plans") if path not in before
    }, "a repeat with nothing new writes its plan and nothing else"

    late_version = take_in(store, day, "late", tmp_path)
    again = night(recipe, store, "night 1 after the late file", day)
    assert again.pinned_days == {day: late_version}
    assert again.stage("curate").ref.key != first.stage("curate").ref.key
    assert first.pinned_days == {day: first_version}
    finish(store, again, tmp_path)
    assert publish_day(store, again) is None
    assert len(Pointer(store, "test", f"traffic/{day}").history()) == 2
    assert read_manifest(store, first.stage("curate").ref), "what was made stays"
    assert night(recipe, store, "night 1", day) == first, "a pinned night keeps its version"


def test_a_day_of_the_world_asked_for_again_is_not_made_again(
    store: Store, base: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(base, "world")
    first = night(recipe, store, "night 1")
    assert first.days == ("2026-01-05",)
    finish(store, first, tmp_path)
    assert publish_day(store, first) is not None
    repeat = night(recipe, store, "by hand", "2026-01-05")
    assert [stage.ref for stage in repeat.stages] == [stage.ref for stage in first.stages]
    assert publish_day(store, repeat) is None
    assert len(Pointer(store, "test", "traffic/2026-01-05").history()) == 1
    assert night(recipe, store, "night 2").days == ("2026-01-06",)


def test_a_nights_plan_is_no_generation_to_report_on(base: Path, memory: MemoryStore) -> None:
    night(recipe_of(base, "world"), memory, "night 1")
    with pytest.raises(ArtifactMissing, match="no finished evaluation; generations planned: none"):
        newest_plan(memory, "test", 1)
