"""The pairwise model's score: both orders averaged, so which response is named first is no matter
(§2.3.1)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.durable import DurableEngines
from flywheel_core.engines.fake import FakeScorer
from flywheel_core.engines.pool import EnginePool
from flywheel_core.errors import InputDataError
from flywheel_core.jobs.answers import score, score_or_nan, score_pairs, score_pairs_or_nan

MODEL = Path("pairwise_user")
PROMPTS: Any = [[{"role": "user", "content": f"question {number}"}] for number in range(40)]
FIRST = [f"answer {number * 7 % 11}" for number in range(40)]
SECOND = [f"reply {'so ' * (number % 5)}" for number in range(40)]


def engines(function: Any, tmp_path: Path) -> DurableEngines:
    pool = EnginePool(EngineConfig(), scorer=FakeScorer(function))
    return DurableEngines(pool, tmp_path, lambda done, total, what="": None)


def partial_to_the_first(name: str, row: Any) -> float:
    """A model that likes the first position, and long answers in it."""
    return 3.0 + 0.1 * len(row[1]) - 0.4 * len(row[2]) + int(row[0][-1]["content"][9:]) % 7


def test_swapping_the_responses_changes_the_sign_and_nothing_else(tmp_path: Path) -> None:
    pool = engines(partial_to_the_first, tmp_path)
    forward = score_pairs(pool, MODEL, PROMPTS, FIRST, SECOND)
    assert np.abs(forward).max() > 0.5
    np.testing.assert_array_equal(forward, -score_pairs(pool, MODEL, PROMPTS, SECOND, FIRST))
    assert not score_pairs(pool, MODEL, PROMPTS, FIRST, FIRST).any()


def test_a_score_that_is_missing_in_one_order_is_missing(tmp_path: Path) -> None:
    def broken(name: str, row: Any) -> float:
        return float("nan") if row[1] == FIRST[3] else 1.0

    pool = engines(broken, tmp_path)
    found = score_pairs_or_nan(pool, MODEL, PROMPTS, FIRST, SECOND)
    missing = np.array([text == FIRST[3] for text in FIRST])
    np.testing.assert_array_equal(np.isnan(found), missing)
    for ask in (
        lambda: score_pairs(pool, MODEL, PROMPTS, FIRST, SECOND),
        lambda: score(pool, MODEL, PROMPTS, FIRST),
    ):
        with pytest.raises(InputDataError, match=r"pairwise_user gave no finite score for \d+ of"):
            ask()
    assert np.isnan(score_or_nan(pool, MODEL, PROMPTS, FIRST)).sum() == missing.sum()
