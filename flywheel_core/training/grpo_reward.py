"""What RL is rewarded with: standardised reward models, minus a penalty for long responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.engines.base import ScoreRow
from flywheel_core.errors import ConfigError, TrainingError
from flywheel_core.sampling.rejection import Standard
from flywheel_core.training.grpo_config import GrpoConfig
from flywheel_core.training.grpo_engines import RlEngines, ScoresByModel

Rewards = npt.NDArray[np.float64]


def combined_reward(
    scores: ScoresByModel,
    standards: Mapping[str, Standard],
    lengths_tokens: npt.ArrayLike,
    config: GrpoConfig,
) -> Rewards:
    """Weighted mean of the standardised scores, minus the long-response penalty [num_rows].

    In units of one standard deviation of a reward model's scores on production's responses.
    """
    for name, values in scores.items():
        if not np.isfinite(values).all():
            raise TrainingError(
                f"reward model {name} gave {int((~np.isfinite(values)).sum())} non-finite scores; "
                "check its training metrics, or leave it out of reward_weights"
            )
    weights = weights_of(list(scores), config.reward_weights)
    total: Rewards = sum(
        (weights[name] * standards[name].apply(values) for name, values in scores.items()),
        start=np.zeros(len(next(iter(scores.values())))),
    )
    return total - length_penalty(lengths_tokens, config)


def weights_of(names: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Weights that sum to 1; a model that is not named weighs as much as 1.0."""
    unknown = set(weights) - set(names)
    if unknown:
        raise ConfigError(
            f"reward_weights names {', '.join(sorted(unknown))}, but the reward models are "
            f"{', '.join(sorted(names))}; use their names"
        )
    raw = {name: float(weights.get(name, 1.0)) for name in names}
    total = sum(raw.values())
    if total <= 0 or min(raw.values()) < 0:
        raise ConfigError(f"reward_weights {dict(weights)} must be 0 or more, with a positive sum")
    return {name: value / total for name, value in raw.items()}


def length_penalty(lengths_tokens: npt.ArrayLike, config: GrpoConfig) -> Rewards:
    """0 up to `long_response_start_tokens`, then linear to the whole penalty (Table 7)."""
    lengths = np.asarray(lengths_tokens, dtype=np.float64)
    room = max(1, config.max_completion_tokens - config.long_response_start_tokens)
    over = np.clip((lengths - config.long_response_start_tokens) / room, 0.0, 1.0)
    return np.asarray(config.long_response_penalty * over)


@dataclass
class RewardFunction:
    """TRL's reward function: this rank's completions to rewards."""

    engines: RlEngines
    models: Mapping[str, Path]
    standards: Mapping[str, Standard]
    config: GrpoConfig
    __name__: str = "reward"

    def __call__(
        self,
        prompts: list[Any],
        completions: list[Any],
        completion_ids: list[list[int]],
        log_metric: Any = None,
        **_: Any,
    ) -> list[float]:
        rows: list[ScoreRow] = [
            (prompt, completion[0]["content"])
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        scores = self.engines.score(self.models, rows)
        lengths = [len(ids) for ids in completion_ids]
        if log_metric is not None:
            for name, values in scores.items():
                log_metric(f"score/{name}", float(self.standards[name].apply(values).mean()))
        rewards = combined_reward(scores, self.standards, lengths, self.config)
        return [float(reward) for reward in rewards]
