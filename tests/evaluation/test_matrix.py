"""The win-rate matrix: every preference model on every surface, candidate against production."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.durable import DurableEngines
from flywheel_core.engines.fake import FakeScorer
from flywheel_core.engines.pool import EnginePool
from flywheel_core.jobs import evaluate
from flywheel_core.jobs.answers import Prompts

NUM_PROMPTS = 10


def longer_is_better(name: str, row: Any) -> float:
    """A pointwise model likes long answers, a pairwise one the longer of two."""
    return float(len(row[1]) - (len(row[2]) if name.startswith("pairwise_") else 0))


def test_a_win_is_the_candidates_by_every_model_on_every_surface(tmp_path: Path) -> None:
    """On internal prompts the candidate says more nine times of ten, on user prompts seven."""
    rows = [
        {
            "surface": surface,
            "messages": [{"role": "user", "content": f"{surface} question {number}"}],
            "user_id": None,
        }
        for surface in ("internal", "user")
        for number in range(NUM_PROMPTS)
    ]
    long, short = "a long answer", "short"
    wins = [number < 9 for number in range(NUM_PROMPTS)]
    wins += [number < 7 for number in range(NUM_PROMPTS)]
    sides: Any = {
        "candidate": SimpleNamespace(responses=[long if won else short for won in wins]),
        "production": SimpleNamespace(responses=[short if won else long for won in wins]),
    }
    names = ["pairwise_user", "pointwise_internal", "pointwise_user"]
    for name in [*names, "signal_thumb_up"]:
        (tmp_path / "rewards" / name).mkdir(parents=True)
    pool = EnginePool(EngineConfig(), scorer=FakeScorer(longer_is_better))
    context: Any = SimpleNamespace(
        engines=DurableEngines(pool, tmp_path / "shards", lambda done, total, what="": None), seed=1
    )
    cells = evaluate._matrix(Prompts(rows), sides, tmp_path / "rewards", context)
    found = {(cell.reward_model, cell.prompt_set): (cell.wins, cell.losses) for cell in cells}
    assert found == {
        (name, surface): counts
        for name in names
        for surface, counts in (("internal", (9, 1)), ("user", (7, 3)))
    }
