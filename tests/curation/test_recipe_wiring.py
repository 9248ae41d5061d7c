"""What a recipe asks of curation reaches the stages (guard, names, linter, measures) and keys."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from curation_samples import traffic_rows

from flywheel_core.artifacts import Attempt, materialise, read_manifest
from flywheel_core.curation.config import NamesConfig
from flywheel_core.curation.folder import FolderJob, curate_folder
from flywheel_core.curation.lint_tables import LINT_EDITS, restored
from flywheel_core.curation.presidio import name_finder
from flywheel_core.curation.section import CurationSection
from flywheel_core.engines.base import Completion, Messages
from flywheel_core.engines.config import EngineConfig, SamplingConfig
from flywheel_core.engines.fake import FakeScorer, HashEmbedder
from flywheel_core.engines.pool import EnginePool
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.jobs import rejection_sampling
from flywheel_core.jobs.base import Site, execute
from flywheel_core.parents import BUILTIN_TINY
from flywheel_core.plan import PinnedPlan, resolve
from flywheel_core.recipe import RECIPE_FOLDER, Recipe, load_recipe, parse_recipe
from flywheel_core.records import (
    PROMPTS,
    SPLITS,
    TRAFFIC,
    TRAINING_ROWS,
    read_table,
    write_table,
)
from flywheel_core.store import LocalStore, Store
from flywheel_core.training.config import LaunchConfig

LINT = ["stock_phrases", "markdown", "list_carry_over", "emoji_carry_over"]


class Guarding:
    """A generator that answers as a guard: one user is unsafe."""

    def __init__(self) -> None:
        self.num_prompts = 0

    def load(self, model_dir: Path) -> str:
        return model_dir.name

    def generate(
        self, prompts: Sequence[Messages], sampling: SamplingConfig, *, progress: Any = None
    ) -> list[list[Completion]]:
        self.num_prompts += len(prompts)
        unsafe = ["Question 1-13?" in prompt[-1]["content"] for prompt in prompts]
        return [[Completion("unsafe\nS1" if bad else "safe", 2, "stop")] for bad in unsafe]


def checkpoint(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text("{}")
    shutil.copy(BUILTIN_TINY / "tokenizer.json", folder)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def recipe(folder: Path, **curation: Any) -> Recipe:
    data = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data["model"]["base"] = str(checkpoint(folder / "base"))
    data["curation"] = {
        "embedder": "hash",
        "prompts_per_surface": dict.fromkeys(SPLITS, 30),
        **curation,
    }
    return parse_recipe(data, "of the tests")


def guarded(folder: Path, weights: bytes = b"guard") -> dict[str, Any]:
    guard = checkpoint(folder / "guard", weights)
    return {"safety": {"classifier": "llama_guard", "model": str(guard), "batch_rows": 100}}


def plan_of(store: Store, made: Recipe, run_id: str) -> PinnedPlan:
    return resolve(made, store, run_id, policy_digest="policy")


def chats() -> list[dict[str, Any]]:
    """Two surfaces; the model's earlier turn has what the linter is for."""
    rows = traffic_rows(700, 1) + traffic_rows(700, 2, surface="user")
    for row in rows:
        if row["depth"] > 0:
            system, asked = row["messages"]
            earlier = {"role": "assistant", "content": "OMG! Sure 😂"}
            row["messages"] = [system, {"role": "user", "content": "Hi"}, earlier, asked]
    return rows


