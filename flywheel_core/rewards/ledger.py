"""The reward-model ledger: Table 8 as a living matrix, by Table 9's rule.

Each preference model has a row a generation and a column a data batch, apart for static and
interactive chats. A cell is its accuracy on the batch's held-out pairs *on which three annotators
are unanimous* (§3.4.1: on single reviews, label noise hides what a model learnt), with Wilson's
95 % interval. Scores that tie count one half.

A new generation adds its model's row over every batch, and the zero-shot cell of the model in
force before it on the new batch. Both models read the same pairs, so what changed between them is
a paired difference (Student's interval); on an older batch a drop of more than 2 points whose
interval excludes zero is flagged.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from flywheel_core.artifacts import Record
from flywheel_core.evaluation.statistics import Interval, paired_difference, wilson_interval

Floats = npt.NDArray[np.float64]
Change = Literal["regressed", "unsure", "held", "gained", "too few pairs"]

LEDGER_FILE = "ledger.json"
SCHEMA_VERSION: Literal[1] = 1
PAIRS_MIN = 20
"""Consensus pairs a comparison of two models needs."""

DROP_TOLERANCE = 0.02
"""A smaller drop is no cause to look; ours. Table 8's own columns fall by up to 0.020."""


class Cell(Record):
    """A model's accuracy on one batch. It is zero-shot where the batch is younger than it."""

    model_generation: int = Field(ge=0)
    batch_generation: int = Field(ge=0)
    workflow: str
    num_pairs: int = Field(ge=1)
    accuracy: Interval

    @property
    def zero_shot(self) -> bool:
        return self.batch_generation > self.model_generation


class Comparison(Record):
    """The new model minus the one in force before it, on one batch's consensus pairs."""

    model_generation: int
    prior_generation: int
    batch_generation: int
    workflow: str
    num_pairs: int
    difference: Interval | None
    change: Change


