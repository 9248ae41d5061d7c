"""User signals stay out of online RL (§3.5.5); a study that puts them in makes nothing that can be
released, by whatever way its model comes to a promotion."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flywheel_core.artifacts import ArtifactRef, Manifest, read_manifest
from flywheel_core.cli import app
from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.pool import EnginePool
from flywheel_core.errors import ConfigError
from flywheel_core.jobs import base as jobs_base
from flywheel_core.jobs.base import Site, StageOutput
from flywheel_core.jobs.rl import Config as RlConfig
from flywheel_core.parents import BUILTIN_TINY, import_model
from flywheel_core.plan import PinnedPlan, resolve, resolve_nightly, sketch
from flywheel_core.recipe import RECIPE_FOLDER, Recipe, load_recipe, parse_recipe
from flywheel_core.release.fitness import UnfitForRelease, inherited_marks, marks_of
from flywheel_core.release.gates import GATES
from flywheel_core.release.policy import load_policy
from flywheel_core.release.promotion import promote_in_process, question
from flywheel_core.stages import stage_named
from flywheel_core.store import LocalStore
from flywheel_core.studies import MARK, MARK_FILE
from flywheel_core.training.config import LaunchConfig
from tests.airflow.airflow_seeds import gate_metrics, seeded_climb

STUDY = {"name": "v12_again", "allows": ["user_signals_in_rl"]}
WEIGHTS = {"signal_thumb_up": 1.0, "pointwise_user": 0.5}
POLICY = load_policy(DEFAULT_POLICY)


def tiny(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data["rl"] |= changes.pop("rl", {})
    return data | changes


def test_a_user_signal_in_rl_is_refused_with_the_papers_reason() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_recipe(tiny(rl={"reward_weights": WEIGHTS}), "test")
    for part in ("rl.reward_weights names signal_thumb_up", "§3.5.5", "clarifying", "goodbyes",
                 "job", "turn before", "rejection_sampling.signal_weights", "study:"):  # fmt: skip
        assert part in str(refused.value)


def test_thumbs_in_the_place_of_annotation_are_refused_too_and_marked_in_a_study() -> None:
    """`pointwise_user` of such pairs is a user-signal model by another name."""
    data = tiny()
    data["annotation"] |= {"source": "signals", "num_annotators": 1}
    data["annotation"] |= {"interactive_chats": 0, "steerability_chats": 0, "targeted_share": 0}
    for weights in ({}, {"pointwise_internal": 1.0, "pointwise_user": 0.0}):
        data["rl"]["reward_weights"] = weights
        with pytest.raises(ConfigError, match=r"annotation.source: 'signals' .*§3.5.5.*\(study: "):
            parse_recipe(data, "test")
    assert parse_recipe(data | {"study": STUDY}, "test").annotation.source == "signals"


def test_the_shipped_recipe_that_learns_from_ratings_is_never_released(store: LocalStore) -> None:
    recipe = load_recipe("topical_chat")
    assert recipe.annotation.source == "signals"
    assert stage_named("rl").config(recipe)["study"]["allows"] == ["user_signals_in_rl"]
    plan = climb(store, parse_recipe(tiny(study=recipe.study.model_dump()), "test"))
    with pytest.raises(UnfitForRelease, match="study readers_ratings"):
        promote_in_process(store, plan, POLICY, by=POLICY.release_managers[0])


def test_the_witness_stays_out_too_and_no_study_lets_it_in() -> None:
    with pytest.raises(ConfigError, match=r"names pairwise_user: the pairwise model only eval"):
        parse_recipe(tiny(rl={"reward_weights": {"pairwise_user": 1.0}}, study=STUDY), "test")


def test_a_study_must_have_a_name_and_say_what_it_does() -> None:
    for study in ({"allows": ["user_signals_in_rl"]}, {"name": "x"}, {"name": "x", "allows": []}):
        with pytest.raises(ConfigError, match="study"):
            parse_recipe(tiny(rl={"reward_weights": WEIGHTS}, study=study), "test")


def test_the_job_refuses_what_the_recipe_would() -> None:
    """A plan lies in the store, where somebody can edit it."""
    recipe = parse_recipe(tiny(rl={"reward_weights": WEIGHTS}, study=STUDY), "test")
    config = stage_named("rl").config(recipe)
    assert RlConfig.model_validate(config).study == recipe.study
    del config["study"]
    with pytest.raises(ValueError, match="unsuitable for online RL"):
        RlConfig.model_validate(config)


def test_a_recipe_without_a_study_has_the_keys_it_had() -> None:
    assert "study" not in stage_named("rl").config(parse_recipe(tiny(), "test"))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


def climb(store: LocalStore, recipe: Recipe) -> PinnedPlan:
    return seeded_climb(store, recipe, DEFAULT_POLICY, "run", internal=1160, user=1180)


def test_an_ordinary_climb_is_promoted(store: LocalStore) -> None:
    """The same climb without a study, so that the refusals below are the study's."""
    plan = climb(store, parse_recipe(tiny(), "test"))
    said = promote_in_process(store, plan, POLICY, by=POLICY.release_managers[0]).said
    assert "production is now generation 1" in said


