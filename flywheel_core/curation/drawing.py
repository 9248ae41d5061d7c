"""Which of the balanced rows are drawn first, so that any number of them keeps the strata.

Phase III makes the largest set within Table 1's shares; a recipe mostly asks for fewer prompts. So
rows are drawn one at a time from the cell whose strata lack most of their wanted share of what was
drawn so far, and within a cell in the order given. As long as such cells have rows, each stratum's
share of the drawn rows is within about a row of what is wanted. The rule is ours; the paper says
what the final set must look like, not how it is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.curation.strata import Indices, Strata

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """Each row's stratum in every dimension that counts (`codes` [num_rows, num_dimensions]), and
    by dimension the wanted shares of its strata."""

    codes: npt.NDArray[np.int32]
    wanted: tuple[Shares, ...]


def in_order(num_rows: int) -> Plan:
    """Nothing is wanted: rows are drawn as they come."""
    return Plan(np.zeros((num_rows, 0), np.int32), ())


def plan_of(strata: Strata, wanted: Mapping[str, Mapping[Any, float]], balanced: Indices) -> Plan:
    """A plan for the rows `balanced`: `wanted` shares by stratum and value, and for values it does
    not name, what these leave, divided as in the balanced set."""
    places = [place for place, name in enumerate(strata.names) if wanted.get(name)]
    shares = []
    for place in places:
        values = strata.values[place]
        named = wanted[strata.names[place]]
        held = np.bincount(strata.codes[balanced, place], minlength=len(values)).astype(np.float64)
        held[[values.index(value) for value in named if value in values]] = 0.0
        left = max(0.0, 1.0 - sum(named.values()))
        share = held * (left / held.sum()) if held.sum() else held
        for value, one in named.items():
            if value in values:
                share[values.index(value)] = one
        shares.append(share)
    return Plan(strata.codes[:, places], tuple(shares))


class Drawn:
    """What was drawn so far, over all pools."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.num_rows = 0
        self.counts = [np.zeros(len(shares)) for shares in plan.wanted]

    def take(self, index: int) -> None:
        """Count a row as drawn."""
        self.num_rows += 1
        for counts, code in zip(self.counts, self.plan.codes[index], strict=True):
            counts[code] += 1

    def lacking(self) -> list[Shares]:
        """By dimension, how many rows each stratum lacks to its share after the next one."""
        return [
            shares * (self.num_rows + 1) - counts
            for shares, counts in zip(self.plan.wanted, self.counts, strict=True)
        ]


class Pool:
    """Rows to draw from, a queue for each cell; a row that is offered is gone."""

    def __init__(self, drawn: Drawn, order: Sequence[int]) -> None:
        self._drawn = drawn
        rows = np.asarray(order, np.int64)
        codes = drawn.plan.codes[rows]
        self._cells, of_row = np.zeros((1, 0), np.int32), np.zeros(len(rows), np.int64)
        if codes.shape[1]:
            self._cells, numbers = np.unique(codes, axis=0, return_inverse=True)
            of_row = numbers.reshape(-1)
        queues = np.argsort(of_row, kind="stable")
        ends = np.cumsum(np.bincount(of_row, minlength=1))
        self._rows = rows[queues]
        self._next = np.concatenate([[0], ends[:-1]])
        self._ends = ends

    def draw(self) -> int | None:
        """The next row of the cell that lacks most; None when all are gone."""
        open_cells = self._next < self._ends
        if not open_cells.any():
            return None
        score = np.where(open_cells, 0.0, -np.inf)
        for place, lacking in enumerate(self._drawn.lacking()):
            score = score + lacking[self._cells[:, place]]
        cell = int(score.argmax())
        self._next[cell] += 1
        return int(self._rows[self._next[cell] - 1])
