"""The size of a step is a control: RL stops when it beats production by enough (§2.1, §3.1.2)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flywheel_core.engines.base import ScoreRow
from flywheel_core.engines.config import SamplingConfig
from flywheel_core.errors import InputDataError
from flywheel_core.evaluation.comparison import tally
from flywheel_core.records import read_table
from flywheel_core.sampling.rejection import Standard
from flywheel_core.training.grpo_engines import RlEngines, ScoresByModel
from flywheel_core.training.grpo_ranks import on_main


@dataclass(frozen=True)
class StopPrompts:
    """Prompts with production's responses; `surface` says which reward model judges a row."""

    messages: list[list[dict[str, str]]]
    production: list[str]
    surfaces: list[str | None]

    def rows(self, responses: list[str]) -> list[ScoreRow]:
        return list(zip(self.messages, responses, strict=True))


def read_stop_prompts(path: Path) -> StopPrompts:
    """Parquet with `prompt_id`, `messages`, `production_response`, and perhaps `surface`."""
    rows = _rows(path, ("prompt_id", "messages", "production_response"))
    return StopPrompts(
        messages=[row["messages"] for row in rows],
        production=[row["production_response"] for row in rows],
        surfaces=[row.get("surface") for row in rows],
    )


def read_rl_prompts(path: Path) -> list[list[dict[str, str]]]:
    """Parquet with `prompt_id` and `messages`."""
    return [row["messages"] for row in _rows(path, ("prompt_id", "messages"))]


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    table = read_table(path)
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise InputDataError(
            f"{path}: no column {', '.join(missing)}; it must have {', '.join(columns)}"
        )
    rows: list[dict[str, Any]] = table.to_pylist()
    if not rows:
        raise InputDataError(f"{path}: no prompts; look at the curate stage's row counts")
    return rows


class StopRule:
    """Win rates of the policy in training against production, per gated reward model.

    `surface_of` names the prompts each model is gated on (internal model × internal prompts, user
    model × user prompts); a model without an entry judges every prompt. Ties count one half.
    """

    def __init__(
        self,
        engines: RlEngines,
        models: Mapping[str, Path],
        prompts: StopPrompts,
        sampling: SamplingConfig,
        surface_of: Mapping[str, str],
    ) -> None:
        self.engines, self.models, self.prompts, self.sampling = engines, models, prompts, sampling
        self._judged = {
            name: np.array([surface_of.get(name) in (None, found) for found in prompts.surfaces])
            for name in models
        }
        empty = sorted(name for name, judged in self._judged.items() if not judged.any())
        if empty:
            raise InputDataError(
                f"no stopping prompt has the surface of {', '.join(empty)} "
                f"({', '.join(surface_of[name] for name in empty)}); add some, or leave it ungated"
            )
        self.production: ScoresByModel = on_main(
            lambda: engines.score(models, prompts.rows(prompts.production))
        )

    def standards(self) -> dict[str, Standard]:
        """Mean and SD of each model's scores on production's responses."""
        return {name: Standard.of(scores) for name, scores in self.production.items()}

    def win_rates(self, version: str, ask: Callable[[Callable[[], Any]], Any]) -> dict[str, float]:
        """Win rates of the weights `version`; `ask` runs a request that names it."""
        responses = ask(lambda: self.engines.answer(self.prompts.messages, self.sampling, version))
        scores = self.engines.score(self.models, self.prompts.rows(responses))
        return {
            name: tally(scores[name][judged], self.production[name][judged]).rate
            for name, judged in self._judged.items()
        }
