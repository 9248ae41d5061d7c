"""Candidate against production on the same prompts: win rates by reward model (§2.5.1).

Scores are compared prompt by prompt; a tie counts one half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_core.evaluation.statistics import Interval, cluster_bootstrap
from flywheel_core.release.metrics import PromptSet, RewardModelName, WinRateCell

TIE_MARGIN = 1e-6
"""Two scores closer than this are a tie: float32 scores of equal texts differ by rounding."""


@dataclass(frozen=True)
class Tally:
    """Counts of one comparison."""

    wins: int
    ties: int
    losses: int

    @property
    def rate(self) -> float:
        """Win rate with ties one half; NaN where nothing was compared."""
        total = self.wins + self.ties + self.losses
        return (self.wins + 0.5 * self.ties) / total if total else float("nan")


def tally(candidate: npt.ArrayLike, production: npt.ArrayLike) -> Tally:
    """Compare scores [num_prompts] prompt by prompt."""
    gap = np.asarray(candidate, dtype=np.float64) - np.asarray(production, dtype=np.float64)
    if not np.isfinite(gap).all():
        raise ValueError(f"{int((~np.isfinite(gap)).sum())} scores are not finite")
    wins, losses = int((gap > TIE_MARGIN).sum()), int((gap < -TIE_MARGIN).sum())
    return Tally(wins, len(gap) - wins - losses, losses)


def outcomes(candidate: npt.ArrayLike, production: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """1 for a win, ½ for a tie, 0 for a loss, prompt by prompt."""
    gap = np.asarray(candidate, dtype=np.float64) - np.asarray(production, dtype=np.float64)
    return np.where(np.abs(gap) <= TIE_MARGIN, 0.5, (gap > 0).astype(np.float64))


def win_rate_cell(
    reward_model: RewardModelName,
    prompt_set: PromptSet,
    candidate: npt.ArrayLike,
    production: npt.ArrayLike,
    *,
    prompt_texts: Sequence[str],
    user_ids: Sequence[str | None],
    seed: int,
) -> WinRateCell:
    """One cell of the matrix.

    The number of effective prompts is the number of distinct ones. Where users are known the
    interval is a bootstrap over users, because one user's prompts are alike.
    """
    counts = tally(candidate, production)
    interval: Interval | None = None
    clusters = [user for user in user_ids if user is not None]
    if len(clusters) == len(user_ids) and 1 < len(set(clusters)) < len(clusters):
        interval = cluster_bootstrap(outcomes(candidate, production), clusters, seed=seed)
    return WinRateCell.from_counts(
        reward_model,
        prompt_set,
        counts.wins,
        counts.ties,
        counts.losses,
        interval=interval,
        num_effective_prompts=float(len(set(prompt_texts))),
    )


@dataclass(frozen=True)
class Checkpoint:
    """A model on offer for selection, and its win rates on the selection prompts."""

    name: str
    win_rates: Mapping[str, float]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.win_rates.values())))

    @property
    def highest(self) -> float:
        return max(self.win_rates.values())


def choose_checkpoint(checkpoints: Sequence[Checkpoint], win_rate_max: float) -> Checkpoint:
    """The highest mean win rate among checkpoints none of whose gated rates exceeds
    `win_rate_max`; where all exceed it, the one that exceeds it least.

    Steps must be "large enough to ensure progress but small enough to avoid overfitting"
    (§2.1); 60 % is the paper's target (§3.1.2).
    """
    if not checkpoints:
        raise ValueError("there is no checkpoint to choose from")
    within = [checkpoint for checkpoint in checkpoints if checkpoint.highest <= win_rate_max]
    if within:
        return max(within, key=lambda checkpoint: checkpoint.mean)
    return min(checkpoints, key=lambda checkpoint: checkpoint.highest)