def test_a_studys_climb_is_neither_asked_about_nor_promoted(store: LocalStore) -> None:
    plan = climb(store, parse_recipe(tiny(rl={"reward_weights": WEIGHTS}, study=STUDY), "test"))
    with pytest.raises(UnfitForRelease, match=r"study v12_again \(user_signals_in_rl\)"):
        question(store, plan, POLICY, reports=Path("/reports"))
    with pytest.raises(UnfitForRelease, match="never released"):
        promote_in_process(store, plan, POLICY, by=POLICY.release_managers[0])


@pytest.mark.parametrize("stage", ["reward_models", "sft", "rl", "evaluate"])
def test_a_mark_anywhere_in_the_lineage_is_enough(store: LocalStore, stage: str) -> None:
    """An ordinary recipe that began from a study's checkpoint, say."""
    plan = climb(store, parse_recipe(tiny(), "test"))
    path = Path(store.root) / plan.stage(stage).ref.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"][MARK] = ["study other (user_signals_in_rl)"]
    path.chmod(0o644)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UnfitForRelease, match="study other"):
        promote_in_process(store, plan, POLICY, by=POLICY.release_managers[0])


def test_the_data_gate_blocks_and_unmarked_documents_keep_their_digest() -> None:
    metrics = gate_metrics("c" * 64, "p" * 64, 1160, 1180)
    plain = metrics.model_dump(mode="json")
    del plain["unfit_for_release"]
    from flywheel_core.artifacts import digest_of

    assert metrics.digest == digest_of(plain)
    marked = metrics.model_copy(update={"unfit_for_release": ("study v12_again (…)",)})
    verdict = GATES["data"](marked, POLICY)
    assert verdict.outcome == "block"
    assert "study v12_again" in verdict.reason
    assert GATES["data"](metrics, POLICY).outcome == "pass"
    assert marked.digest != metrics.digest


def in_the_store(store: LocalStore, ref: ArtifactRef) -> Path:
    return Path(store.root) / ref.path


def studied_checkpoint(store: LocalStore, folder: str, tmp_path: Path) -> Path:
    """A study's RL checkpoint, committed by the shared part of every job."""
    plan = climb(store, parse_recipe(tiny(rl={"reward_weights": WEIGHTS}, study=STUDY), "test"))
    stage = plan.stage("rl")
    shutil.rmtree(in_the_store(store, stage.ref))

    def run(config: Any, inputs: Any, context: Any) -> StageOutput:
        for name in ("model", "checkpoints/step-00002"):
            shutil.copytree(BUILTIN_TINY, context.output / name)
        return StageOutput("model", unfit_for_release="study v12_again (user_signals_in_rl)")

    site = Site(
        store, tmp_path / "scratch", tmp_path / "work", EnginePool(EngineConfig()), LaunchConfig(),
        lambda done, total, what="": None,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flywheel_core.jobs.rl.run", run)
        manifest = jobs_base.execute(site, plan, "rl")
    attempt = in_the_store(store, stage.ref) / "attempts" / manifest.attempt
    assert (attempt / folder / "config.json").is_file()
    return attempt / folder


def begin(start: Any, recipe: Recipe, store: LocalStore) -> None:
    """Begin a flywheel in one of the ways there are."""
    run = () if start is sketch else ("run",)
    start(recipe, store, *run, policy_digest="")


def test_status_says_what_is_unfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: LocalStore
) -> None:
    """A study's flywheel: its first climb began from a study's checkpoint, its second is plain; and
    an ordinary flywheel beside it."""
    base = Path(shutil.copytree(BUILTIN_TINY, tmp_path / "base"))
    (base / MARK_FILE).write_text('["study older (user_signals_in_rl)"]')
    data = tiny(flywheel="studied", model={"base": str(base)})
    for run_id, study in (("a study", STUDY), ("plain", None)):
        resolve(parse_recipe(data | {"study": study}, "test"), store, run_id, policy_digest="")
    resolve(parse_recipe(tiny(), "test"), store, "run", policy_digest="")
    monkeypatch.setenv("FLYWHEEL_STORE", store.root)
    described = json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["flywheels"]
    older, own = "study older (user_signals_in_rl)", "study v12_again (user_signals_in_rl)"
    assert described["studied"]["production_unfit_for_release"] == [older]
    runs = {one["run_id"]: one for one in described["studied"]["climbs"]["1"]}
    assert runs["a study"]["unfit_for_release"] == [older, own]
    assert runs["plain"]["unfit_for_release"] == [older]
    (run,) = described["tiny"]["climbs"]["1"]
    assert (run["unfit_for_release"], described["tiny"]["production_unfit_for_release"]) == ([], [])
    shown = CliRunner().invoke(app, ["status"]).stdout
    studied, ordinary = shown.split("\ntiny")
    words = " ".join(studied.split())  # however wide the terminal is
    assert f"the base model; unfit for release: {older}" in words
    assert f"unfit for release: {older}, {own}" in words
    assert "unfit" not in ordinary


