"""What a new preference model gained and lost against the one before, beyond luck.

Both models read the same pairs, so each batch, workflow and family of models is a paired
comparison. With every generation there are more of them, and at 95 % each something would soon be
"regressed" by luck alone. So the flags of a generation hold its old batches to one false discovery
rate (Benjamini & Hochberg 1995). The batch just learnt is another question, and is held to that
rate by itself. Both rules are ours; §3.4 compares by eye.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from flywheel_core.artifacts import Record
from flywheel_core.evaluation.prevalence import benjamini_hochberg, paired_p_value
from flywheel_core.evaluation.statistics import (
    Interval,
    cluster_bootstrap,
    paired_difference,
    wilson_interval,
)

Change = Literal["regressed", "unsure", "held", "gained", "too few pairs"]

PAIRS_MIN = 20
"""Consensus pairs a comparison of two models needs."""

DROP_TOLERANCE = 0.02
"""A smaller drop, or gain, is no cause to look; ours. Table 8's own columns fall by up to 0.020."""

FALSE_DISCOVERY_RATE = 0.05


class Outcome(Record):
    """What one model got right on one batch and workflow: `right` [n], pair by pair, and `units`
    [n], whom each pair comes from (`held_out_unit`); without them each pair stands for itself."""

    model_generation: int
    batch_generation: int
    workflow: str
    right: tuple[float, ...]
    units: tuple[str, ...] = ()

    @property
    def is_clustered(self) -> bool:
        """Whether some unit gave several pairs, which are alike: the turns of one chat, say."""
        return 1 < len(set(self.units)) < len(self.units)

    @property
    def accuracy(self) -> Interval:
        """Share right: Wilson's 95 % interval, or where pairs are clustered a bootstrap of units,
        which are fewer than pairs."""
        if self.is_clustered:
            return cluster_bootstrap(self.right, self.units, seed=0)
        return wilson_interval(sum(self.right), len(self.right))


class Comparison(Record):
    """The new model minus the one in force before it, on one batch's consensus pairs.

    `difference` has Student's paired 95 % interval, or where pairs are clustered a bootstrap of
    units, of this comparison alone. `adjusted_p_value` counts all that were made: the sign test's
    (exact McNemar; Wilcoxon's over units, and where scores tie), after Benjamini and Hochberg.
    `change` rests on it, and is "unsure" where a difference of more than `DROP_TOLERANCE` may be
    luck. Ledgers from before the rate was controlled have no p value.
    """

    model_generation: int
    prior_generation: int
    batch_generation: int
    workflow: str
    num_pairs: int
    difference: Interval | None
    adjusted_p_value: float | None = Field(default=None, ge=0, le=1)
    change: Change


@dataclass(frozen=True)
class _Pairing:
    """One batch and workflow, answered by two models of a family."""

    model: str
    prior: Outcome
    new: Outcome

    @property
    def enough(self) -> bool:
        return len(self.new.right) >= PAIRS_MIN

    @property
    def on_old_batch(self) -> bool:
        return self.new.batch_generation < self.new.model_generation


def compare(
    generation: int, outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, list[Comparison]]:
    """The comparisons of one generation, by family of models, as `outcomes` are. All families are
    judged together: what is asked of a generation is whether *anything* was forgotten."""
    pairings = [one for model, mine in outcomes.items() for one in _pair(model, generation, mine)]
    found: dict[str, list[Comparison]] = {model: [] for model in outcomes}
    for one in pairings:
        if not one.enough:
            found[one.model].append(_comparison(one, None))
    for old in (True, False):
        asked = [one for one in pairings if one.enough and one.on_old_batch == old]
        for one, adjusted in zip(asked, _adjusted_p_values(asked), strict=True):
            found[one.model].append(_comparison(one, adjusted))
    return found


def _pair(model: str, generation: int, outcomes: Sequence[Outcome]) -> list[_Pairing]:
    new = {
        (one.batch_generation, one.workflow): one
        for one in outcomes
        if one.model_generation == generation
    }
    return [
        _Pairing(model, prior, new[place])
        for prior in outcomes
        if prior.model_generation != generation
        and (place := (prior.batch_generation, prior.workflow)) in new
    ]


def _adjusted_p_values(pairings: Sequence[_Pairing]) -> list[float]:
    p_values = [paired_p_value(_by_unit(one.new), _by_unit(one.prior)) for one in pairings]
    return benjamini_hochberg(p_values) if p_values else []


def _by_unit(outcome: Outcome) -> npt.NDArray[np.float64]:
    """How many pairs of each unit were right; one by one where no unit has several."""
    right = np.array(outcome.right, dtype=np.float64)
    if not outcome.is_clustered:
        return right
    _, place = np.unique(outcome.units, return_inverse=True)
    return np.bincount(place, weights=right).astype(np.float64)


def _difference(new: Outcome, prior: Outcome) -> Interval:
    if not new.is_clustered:
        return paired_difference(new.right, prior.right)
    gaps = np.subtract(new.right, prior.right)
    return cluster_bootstrap(gaps, new.units, seed=0)


def _comparison(pairing: _Pairing, adjusted_p_value: float | None) -> Comparison:
    new, prior = pairing.new, pairing.prior
    difference = _difference(new, prior) if pairing.enough else None
    return Comparison(
        model_generation=new.model_generation,
        prior_generation=prior.model_generation,
        batch_generation=new.batch_generation,
        workflow=new.workflow,
        num_pairs=len(new.right),
        difference=difference,
        adjusted_p_value=adjusted_p_value,
        change=_change(difference, adjusted_p_value),
    )


def _change(difference: Interval | None, adjusted_p_value: float | None) -> Change:
    if difference is None or adjusted_p_value is None:
        return "too few pairs"
    if abs(difference.estimate) <= DROP_TOLERANCE:
        return "held"
    if adjusted_p_value > FALSE_DISCOVERY_RATE:
        return "unsure"
    return "gained" if difference.estimate > 0 else "regressed"
