"""A pairwise model that was really trained (Eq. 2–3), scored by vLLM: each order alone leans to a
side, both averaged (§2.3.1) do not care which response is named first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.durable import DurableEngines
from flywheel_core.engines.pool import EnginePool
from flywheel_core.jobs.answers import score_pairs
from flywheel_core.training.rewards import RewardModelSpec, run_reward_models
from tests.engines.tiny import TinyModels, messages
from tests.training.toy import INLINE, reward_config, write

pytestmark = [pytest.mark.heavy]

KIND = ["aye, the sea", "tell me a story", "how are you today"]


def rows(numbers: range) -> list[dict[str, Any]]:
    """The response that says matey is preferred, as often the first as the second."""
    found = []
    for n in numbers:
        plain, liked = KIND[n % 3], f"{KIND[n // 3 % 3]} matey"
        both = (liked, plain) if n % 2 else (plain, liked)
        pair = {"response_0": both[0], "response_1": both[1], "target": float(n % 2)}
        found.append({"messages": messages(n), **pair})
    return found


@pytest.fixture
def trained(tiny: TinyModels, tmp_path: Path) -> Path:
    pairs = write(tmp_path / "pairs.parquet", rows(range(48)))
    config = reward_config("pairwise", learning_rate=3e-3, num_epochs=2)
    result = run_reward_models(
        [RewardModelSpec("pairwise_user", config, pairs, pairs)],
        model_dir=tiny.policy,
        output_dir=tmp_path / "models",
        launch_config=INLINE,
    )
    return result.model_dirs["pairwise_user"]


def test_a_trained_pairwise_models_score_is_antisymmetric(
    scorer: Any, engine_config: EngineConfig, trained: Path, tmp_path: Path
) -> None:
    pool = EnginePool(engine_config, scorer=scorer)
    engines = DurableEngines(pool, tmp_path / "answers", lambda done, total, what="": None)
    unseen = rows(range(100, 140))
    prompts = [row["messages"] for row in unseen]
    first, second = ([row[name] for row in unseen] for name in ("response_0", "response_1"))
    forward = score_pairs(engines, trained, prompts, first, second)
    backward = score_pairs(engines, trained, prompts, second, first)
    one_order = scorer.score(trained, list(zip(prompts, first, second, strict=True)))
    other_order = scorer.score(trained, list(zip(prompts, second, first, strict=True)))
    preferred = np.array([row["target"] for row in unseen]) > 0.5
    assert ((forward > 0) == preferred).mean() > 0.9
    rounding = 1e-6 * np.abs(forward).max()
    assert np.abs(one_order + other_order).max() > 1000 * rounding
    np.testing.assert_allclose(forward, (one_order - other_order) / 2, rtol=0, atol=rounding)
    np.testing.assert_allclose(forward, -backward, rtol=0, atol=rounding)
    same = score_pairs(engines, trained, prompts, first, first)
    np.testing.assert_allclose(same, 0, rtol=0, atol=rounding)