class Family(Record):
    """One preference model over the generations: `pointwise_user`, say.

    `num_without_consensus` counts held-out pairs that the rule sets aside, by batch generation;
    `num_unscored` those with consensus that a model of the newest measurement could not score,
    which are in no cell.
    """

    model: str
    cells: tuple[Cell, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    num_without_consensus: dict[int, int] = Field(default_factory=dict)
    num_unscored: dict[int, int] = Field(default_factory=dict)

    @property
    def workflows(self) -> tuple[str, ...]:
        return tuple(sorted({cell.workflow for cell in self.cells}, reverse=True))

    def cell(self, model: int, batch: int, workflow: str) -> Cell | None:
        """The cell, or None where it was not measured."""
        for cell in self.cells:
            if (cell.model_generation, cell.batch_generation, cell.workflow) == (
                model, batch, workflow,
            ):  # fmt: skip
                return cell
        return None


class Ledger(Record):
    """Every family's matrix as of one generation."""

    schema_version: Literal[1] = SCHEMA_VERSION
    generation: int = 0
    families: tuple[Family, ...] = ()

    def family(self, model: str) -> Family:
        """The family, empty where it has no cell yet."""
        return next((one for one in self.families if one.model == model), Family(model=model))


def correctness(scores: npt.ArrayLike, first_is_better: npt.ArrayLike) -> Floats:
    """1 where the sign of the score difference [n] agrees with the annotators, 0 where not, one
    half where the scores tie; NaN stays NaN."""
    gap = np.asarray(scores, dtype=np.float64)
    wanted = np.where(np.asarray(first_is_better, dtype=bool), 1.0, -1.0)
    right: Floats = 0.5 * (1.0 + np.sign(gap) * wanted)
    return right


class Outcome(Record):
    """What one model got right on one batch and workflow: `right` [n], pair by pair."""

    model_generation: int
    batch_generation: int
    workflow: str
    right: tuple[float, ...]


def extend(
    family: Family,
    generation: int,
    outcomes: Sequence[Outcome],
    num_without_consensus: Mapping[int, int],
    num_unscored: Mapping[int, int] | None = None,
) -> Family:
    """The family after one more generation.

    `outcomes` are of the new model (of `generation`) and, where there is one, of the model in
    force before it, over the same pairs; an outcome without pairs adds no cell.
    """
    measured = [outcome for outcome in outcomes if outcome.right]
    fresh = tuple(_cell(outcome) for outcome in measured)
    places = {(c.model_generation, c.batch_generation, c.workflow) for c in fresh}
    kept = tuple(
        cell
        for cell in family.cells
        if (cell.model_generation, cell.batch_generation, cell.workflow) not in places
    )
    compared = _compare(generation, measured)
    again = {_place(one) for one in compared}
    before = [one for one in family.comparisons if _place(one) not in again]
    return Family(
        model=family.model,
        cells=tuple(
            sorted(
                (*kept, *fresh),
                key=lambda c: (c.workflow, c.model_generation, c.batch_generation),
            )
        ),
        comparisons=(*before, *compared),
        num_without_consensus={**family.num_without_consensus, **num_without_consensus},
        num_unscored={**family.num_unscored, **(num_unscored or {})},
    )


def _cell(outcome: Outcome) -> Cell:
    return Cell(
        model_generation=outcome.model_generation,
        batch_generation=outcome.batch_generation,
        workflow=outcome.workflow,
        num_pairs=len(outcome.right),
        accuracy=wilson_interval(sum(outcome.right), len(outcome.right)),
    )


def _place(compared: Comparison) -> tuple[int, int, int, str]:
    return (
        compared.model_generation,
        compared.prior_generation,
        compared.batch_generation,
        compared.workflow,
    )


def _compare(generation: int, outcomes: Sequence[Outcome]) -> list[Comparison]:
    new = {
        (one.batch_generation, one.workflow): one
        for one in outcomes
        if one.model_generation == generation
    }
    found = []
    for prior in outcomes:
        place = (prior.batch_generation, prior.workflow)
        if prior.model_generation == generation or place not in new:
            continue
        right = new[place].right
        difference = paired_difference(right, prior.right) if len(right) >= PAIRS_MIN else None
        found.append(
            Comparison(
                model_generation=generation,
                prior_generation=prior.model_generation,
                batch_generation=prior.batch_generation,
                workflow=prior.workflow,
                num_pairs=len(right),
                difference=difference,
                change=_change(difference),
            )
        )
    return found


def _change(difference: Interval | None) -> Change:
    if difference is None:
        return "too few pairs"
    if difference.lower > 0:
        return "gained"
    if difference.estimate >= -DROP_TOLERANCE:
        return "held"
    return "regressed" if difference.upper < 0 else "unsure"


def regressions(family: Family, generation: int) -> list[Comparison]:
    """Old batches on which this generation's model is worse than the one before: by more than
    `DROP_TOLERANCE`, and beyond doubt."""
    return [
        one
        for one in family.comparisons
        if one.model_generation == generation
        and one.batch_generation < generation
        and one.change == "regressed"
    ]


def summary(ledger: Ledger) -> dict[str, Any]:
    """For the stage's manifest: zero-shot and trained accuracy on the new batch, and what fell."""
    found: dict[str, Any] = {}
    for family in ledger.families:
        new_batch = [c for c in family.cells if c.batch_generation == ledger.generation]
        found[family.model] = {
            "new_batch": {
                f"{cell.workflow}, {'zero-shot' if cell.zero_shot else 'trained'}": {
                    "accuracy": cell.accuracy.model_dump(exclude={"level"}),
                    "num_pairs": cell.num_pairs,
                }
                for cell in new_batch
            },
            "without_consensus": family.num_without_consensus.get(ledger.generation, 0),
            "unscored": sum(family.num_unscored.values()),
            "regressed": [
                f"batch {one.batch_generation}, {one.workflow}: "
                f"{one.difference.estimate:+.3f} [{one.difference.lower:+.3f}, "
                f"{one.difference.upper:+.3f}]"
                for one in regressions(family, ledger.generation)
                if one.difference is not None
            ],
        }
    return found