def test_the_guard_is_an_input_and_its_weights_are_in_the_key(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    without = plan_of(store, recipe(tmp_path), "without")
    assert "guard" not in without.stage("curate").inputs
    first = plan_of(store, recipe(tmp_path, **guarded(tmp_path)), "first")
    other = plan_of(store, recipe(tmp_path, **guarded(tmp_path, b"other")), "other")
    keys = [plan.stage("curate").ref.key for plan in (without, first, other)]
    assert len(set(keys)) == 3
    assert first.stage("traffic").ref == other.stage("traffic").ref
    assert "guard" not in first.stage("annotate").inputs
    folder = materialise(store, first.stage("curate").inputs["guard"], tmp_path / "cache")
    assert (folder / "model" / "model.safetensors").read_bytes() == b"guard"
    missing = {"classifier": "llama_guard", "model": str(tmp_path / "none")}
    with pytest.raises(ConfigError, match=r"curation\.safety\.model: .* has no config\.json"):
        plan_of(store, recipe(tmp_path, safety=missing), "missing")


def test_linting_is_in_the_keys_of_the_two_stages_that_lint(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    plans = [plan_of(store, recipe(tmp_path, lint=lint), str(lint)) for lint in ([], LINT)]
    configs = [plan.stage("rejection_sampling").config["lint"] for plan in plans]
    assert configs == [[], LINT]
    for stage, same in (("traffic", True), ("curate", False), ("rejection_sampling", False)):
        one, other = (plan.stage(stage).ref.key for plan in plans)
        assert (one == other) is same


def num_spoken_turns(rows: list[dict[str, Any]]) -> int:
    """Turns the guard is asked about, once where rows share them: all but the system's, and the
    response."""
    return sum(turn["role"] != "system" for row in rows for turn in row["messages"]) + len(rows)


def test_the_stage_asks_the_guard_and_lints_what_rl_reads(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    plan = plan_of(store, recipe(tmp_path, lint=LINT, **guarded(tmp_path)), "run")
    rows = [{**row, "model_digest": plan.parent.digest} for row in chats()]
    attempt = Attempt(store, plan.stage("traffic").ref, tmp_path / "attempts")
    write_table(attempt.folder / "traffic.parquet", rows, TRAFFIC)
    attempt.commit(kind="traffic", stage_version=1)
    guard = Guarding()
    engines = EnginePool(EngineConfig(), generator=guard, embedder=HashEmbedder())
    launch = LaunchConfig(mode="inline", num_workers=1)
    work = tmp_path / "scratch" / "work"
    site = Site(store, tmp_path / "scratch", work, engines, launch, lambda *_: None)
    manifest = execute(site, plan, "curate")
    assert 2 * len(rows) <= guard.num_prompts <= num_spoken_turns(rows)
    unsafe = sum("Question 1-13?" in row["messages"][-1]["content"] for row in rows)
    assert manifest.metrics["rejected"] == {"safety_unsafe": unsafe}
    assert manifest.metrics["safety"]["rows_by_category"] == {"S1": unsafe}
    lint = manifest.metrics["lint"]
    assert lint["rows"] == 60
    assert 0 < lint["rows_changed"] == lint["turns_before"]["emoji_carry_over"]
    assert set(lint["turns_after"].values()) == {0}
    folder = materialise(store, plan.stage("curate").ref, tmp_path / "cache")
    prompts = read_table(folder / "prompts.parquet", PROMPTS).to_pylist()
    edits = read_table(folder / "lint.parquet", LINT_EDITS).to_pylist()
    by_id = {row["row_id"]: row for row in rows}
    for prompt, before in zip(prompts, restored(prompts, edits), strict=True):
        assert before["messages"] == by_id[prompt["prompt_id"]]["messages"]
        clean = "😂" not in json.dumps(prompt["messages"], ensure_ascii=False)
        assert clean or prompt["split"] != "rl"
    assert read_manifest(store, plan.stage("curate").ref).inputs["guard"]


class Chatty:
    """A generator whose answers hold what the linter is for."""

    def load(self, model_dir: Path) -> str:
        return model_dir.name

    def generate(
        self, prompts: Sequence[Messages], sampling: SamplingConfig, *, progress: Any = None
    ) -> list[list[Completion]]:
        one = [Completion(f"LOL. Take {n} **tea", 4, "stop") for n in range(sampling.num_samples)]
        return [one for _ in prompts]


@pytest.mark.parametrize("lint", [[], LINT])
def test_rejection_sampling_lints_its_rows_and_keeps_the_edits(
    tmp_path: Path, lint: list[str]
) -> None:
    prompts = [
        {**row, "prompt_id": row["row_id"], "split": "reject", "source_key": "k", "reason": "x"}
        for row in chats()[:40]
    ]
    write_table(tmp_path / "curate" / "prompts.parquet", prompts, PROMPTS)
    rewards = tmp_path / "rewards"
    names = ("pointwise_internal", "signal_thumb_up")
    for model in (*(rewards / name for name in names), tmp_path / "production" / "model"):
        checkpoint(model)
    standards = {name: {"mean": 0.0, "sd": 1.0} for name in names}
    (rewards / "standards.json").write_text(json.dumps(standards))
    (tmp_path / "out").mkdir()
    engines = EnginePool(
        EngineConfig(), generator=Chatty(), scorer=FakeScorer(lambda name, row: len(row[1]))
    )
    inputs = {
        "curate": tmp_path / "curate",
        "reward_models": rewards,
        "production": tmp_path / "production",
        "base": tmp_path / "base",
    }
    section = recipe(tmp_path).rejection_sampling.model_dump(mode="json")
    context: Any = SimpleNamespace(
        output=tmp_path / "out", engines=SimpleNamespace(generator=engines.generator,
        scorer=engines.scorer, progress=None), seed=1, progress=lambda *_: None,
    )  # fmt: skip
    config = rejection_sampling.Config.model_validate({"rejection_sampling": section, "lint": lint})
    output = rejection_sampling.run(config, inputs, context)
    rows = read_table(tmp_path / "out" / "training.parquet", TRAINING_ROWS).to_pylist()
    assert {row["source"] for row in rows} == {"rejection_internal", "base"}
    if not lint:
        assert "lint" not in output.metrics
        assert all(row["response"].startswith("LOL. ") for row in rows)
        return
    assert output.metrics["lint"]["rows"] == len(rows)
    assert output.metrics["lint"]["turns_before"]["stock_phrases"] >= len(rows)
    assert {row["response"][-9:] for row in rows} == {"0 **tea**"}
    edits = read_table(tmp_path / "out" / "lint.parquet", LINT_EDITS).to_pylist()
    assert {row["response"] for row in restored(rows, edits)} == {"LOL. Take 0 **tea"}


def curate_here(
    folder: Path, made: Recipe, guard: Guarding | None = None, measures: Path | None = None
) -> dict[str, Any]:
    write_table(folder / "days" / "2026-01-05.parquet", chats(), TRAFFIC)
    engines = EnginePool(EngineConfig(), generator=guard, embedder=HashEmbedder())
    job = FolderJob(
        folder / "days",
        folder / "out",
        made,
        "production",
        measures=measures,
        engines=engines,
    )
    return curate_folder(job, lambda *_: None)


def test_the_command_asks_the_guard_and_knows_its_work_by_the_weights(tmp_path: Path) -> None:
    guard = Guarding()
    report = curate_here(tmp_path, recipe(tmp_path, lint=LINT, **guarded(tmp_path)), guard)
    assert 2 * len(chats()) <= guard.num_prompts <= num_spoken_turns(chats())
    assert report["rejected"]["safety_unsafe"] > 0
    assert report["phases"]["read"] == 1_400
    assert report["lint"]["rows"] == 60
    assert (tmp_path / "out" / "lint.parquet").exists()
    with pytest.raises(ConfigError, match="made from other inputs or under another"):
        curate_here(tmp_path, recipe(tmp_path, lint=LINT, **guarded(tmp_path, b"new")), guard)


def test_measures_are_used_and_are_part_of_what_the_folder_is_known_by(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    measures = tmp_path / "measures.parquet"
    ids = [row["row_id"] for row in chats()]
    pq.write_table(pa.table({"row_id": ids, "scores": rng.random((1_400, 4)).tolist()}), measures)
    made = recipe(tmp_path)
    report = curate_here(tmp_path, made, measures=measures)
    for told in report["constraints"].values():
        assert told["balanced"]["difficulty"] == "ranked and kept in thirds"
    with pytest.raises(ConfigError, match="made from other inputs or under another"):
        curate_here(tmp_path, made)
    with pytest.raises(InputDataError, match=r"measures: .*no such file"):
        curate_here(tmp_path, made, measures=tmp_path / "none")


def test_names_without_presidio_are_refused_before_the_first_row(tmp_path: Path) -> None:
    assert name_finder(NamesConfig()) is None
    made = recipe(tmp_path, names={"finder": "presidio"})
    with pytest.raises(ConfigError, match=r"finder 'presidio': \w+ is not installed"):
        curate_here(tmp_path, made)
    assert not (tmp_path / "out" / "work" / "phase_one").exists()


def test_the_laptop_recipes_ask_no_model_and_the_70b_one_does() -> None:
    defaults = CurationSection(prompts_per_surface=dict.fromkeys(SPLITS, 10))
    for name in ("tiny_cpu", "smoke", "topical_chat"):
        section = load_recipe(name).curation
        assert section.row_rules == defaults.row_rules
        assert (section.safety, section.lint) == (defaults.safety, ())
    large = load_recipe("llama31_70b")
    assert large.execution.executor.kind == "ray_data"
    assert large.curation.safety.classifier == "llama_guard"
    assert large.curation.language.source == "identify"
    assert large.curation.lint == tuple(LINT)
