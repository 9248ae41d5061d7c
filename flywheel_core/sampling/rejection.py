"""Algorithm 1 of the paper, as functions over arrays.

For each prompt: route it to one policy of the pool, draw k responses, keep the best one if its
reward is at least τ. The router, k and τ are not published; ours are said where they stand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    signal_weight: float,
) -> Scores:
    """The ranking score of rejection sampling (§2.3): mean standardised preference score, plus
    `signal_weight` times each standardised signal logit. For ranking only, never for RL (§3.5.5).
    """
    parts = [standards[name].apply(scores) for name, scores in sorted(preference.items())]
    total: Scores = np.mean(parts, axis=0)
    for name, scores in sorted(signals.items()):
        total = total + signal_weight * standards[name].apply(scores)
    return total


@dataclass(frozen=True)
class Accepted:
    """The best candidate of one prompt that passed the threshold."""

    prompt_index: int
    candidate_index: int
    score: float


def accept_best(scores: Scores, threshold: float) -> list[Accepted]:
    """`scores` [num_prompts, k] → the best candidate of each prompt with r_max ≥ τ."""
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite with shape [num_prompts, k], got {scores.shape}")
    best = scores.argmax(axis=1)
    return [
        Accepted(row, int(column), float(scores[row, column]))
        for row, column in enumerate(best)
        if scores[row, column] >= threshold
    ]
