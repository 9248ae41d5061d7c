"""A recipe built in code, over a checkpoint folder of a few bytes."""

import json
from pathlib import Path
from typing import Any

from flywheel_core.recipe import Recipe, parse_recipe


def make_checkpoint(folder: Path, weights: bytes = b"weights") -> Path:
    """What `import_model` takes for a model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def make_recipe(base: Path, **changes: Any) -> Recipe:
    """The smallest recipe; `changes` replaces whole sections."""
    training = {
        "learning_rate": 1e-3,
        "num_epochs": 1,
        "global_batch_size": 8,
        "max_length_tokens": 64,
    }
    reward = {name: {**training, "kind": name} for name in ("pointwise", "pairwise", "signal")}
    sampling = {"max_tokens": 8}
    recipe: dict[str, Any] = {
        "name": "sample",
        "flywheel": "test",
        "seed": 0,
        "model": {"base": str(base)},
        "traffic": {
            "source": "world",
            "num_days": 2,
            "internal_rows_per_day": 10,
            "user_rows_per_day": 10,
            "sampling": sampling,
        },
        "curation": {
            "character_share_max": 1.0,
            "prompts_per_surface": {
                "annotate": 2,
                "reject": 2,
                "rl": 2,
                "stop": 2,
                "select": 2,
                "gate": 2,
            },
        },
        "annotation": {"source": "world", "sampling": sampling},
        "reward_models": {
            "preference": reward["pointwise"],
            "pairwise": reward["pairwise"],
            "signal": reward["signal"],
        },
        "rejection_sampling": {"sampling": sampling},
        "sft": training,
        "dpo": training,
        "rl": {},
        "evaluation": {"sampling": sampling, "judge": "rules"},
        "execution": {"launch": {}, "engine": {}},
    }
    return parse_recipe(recipe | changes, "of the tests")
