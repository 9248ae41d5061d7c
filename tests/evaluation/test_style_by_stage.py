"""Style by training stage, as selection measures it and the report shows it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.durable import DurableEngines
from flywheel_core.engines.fake import FakeGenerator, FakeScorer
from flywheel_core.engines.pool import EnginePool
from flywheel_core.jobs.evaluate import _select
from flywheel_core.recipe import load_recipe
from flywheel_core.records import PROMPTS, write_table
from flywheel_core.report.build import FEATURE_LABELS, _feature_shifts

EARLIER = "I see. Tell me more."
"""What the character said before; half of what it says now says it again."""
REPLIES = ("Tell me more.", "A gull steals my left sock every single Tuesday!")


def prompt(number: int, surface: str) -> dict[str, Any]:
    said = [
        ("system", "Pim."),
        ("user", "Hi."),
        ("assistant", EARLIER),
        ("user", f"{surface} {number}."),
    ]
    return {
        "prompt_id": f"{surface}-{number}",
        "split": "select",
        "messages": [{"role": role, "content": text} for role, text in said],
        "surface": surface,
        "conversation_id": f"{surface}-{number}",
        "turn_index": 3,
        "depth": 1,
        "response": "Hm.",
        "source_key": "k",
        "day": "2026-03-01",
        "reason": "held_out",
    }


class Counting(FakeGenerator):
    """Counts the two replies and their tokens as they are given, by model."""

    def __init__(self) -> None:
        super().__init__(REPLIES)
        self.tokens: dict[str, list[int]] = {}
        self.serving = ""

    def load(self, model_dir: Path) -> str:
        self.serving = str(model_dir)
        return super().load(Path(model_dir.parent.name + model_dir.name))

    def generate(self, prompts: Any, sampling: Any, *, progress: Any = None) -> Any:
        found = super().generate(prompts, sampling, progress=progress)
        self.tokens.setdefault(self.serving, []).extend(one[0].num_tokens for one in found)
        return found


def test_length_and_repetition_are_measured_at_every_stage(tmp_path: Path) -> None:
    names = ("curate", "production", "reward_models", "sft", "dpo", "rl")
    inputs = {name: tmp_path / name for name in names}
    rows = [prompt(n, surface) for surface in ("user", "internal") for n in range(20)]
    write_table(inputs["curate"] / "prompts.parquet", rows, PROMPTS)
    for name in ("pointwise_user", "pointwise_internal"):
        (inputs["reward_models"] / name).mkdir(parents=True)
    generator = Counting()
    pool = EnginePool(EngineConfig(device="cpu"), generator=generator, scorer=FakeScorer())
    context: Any = SimpleNamespace(
        engines=DurableEngines(pool, tmp_path / "kept", lambda *_: None),
        seed=3,
        progress=lambda *_: None,
    )
    evaluation = load_recipe("smoke").evaluation
    features = _select(evaluation, inputs, context)[2].features
    assert [*features] == ["production", "sft", "dpo", "rl"]
    for stage, means in features.items():
        tokens = generator.tokens[str(inputs[stage] / "model")]
        assert len(tokens) == 40
        assert means["length_tokens"] == pytest.approx(sum(tokens) / 40)
        short = len(REPLIES[0].split())
        assert 0 < means["repeats_history_share"] == tokens.count(short) / 40 < 1
    assert len({means["length_tokens"] for means in features.values()}) > 1
    assert [shift.feature for shift in _feature_shifts(features)] == [*FEATURE_LABELS]
