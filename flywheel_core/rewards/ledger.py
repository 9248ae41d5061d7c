"""The reward-model ledger: Table 8 as a living matrix, by Table 9's rule.

Each preference model has a row a generation and a column a data batch, apart for static and
interactive chats. A cell is its accuracy on the batch's held-out pairs *on which three annotators
are unanimous* (§3.4.1: on single reviews, label noise hides what a model learnt), with its
95 % interval (`Outcome.accuracy`). Scores that tie count one half.

A new generation adds its model's row over every batch, and the zero-shot cell of the model in
force before it on the new batch. Both models read the same pairs: `changes` says what the new one
gained and lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from flywheel_core.artifacts import Record
from flywheel_core.evaluation.statistics import Interval
from flywheel_core.rewards.changes import Comparison, Outcome, compare

Floats = npt.NDArray[np.float64]

LEDGER_FILE = "ledger.json"
SCHEMA_VERSION: Literal[1] = 1


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


@dataclass(frozen=True)
class Measured:
    """A family's newest measurement: `outcomes` are of the new model and, where there is one, of
    the model in force before it, over the same pairs; the counts are by batch generation, as
    `Family` has them. An outcome without pairs adds no cell."""

    outcomes: Sequence[Outcome]
    num_without_consensus: Mapping[int, int]
    num_unscored: Mapping[int, int] = field(default_factory=dict)


def extend(ledger: Ledger, generation: int, measured: Mapping[str, Measured]) -> Ledger:
    """The ledger after one more generation; `measured` by family. What it does not name rests."""
    outcomes = {
        model: [outcome for outcome in one.outcomes if outcome.right]
        for model, one in measured.items()
    }
    compared = compare(generation, outcomes)
    extended = [
        _extend(ledger.family(model), one, outcomes[model], compared[model])
        for model, one in measured.items()
    ]
    resting = [family for family in ledger.families if family.model not in measured]
    return Ledger(
        generation=generation,
        families=tuple(sorted((*resting, *extended), key=lambda family: family.model)),
    )


def _extend(
    family: Family, measured: Measured, outcomes: Sequence[Outcome], compared: Sequence[Comparison]
) -> Family:
    fresh = [_cell(outcome) for outcome in outcomes]
    cells = {_cell_place(cell): cell for cell in (*family.cells, *fresh)}
    comparisons = {_place(one): one for one in (*family.comparisons, *compared)}
    return Family(
        model=family.model,
        cells=tuple(sorted(cells.values(), key=_cell_place)),
        comparisons=tuple(comparisons.values()),
        num_without_consensus={**family.num_without_consensus, **measured.num_without_consensus},
        num_unscored={**family.num_unscored, **measured.num_unscored},
    )


def _cell(outcome: Outcome) -> Cell:
    return Cell(
        model_generation=outcome.model_generation,
        batch_generation=outcome.batch_generation,
        workflow=outcome.workflow,
        num_pairs=len(outcome.right),
        accuracy=outcome.accuracy,
    )


def _cell_place(cell: Cell) -> tuple[str, int, int]:
    return cell.workflow, cell.model_generation, cell.batch_generation


def _place(compared: Comparison) -> tuple[int, int, int, str]:
    return (
        compared.model_generation,
        compared.prior_generation,
        compared.batch_generation,
        compared.workflow,
    )


def regressions(family: Family, generation: int) -> list[Comparison]:
    """Old batches on which this generation's model is worse than the one before, beyond luck."""
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
