"""Plans and committed artifacts, made by hand, so that flows run in seconds."""

import json
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml

from flywheel_core.artifacts import (
    ArtifactRef,
    Attempt,
    InputRecord,
    digest_of,
    folder_model_digest,
    read_manifest,
)
from flywheel_core.ingest.ingest import ingest
from flywheel_core.parents import Parent
from flywheel_core.plan import PinnedPlan, PlannedStage, plan_path, resolve
from flywheel_core.recipe import RECIPE_FOLDER, Recipe, load_recipe
from flywheel_core.release.metrics import (
    ArtifactFeatures,
    BenchmarkScore,
    DataEvidence,
    GateMetrics,
    SafetyCounts,
    WinRateCell,
)
from flywheel_core.release.policy import load_policy, policy_digest
from flywheel_core.sections import StageResources
from flywheel_core.store import Store

JOBS = Path(__file__).parent / "ray_stages"
FEATURES = {"length_tokens": 26.0, "list_share": 0.1, "emoji_count": 1.2, "templated_share": 0.05}


def write_recipe(folder: Path, flywheel: str, **execution: Any) -> Recipe:
    """The tiny recipe under another flywheel's name."""
    data = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data |= {"name": flywheel, "flywheel": flywheel}
    data["execution"] |= execution
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{flywheel}.yaml").write_text(yaml.safe_dump(data))
    return load_recipe(str(folder / f"{flywheel}.yaml"))


def write_ingested_recipe(folder: Path, flywheel: str, num_days: int) -> Recipe:
    """The recipe that reads ingested days, under another flywheel's name."""
    data = yaml.safe_load((RECIPE_FOLDER / "topical_chat.yaml").read_text())
    data |= {"name": flywheel, "flywheel": flywheel}
    data["traffic"]["num_days"] = num_days
    (folder / f"{flywheel}.yaml").write_text(yaml.safe_dump(data))
    return load_recipe(str(folder / f"{flywheel}.yaml"))


def ingest_day(store: Store, flywheel: str, day: str, text: str = "Hello!") -> None:
    """One row of traffic for a day, taken in as `flywheel ingest` takes it."""
    row = {
        "row_id": f"{day}-1",
        "day": day,
        "messages": [
            {"role": "system", "content": "You are Mina."},
            {"role": "user", "content": text},
        ],
        "surface": "user",
        "conversation_id": day,
        "turn_index": 1,
        "depth": 0,
        "response": "Hi there.",
        "language": "en",
        "model_digest": "d" * 64,
    }
    file = Path(mkdtemp()) / "day.jsonl"
    file.write_text(json.dumps(row) + "\n")
    ingest(file, "contract", store, flywheel)


def two_stage_plan(
    store: Store, recipe: Recipe, run_id: str, first: dict[str, Any], second: dict[str, Any]
) -> PinnedPlan:
    """Pin a plan of two test stages; keys differ by run."""
    timeout_s = first.pop("timeout_s", 120)
    stages = tuple(
        PlannedStage(
            name=name,
            version=1,
            module=f"{name}_stage",
            ref=ArtifactRef(
                flywheel=recipe.flywheel,
                generation=1,
                stage=name,
                key=digest_of([run_id, name])[:16],
            ),
            inputs={},
            config=config,
            seed=0,
            resources=StageResources(timeout_s=timeout_s),
            summary="sleeps and talks",
        )
        for name, config in (("first", first), ("second", second))
    )
    base = ArtifactRef(flywheel=recipe.flywheel, generation=0, stage="base_model", key="none")
    plan = PinnedPlan(
        run_id=run_id,
        flywheel=recipe.flywheel,
        generation=1,
        recipe=recipe.model_dump(mode="json"),
        parent=Parent(ref=base, digest="none", pointer_number=1),
        policy_digest="none",
        erasure_digest="none",
        days=(),
        pinned_days={},
        stages=stages,
    )
    store.put_if_absent(plan_path(recipe.flywheel, run_id), plan.model_dump_json().encode())
    return plan


def commit_stage(store: Store, plan: PinnedPlan, name: str) -> None:
    """Commit a stage of a plan by hand, so that its task needs no job."""
    attempt = Attempt(store, plan.stage(name).ref, Path(mkdtemp()))
    (attempt.folder / "out.txt").write_text(name)
    attempt.commit(kind="test", stage_version=1)


def seeded_climb(
    store: Store, recipe: Recipe, policy: Path, run_id: str, *, internal: int, user: int
) -> PinnedPlan:
    """A resolved climb whose every stage is committed; wins are of 2,000 prompts."""
    plan = resolve(recipe, store, run_id, policy_digest=policy_digest(load_policy(policy)))
    for stage in plan.stages:
        attempt = Attempt(store, stage.ref, Path(mkdtemp()))
        if stage.name == "evaluate":
            _write_evaluation(attempt.folder, plan, internal, user)
        else:
            (attempt.folder / "out.txt").write_text(stage.name)
        attempt.commit(
            kind=stage.name,
            stage_version=stage.version,
            metrics={"win_rates": {}, "true_effect": None} if stage.name == "evaluate" else None,
            inputs={
                name: InputRecord(ref=ref, digest=read_manifest(store, ref).digest)
                for name, ref in stage.inputs.items()
            },
        )
    return plan


def _write_evaluation(folder: Path, plan: PinnedPlan, internal: int, user: int) -> None:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"candidate_of": plan.run_id}))
    metrics = gate_metrics(folder_model_digest(model), plan.parent.digest, internal, user)
    (folder / "metrics.json").write_text(metrics.model_dump_json())
    details = {
        "chosen": "rl/step-00004",
        "checkpoints": [],
        "features_by_stage": {name: FEATURES for name in ("production", "sft", "dpo", "rl")},
        "judged": {},
        "features": {"production": FEATURES, "candidate": FEATURES},
        "true_effect": None,
        "side_by_side": [],
    }
    (folder / "details.json").write_text(json.dumps(details))


def gate_metrics(candidate: str, parent: str, internal: int, user: int) -> GateMetrics:
    """Evidence under which every gate passes, where the wins allow it."""
    return GateMetrics(
        candidate=candidate,
        parent=parent,
        evidence_phase="post_launch",
        win_rates=(
            WinRateCell.from_counts("pointwise_internal", "internal", internal, 0, 2000 - internal),
            WinRateCell.from_counts("pointwise_user", "user", user, 0, 2000 - user),
        ),
        safety=(
            SafetyCounts(
                candidate_violations=20,
                num_candidate_responses=3000,
                production_violations=24,
                num_production_responses=3000,
            ),
        ),
        benchmarks=(BenchmarkScore(name="tiny", candidate=0.84, production=0.85, num_items=541),),
        artifacts=ArtifactFeatures(num_responses=1000, candidate=FEATURES, production=FEATURES),
        data=DataEvidence(
            num_train_rows=4000,
            num_eval_prompts=2000,
            train_eval_overlap_count=0,
            prompt_set_overlap_count=0,
            near_policy_share=0.92,
        ),
    )
