"""Algorithm 1 of the paper, as functions over arrays.

For each prompt: route it to one policy of the pool, draw k responses, keep the best one if its
reward is at least τ. The router, k and τ are not published; ours are said where they stand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_core.errors import ConfigError, InputDataError

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of a model's scores on production's own responses.

    Reward models do not share a scale (§3.5.4), so scores are added only after this.
    """

    mean: float
    sd: float

    @staticmethod
    def of(scores: npt.ArrayLike) -> "Standard":
        values = np.asarray(scores, dtype=np.float64)
        if values.size < 2 or not np.isfinite(values).all():
            raise ValueError(f"need at least 2 finite scores to standardise, got {values.size}")
        return Standard(float(values.mean()), float(max(values.std(ddof=1), 1e-6)))

    @staticmethod
    def of_finite(scores: npt.ArrayLike) -> "Standard":
        """Over the rows that have a score."""
        values = np.asarray(scores, dtype=np.float64)
        return Standard.of(values[np.isfinite(values)])

    def apply(self, scores: npt.ArrayLike) -> Scores:
        return np.asarray((np.asarray(scores, dtype=np.float64) - self.mean) / self.sd)


def route(num_prompts: int, policies: Sequence[str], pool_share: float, seed: int) -> list[str]:
    """One policy a prompt. The first policy (production) gets 1 − `pool_share`; the others
    share the rest evenly. Ours: the paper says only "most suitable"."""
    num_others = len(policies) - 1
    if not num_others:
        return list(policies) * num_prompts
    shares = [1.0 - pool_share, *[pool_share / num_others] * num_others]
    drawn = np.random.default_rng(seed).choice(len(policies), size=num_prompts, p=shares)
    return [policies[index] for index in drawn]


def composite(
    preference: Mapping[str, npt.ArrayLike],
    signals: Mapping[str, npt.ArrayLike],
    standards: Mapping[str, Standard],
    weights: Mapping[str, float],
) -> Scores:
    """The ranking score of rejection sampling (§2.3) [n]: the weighted mean of the standardised
    preference scores, plus each standardised signal logit times its weight.

    `weights` has every model. The preference weights are made to sum to 1; a signal's is as it
    stands, and negative where the signal is bad news. NaN where any model that counts gave none.
    For ranking only, never for RL (§3.5.5).
    """
    given = {name: weights[name] for name in sorted(preference)}
    sum_of_weights = sum(given.values())
    if sum_of_weights <= 0 or min(given.values()) < 0:
        raise ConfigError(
            f"rejection_sampling.preference_weights {given}: must be 0 or more, with a sum above 0"
        )
    scaled = {name: weight / sum_of_weights for name, weight in given.items()}
    scaled |= {name: weights[name] for name in signals}
    both = {**preference, **signals}
    parts = [
        scaled[name] * standards[name].apply(scores)
        for name, scores in sorted(both.items())
        if scaled[name]
    ]
    total: Scores = np.sum(parts, axis=0)
    return total


@dataclass(frozen=True)
class Accepted:
    """The best candidate of one prompt that passed the threshold."""

    prompt_index: int
    candidate_index: int
    score: float


def accept_best(scores: Scores, threshold: float) -> list[Accepted]:
    """`scores` [num_prompts, k] → the best candidate of each prompt with r_max ≥ τ.

    A score that is no finite number is no score: it never wins, and a prompt without any is not
    in the result.
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape [num_prompts, k], got {scores.shape}")
    ranked = np.where(np.isfinite(scores), scores, -np.inf)
    best = ranked.argmax(axis=1)
    return [
        Accepted(row, int(column), float(ranked[row, column]))
        for row, column in enumerate(best)
        if np.isfinite(ranked[row, column]) and ranked[row, column] >= threshold
    ]


def require_scored(scores: Scores, unscored_share_max: float) -> int:
    """How many candidates got no score; too many of them are a fault, not bad luck."""
    unscored = int((~np.isfinite(scores)).sum())
    if unscored > unscored_share_max * scores.size:
        raise InputDataError(
            f"{unscored} of {scores.size} candidates got no finite score (NaN, or longer than the "
            f"engine takes); at most {unscored_share_max:.0%} may: look at the reward models' "
            "training metrics, raise execution.engine.max_model_len, or filter long conversations "
            "in curation"
        )
    return unscored
