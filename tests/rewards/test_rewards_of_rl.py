"""Which reward models online RL is handed: the pointwise preference models, and a signal only where
a study names it (§2.3.1, §3.5.5)."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.durable import DurableEngines
from flywheel_core.engines.fake import FakeGenerator
from flywheel_core.engines.pool import EnginePool
from flywheel_core.jobs import rl
from flywheel_core.recipe import RECIPE_FOLDER, parse_recipe
from flywheel_core.records import PROMPTS, write_table
from flywheel_core.stages import stage_named

MODELS = "pairwise_user", "pointwise_internal", "pointwise_user", "signal_love", "signal_thumb_up"
POINTWISE = {"pointwise_internal": "internal", "pointwise_user": "user"}


class Launched(Exception):
    """The training was asked for."""


def handed_to_rl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: dict[str, Any]
) -> dict[str, Any]:
    """Run the job up to its training, and return what that was given."""
    data: dict[str, Any] = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    for section, changed in changes.items():
        data[section] = data.get(section, {}) | changed
    given: dict[str, Any] = {}

    def fake(config: Any, **arguments: Any) -> Any:
        given.update(arguments)
        raise Launched

    monkeypatch.setattr(rl, "run_grpo", fake)
    monkeypatch.setattr(rl, "require_same_tokenizer", lambda *_: None)
    for name in MODELS:
        (tmp_path / "reward_models" / name).mkdir(parents=True)
    standards = {
        name: {"mean": 0.0, "sd": 1.0} for name in MODELS if not name.startswith("pairwise_")
    }
    (tmp_path / "reward_models" / "standards.json").write_text(json.dumps(standards))
    rows = [
        {field.name: None for field in PROMPTS}
        | {
            "prompt_id": f"p-{split}", "split": split, "source_key": "k", "reason": "x",
            "messages": [{"role": "user", "content": split}], "surface": "user",
            "conversation_id": split, "turn_index": 1, "depth": 0, "day": "2026-01-05",
            "response": "said",
        }
        for split in ("rl", "stop")
    ]  # fmt: skip
    write_table(tmp_path / "curate" / "prompts.parquet", rows, PROMPTS)
    pool = EnginePool(EngineConfig(), generator=FakeGenerator())
    (tmp_path / "work").mkdir()
    context: Any = SimpleNamespace(
        engines=DurableEngines(pool, tmp_path / "shards", lambda done, total, what="": None),
        launch=SimpleNamespace(mode="inline"),
        work=tmp_path / "work",
        seed=1,
    )
    inputs = {name: tmp_path / name for name in ("dpo", "curate", "reward_models", "production")}
    config = stage_named("rl").config(parse_recipe(data, "test"))
    with pytest.raises(Launched):
        rl.run(rl.Config.model_validate(config), inputs, context)
    return given


def test_rl_is_guided_by_the_pointwise_preference_models_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = handed_to_rl(tmp_path, monkeypatch)
    folder = tmp_path / "reward_models"
    assert given["reward_models"] == {name: folder / name for name in POINTWISE}
    assert set(given["standards"]) == set(POINTWISE)
    assert given["surface_of"] == POINTWISE


def test_a_study_adds_the_signal_that_it_names_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"pointwise_internal": 1.0, "pointwise_user": 1.0, "signal_love": 0.5}
    study = {"name": "v12_again", "allows": ["user_signals_in_rl"]}
    given = handed_to_rl(tmp_path, monkeypatch, rl={"reward_weights": weights}, study=study)
    assert set(given["reward_models"]) == {*POINTWISE, "signal_love"}
    assert given["surface_of"] == POINTWISE | {"signal_love": "user"}
