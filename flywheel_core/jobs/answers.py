"""Asking models and scoring what they said: the steps several stages share."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flywheel_core.engines.base import Completion
from flywheel_core.engines.config import SamplingConfig
from flywheel_core.engines.durable import DurableEngines
from flywheel_core.erasure.users import NOBODY, Erasures, without_erased
from flywheel_core.errors import InputDataError
from flywheel_core.evaluation.comparison import Checkpoint, tally
from flywheel_core.records import PROMPTS, Message, Split, Surface, read_table
from flywheel_core.sampling.rejection import Standard

Scores = npt.NDArray[np.float64]

POINTWISE: Mapping[Surface, str] = {
    "internal": "pointwise_internal",
    "user": "pointwise_user",
}
"""The pointwise model that is gated on each surface's prompts."""

STANDARDS_FILE = "standards.json"


@dataclass(frozen=True)
class Prompts:
    """Curated prompts of one split, as columns."""

    rows: list[dict[str, Any]]

    @property
    def messages(self) -> list[list[Message]]:
        return [row["messages"] for row in self.rows]

    @property
    def texts(self) -> list[str]:
        """One string a prompt, equal exactly where the prompts are."""
        return [json.dumps(row["messages"], sort_keys=True) for row in self.rows]

    def of(self, surface: Surface) -> "Prompts":
        return Prompts([row for row in self.rows if row["surface"] == surface])

    def __len__(self) -> int:
        return len(self.rows)


def read_prompts(curated: Path, split: Split, erasures: Erasures = NOBODY) -> Prompts:
    """The prompts of one split, from the `curate` artifact, none of an erased user."""
    table: pa.Table = read_table(curated / "prompts.parquet", PROMPTS)
    table = without_erased(table, erasures)
    return Prompts([row for row in table.to_pylist() if row["split"] == split])


def ask(
    engines: DurableEngines,
    model: Path,
    prompts: Sequence[list[Message]],
    sampling: SamplingConfig,
    seed: int,
) -> list[Completion]:
    """One completion a prompt."""
    sampling = sampling.model_copy(update={"num_samples": 1, "seed": seed})
    return [samples[0] for samples in engines.generator(model).generate(prompts, sampling)]


def answer(
    engines: DurableEngines,
    model: Path,
    prompts: Sequence[list[Message]],
    sampling: SamplingConfig,
    seed: int,
) -> list[str]:
    """One response a prompt."""
    return [completion.text for completion in ask(engines, model, prompts, sampling, seed)]


def reward_models(folder: Path, prefix: str) -> dict[str, Path]:
    """The models of the `reward_models` artifact whose name starts with `prefix`, by name."""
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name.startswith(prefix)
    }


def read_standards(folder: Path) -> dict[str, Standard]:
    """Mean and SD of each reward model's scores on production's traffic."""
    data = json.loads((folder / STANDARDS_FILE).read_text())
    return {name: Standard(**values) for name, values in data.items()}


def score_or_nan(
    engines: DurableEngines,
    model: Path,
    prompts: Sequence[list[Message]],
    responses: Sequence[str],
) -> Scores:
    """Raw scores [num_prompts] of a pointwise or signal model; NaN where there is none."""
    rows = list(zip(prompts, responses, strict=True))
    scores = engines.scorer().score(model, rows, progress=engines.progress)
    return np.asarray(scores, dtype=np.float64)


def score(
    engines: DurableEngines,
    model: Path,
    prompts: Sequence[list[Message]],
    responses: Sequence[str],
) -> Scores:
    """`score_or_nan`, where every row must have a score."""
    return _require_finite(model, score_or_nan(engines, model, prompts, responses))


def _require_finite(model: Path, scores: Scores) -> Scores:
    missing = int((~np.isfinite(scores)).sum())
    if missing:
        raise InputDataError(
            f"{model.name} gave no finite score for {missing} of {len(scores)} rows: NaN, or "
            "longer than execution.engine.max_model_len takes; a comparison with holes is none"
        )
    return scores


def score_pairs(
    engines: DurableEngines,
    model: Path,
    prompts: Sequence[list[Message]],
    first: Sequence[str],
    second: Sequence[str],
) -> Scores:
    """How much a pairwise model prefers `first`, both orders averaged: antisymmetric [n]."""
    return _require_finite(model, score_pairs_or_nan(engines, model, prompts, first, second))


def score_pairs_or_nan(
    engines: DurableEngines,
    model: Path,
    prompts: Sequence[list[Message]],
    first: Sequence[str],
    second: Sequence[str],
) -> Scores:
    """`score_pairs`, with NaN where either order has no score."""
    forward = list(zip(prompts, first, second, strict=True))
    backward = list(zip(prompts, second, first, strict=True))
    scored = engines.scorer().score(model, forward + backward, progress=engines.progress)
    scores = np.asarray(scored, dtype=np.float64)
    count = len(forward)
    difference: Scores = (scores[:count] - scores[count:]) / 2
    return difference


class WinRateProbe:
    """Win rates against production on a fixed prompt set, one gated rate per surface.

    Production answers the prompts once, with the same sampling as the candidates do.
    """

    def __init__(
        self,
        engines: DurableEngines,
        prompts: Prompts,
        production: Path,
        rewards: Path,
        sampling: SamplingConfig,
        seed: int,
    ) -> None:
        self.engines, self.sampling, self.seed = engines, sampling, seed
        self.sides = [
            (surface, prompts.of(surface), rewards / name)
            for surface, name in POINTWISE.items()
            if (rewards / name).is_dir() and len(prompts.of(surface))
        ]
        if not self.sides:
            raise InputDataError(
                "no pointwise reward model has prompts of its own surface, so there is no win "
                "rate to steer by; check the annotate stage's row counts"
            )
        self.baseline: dict[Surface, list[Completion]] = {}
        self.baseline_scores: dict[Surface, Scores] = {}
        for surface, side, model in self.sides:
            said = ask(engines, production, side.messages, sampling, seed)
            self.baseline[surface] = said
            texts = [completion.text for completion in said]
            self.baseline_scores[surface] = score(engines, model, side.messages, texts)

    def checkpoint(
        self, name: str, model: Path
    ) -> tuple[Checkpoint, dict[Surface, list[Completion]]]:
        """Win rates of one model, and what it said."""
        rates, said = {}, {}
        for surface, side, reward in self.sides:
            said[surface] = ask(self.engines, model, side.messages, self.sampling, self.seed + 1)
            texts = [completion.text for completion in said[surface]]
            scores = score(self.engines, reward, side.messages, texts)
            rates[reward.name] = tally(scores, self.baseline_scores[surface]).rate
        return Checkpoint(name, rates), said
