"""User signals stay out of online RL (§3.5.5); a study that puts them in makes nothing that can be
released, by whatever way its model comes to a promotion."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel_core.artifacts import Manifest
from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.errors import ConfigError
from flywheel_core.jobs import base as jobs_base
from flywheel_core.jobs.base import StageOutput
from flywheel_core.jobs.rl import Config as RlConfig
from flywheel_core.plan import PinnedPlan
from flywheel_core.recipe import RECIPE_FOLDER, Recipe, parse_recipe
from flywheel_core.release.fitness import MARK, UnfitForRelease, inherited_marks, marks_of
from flywheel_core.release.gates import GATES
from flywheel_core.release.policy import load_policy
from flywheel_core.release.promotion import promote_in_process, question
from flywheel_core.stages import stage_named
from flywheel_core.store import LocalStore
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


def test_marks_go_from_input_to_output(store: LocalStore) -> None:
    plan = climb(store, parse_recipe(tiny(), "test"))
    from flywheel_core.artifacts import read_manifest

    manifest = read_manifest(store, plan.stage("rl").ref)
    marked = manifest.model_copy(update={"metrics": {MARK: ["study a (x)"]}})
    assert marks_of(manifest) == ()
    assert inherited_marks([manifest, marked]) == ("study a (x)",)
    output = StageOutput("model", metrics={"steps": 3}, unfit_for_release="study b (x)")
    written: Mapping[str, Any] = jobs_base._marked(output, ("study a (x)",))
    assert written == {"steps": 3, MARK: ["study a (x)", "study b (x)"]}
    assert jobs_base._marked(StageOutput("model"), ()) == {}
    assert isinstance(marked, Manifest)
