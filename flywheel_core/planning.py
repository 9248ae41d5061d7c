"""`flywheel plan`: what a climb would run and what it needs, before anything is submitted."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from flywheel_core.artifacts import is_done, read_manifest
from flywheel_core.deployment import Deployment
from flywheel_core.errors import ArtifactMissing, ConfigError
from flywheel_core.parents import BUILTIN_TINY
from flywheel_core.plan import sketch
from flywheel_core.recipe import Recipe, load_recipe
from flywheel_core.release.policy import policy_digest
from flywheel_core.sizing import (
    LlamaShape,
    generation_gpu_hours,
    serving_gib,
    training_gpu_hours,
    training_rank,
)
from flywheel_core.stages import CLIMB, TRAINING_STAGES
from flywheel_core.store import Store


def describe_plan(recipe_name: str, deployment: Deployment) -> dict[str, Any]:
    """Stages with inputs, resources and sizes; with keys where the base model is at hand."""
    recipe = load_recipe(recipe_name)
    store = deployment.store()
    keys = _keys(recipe, store, deployment)
    shape = _shape(recipe)
    stages = [
        {
            "name": stage.name,
            "summary": stage.summary,
            "inputs": list(stage.inputs),
            "module": stage.module,
            "resources": recipe.execution.resources.get(
                stage.name, recipe.execution.default_resources
            ).model_dump(),
            **(keys.get(stage.name, {})),
            **(_size(stage.name, recipe, shape) if shape else {}),
        }
        for stage in CLIMB
    ]
    return {
        "recipe": recipe.name,
        "flywheel": recipe.flywheel,
        "base": recipe.model.base,
        "pool": dict(recipe.model.pool),
        "num_parameters": shape.num_parameters if shape else None,
        "stages": stages,
    }


def _keys(recipe: Recipe, store: Store, deployment: Deployment) -> dict[str, dict[str, Any]]:
    """Keys and what is cached, writing nothing; empty where the checkpoint or the traffic is not
    here."""
    try:
        plan = sketch(recipe, store, policy_digest=policy_digest(deployment.policy()))
    except (ArtifactMissing, ConfigError):
        return {}
    return {
        stage.name: {"key": stage.ref.key, "cached": is_done(store, stage.ref)}
        | (
            {"last_s": read_manifest(store, stage.ref).timings_s.get("total")}
            if is_done(store, stage.ref)
            else {}
        )
        for stage in plan.stages
    }


def gpu_hours_by_stage(recipe: Recipe) -> dict[str, float]:
    """GPU-hours of the stages for which the recipe gives the numbers."""
    shape = _shape(recipe)
    sizes = {stage.name: _size(stage.name, recipe, shape) for stage in CLIMB} if shape else {}
    return {name: size["gpu_hours"] for name, size in sizes.items() if "gpu_hours" in size}


def _shape(recipe: Recipe) -> LlamaShape | None:
    """The policy's shape: what the recipe states, or the shipped model's `config.json`."""
    if recipe.model.shape is not None:
        return recipe.model.shape
    if recipe.model.base == "builtin:tiny":
        config = BUILTIN_TINY / "config.json"
        if config.is_file():
            return LlamaShape.model_validate(json.loads(config.read_text()))
    return None


def _size(stage: str, recipe: Recipe, shape: LlamaShape) -> dict[str, Any]:
    """Memory and GPU-hours of one stage, as far as arithmetic goes."""
    execution = recipe.execution
    costs = recipe.execution.costs
    served = serving_gib(
        shape,
        max_model_len=execution.engine.max_model_len,
        max_num_seqs=execution.engine.max_num_seqs,
    )
    size: dict[str, Any] = {"engine_gib": round(served, 3)}
    if stage in TRAINING_STAGES:
        rank = training_rank(
            shape,
            num_ranks=execution.launch.num_workers,
            tokens_per_rank=execution.engine.max_model_len,
            precision=execution.launch.precision,
            checkpointing=execution.launch.device == "cuda",
            num_reference_models=TRAINING_STAGES[stage],
        )
        size["rank_gib"] = round(rank.total_gib, 3)
    tokens = costs.tokens_by_stage.get(stage)
    if tokens is not None and costs.peak_flops is not None:
        trains = stage in TRAINING_STAGES
        estimate = training_gpu_hours if trains else generation_gpu_hours
        utilisation = costs.training_utilisation if trains else costs.generation_utilisation
        hours = estimate(
            shape, num_tokens=tokens, peak_flops=costs.peak_flops, utilisation=utilisation
        )
        size["gpu_hours"] = round(hours, 1)
    return size


def show_plan(described: dict[str, Any], console: Console) -> None:
    """The plan as a table."""
    parameters = described["num_parameters"]
    console.print(
        f"[bold]{described['recipe']}[/] on flywheel [bold]{described['flywheel']}[/], base "
        f"{described['base']}" + (f" ({parameters:,} parameters)" if parameters else "")
    )
    table = Table("stage", "reads", "engine GiB", "rank GiB", "GPU-h", "timeout", "key", box=None)
    for stage in described["stages"]:
        table.add_row(
            stage["name"],
            ", ".join(stage["inputs"]),
            *(str(stage.get(column, "")) for column in ("engine_gib", "rank_gib", "gpu_hours")),
            f"{stage['resources']['timeout_s']} s",
            stage.get("key", "") + (" cached" if stage.get("cached") else ""),
        )
    console.print(table)