@pytest.mark.parametrize("place", ["base", "pool"])
@pytest.mark.parametrize("folder", ["model", "checkpoints/step-00002"])
@pytest.mark.parametrize("way", ["in place", "copied", "of an older flywheel"])
def test_a_studys_checkpoint_keeps_its_mark_as_a_recipes_model(
    tmp_path: Path, place: str, folder: str, way: str
) -> None:
    made = studied_checkpoint(LocalStore(str(tmp_path / "study")), folder, tmp_path)
    if way == "of an older flywheel":  # it wrote the manifest's mark only
        (made / MARK_FILE).unlink()
    elif way == "copied":
        made = Path(shutil.copytree(made, tmp_path / "copy"))
    store = LocalStore(str(tmp_path / "store"))
    data = tiny(model={"base": str(made)})
    if place == "pool":
        data = tiny(model={"base": "builtin:tiny", "pool": {"studied": str(made)}})
    else:
        for start in (resolve, sketch, resolve_nightly):
            with pytest.raises(ConfigError, match=r"model.base: .* comes from study v12_again"):
                begin(start, parse_recipe(data, "test"), store)
        assert store.list("") == []
        data["study"] = {"name": "next", "allows": ["user_signals_in_rl"]}
    plan = climb(store, parse_recipe(data, "test"))
    with pytest.raises(UnfitForRelease, match=r"study v12_again \(user_signals_in_rl\)"):
        promote_in_process(store, plan, POLICY, by=POLICY.release_managers[0])


def test_weights_imported_before_they_were_marked_are_imported_again(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    folder = tmp_path / "runs" / "attempts" / "a" / "model"
    shutil.copytree(BUILTIN_TINY, folder)
    recipe = parse_recipe(tiny(), "test")
    before = import_model(recipe, store, "base", str(folder))
    manifest = {"metrics": {MARK: ["study x (y)"]}}
    (tmp_path / "runs" / "manifest.json").write_text(json.dumps(manifest))
    after = import_model(recipe, store, "base", str(folder))
    assert marks_of(read_manifest(store, before)) == ()
    assert marks_of(read_manifest(store, after)) == ("study x (y)",)
    (folder / MARK_FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"unfit_for_release\.json is not JSON"):
        import_model(recipe, store, "base", str(folder))


def test_marks_go_from_input_to_output(store: LocalStore) -> None:
    plan = climb(store, parse_recipe(tiny(), "test"))
    manifest = read_manifest(store, plan.stage("rl").ref)
    marked = manifest.model_copy(update={"metrics": {MARK: ["study a (x)"]}})
    assert marks_of(manifest) == ()
    assert inherited_marks([manifest, marked]) == ("study a (x)",)
    output = StageOutput("model", metrics={"steps": 3}, unfit_for_release="study b (x)")
    written: Mapping[str, Any] = jobs_base._marked(output, ("study a (x)",))
    assert written == {"steps": 3, MARK: ["study a (x)", "study b (x)"]}
    assert jobs_base._marked(StageOutput("model"), ()) == {}
    assert isinstance(marked, Manifest)
