"""How many rows to keep of each cell: one integer programme over counts, solved by HiGHS.

`n[i]` rows are kept of cell i, T in all. A limit on a share of the final set,
low ≤ Σ n[inside] / T ≤ high, is linear once multiplied by T, so caps that refer to the final set
need no iteration. The size of the problem is the number of cells, not of rows.

Few cells are solved exactly. With many, branch and bound over all of them takes minutes to prove
the last rows, so the linear programme is solved first (its optimum is an upper bound), and whole
numbers are searched for near it: only its fractional cells and the largest ones move.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.errors import SolverGaveUp

EXACT_CELLS_MAX = 100
"""Up to so many cells whole numbers are searched for over all of them at once."""
NODES_MAX = 300
"""Branch-and-bound nodes before the best set found so far is taken. A count, not a time, so that
the answer does not depend on the machine. Ours."""
RINGS = (300, 3_000)
"""How many of the largest cells may move beside the fractional ones, first and second try."""
EXACT_RELAXATION_CELLS_MAX = 30
"""Up to so many cells the smallest relaxation is found over whole rows; its programme is harder."""
MOVE_ROWS = 3
"""How far a moving cell's count may lie from the linear programme's."""
GAP_SHARE_MAX = 0.001
"""A set is large enough if it misses the upper bound by at most this share of it."""
SHARE_STEP = 0.001
"""Relaxations are stated to a tenth of a percent, rounded so that they suffice."""
INFEASIBLE = 2
"""scipy's status of a programme that is proven to have no solution."""


@dataclass(frozen=True)
class Limit:
    """low ≤ share of the final set that lies in the cells `inside` ≤ high.

    Limits of one `name` are one constraint: they clash and are relaxed together (every
    character's cap, or both sides of a stratum).
    """

    name: str
    inside: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0

    def relaxed(self, by: float) -> "Limit":
        """Wider by so much on each side."""
        return replace(self, low=max(0.0, self.low - by), high=min(1.0, self.high + by))


@dataclass(frozen=True)
class Largest:
    """Counts [num_cells], and the most rows any set could have."""

    counts: list[int]
    rows_max: int


def largest_counts(sizes: Sequence[int], limits: Sequence[Limit]) -> Largest | None:
    """The largest set within the limits; None where only the empty set is, which is proven:
    `SolverGaveUp` where the search ends without a set and without that proof.

    Its distance from the bound `rows_max` is what it may lack. Up to `EXACT_CELLS_MAX` cells it is
    the largest (proven, unless that takes more than `NODES_MAX` nodes); with more, the search
    stops within `GAP_SHARE_MAX` of the bound.
    """
    return _largest(sizes, limits, 1 - GAP_SHARE_MAX)


def _largest(sizes: Sequence[int], limits: Sequence[Limit], enough_share: float) -> Largest | None:
    """The search stops at a set of `enough_share` of the bound, where there are many cells."""
    programme = _Programme(sizes, limits)
    cost = np.zeros(programme.width)
    cost[programme.total] = -1.0
    bound = programme.solve(cost, whole=False)
    if bound is None:
        return None
    rows_max = math.floor(bound[programme.total] + 1e-6)
    found = None
    for ring in RINGS if len(sizes) > EXACT_CELLS_MAX else ():
        found = _unless_given_up(programme, cost, programme.around(bound, ring))
        if found is not None and found[programme.total] >= rows_max * enough_share - 1:
            break
    if found is None:
        found = programme.solve(cost)
    return None if found is None else Largest(programme.counts(found), rows_max)


def _unless_given_up(
    programme: "_Programme", cost: npt.NDArray[np.float64], around: "_Around | None" = None
) -> npt.NDArray[np.float64] | None:
    """For a search that only tries: None too where the solver gave up."""
    try:
        return programme.solve(cost, around=around)
    except SolverGaveUp:
        return None


def clash(sizes: Sequence[int], limits: Sequence[Limit]) -> tuple[str, ...]:
    """Names of constraints that cannot hold together, none of which could be left out.

    Deletion filtering (Chinneck and Dravnieks 1991): each constraint is dropped in turn, for good
    where the rest provably still clashes (one on which the solver gives up stays named); the last
    first, so the earlier ones are more often named. Empty where there is no clash.
    """
    if largest_counts(sizes, limits) is not None:
        return ()
    needed = list(dict.fromkeys(limit.name for limit in limits))
    for name in reversed(needed.copy()):
        fewer = [other for other in needed if other != name]
        if _feasible(sizes, _named(limits, fewer)) is False:
            needed = fewer
    return tuple(needed)


def smallest_relaxation(sizes: Sequence[int], limits: Sequence[Limit]) -> dict[str, float]:
    """By how much to widen which constraints, in shares, so that their sum is smallest.

    The linear programme's answer is a lower bound; where whole rows fit once it is rounded up
    (`relax`), nothing smaller will do. Otherwise the answer over whole rows is taken, or with many
    cells a small one that works: the linear one, with some constraints wider.
    """
    by = _least_slack(sizes, limits, whole=False)
    if not _feasible(sizes, relax(limits, by)) and len(sizes) <= EXACT_RELAXATION_CELLS_MAX:
        with suppress(SolverGaveUp):  # the linear answer is then widened until it works
            by = _least_slack(sizes, limits, whole=True)
    return _widened(sizes, limits, by)


def _widened(
    sizes: Sequence[int], limits: Sequence[Limit], least: Mapping[str, float]
) -> dict[str, float]:
    """`least` if whole rows fit, else every constraint wider by the first of doubling steps that
    does, each but those that need it then put back."""
    by, step = dict(least), SHARE_STEP
    while not _feasible(sizes, relax(limits, by)):
        names = dict.fromkeys(limit.name for limit in limits)
        by = {name: least.get(name, 0.0) + step for name in names}
        step *= 2
    for name in [name for name in by if by[name] != least.get(name, 0.0)]:
        narrower = by | {name: least.get(name, 0.0)}
        if _feasible(sizes, relax(limits, narrower)):
            by = narrower
    return {name: share for name, share in by.items() if share > 0}


def _least_slack(sizes: Sequence[int], limits: Sequence[Limit], *, whole: bool) -> dict[str, float]:
    """Minimises the ratio Σ slack in rows / T by Dinkelbach's method: each step solves
    min Σ slack − λT, and λ falls to the least ratio in a few steps."""
    programme = _Programme(sizes, limits, with_slack=True)
    cost = np.zeros(programme.width)
    cost[programme.slacks] = 1.0
    best = programme.solve(cost, whole=whole)
    assert best is not None  # with slack every set is allowed
    while True:
        ratio = programme.slack_ratio(best)
        cost[programme.total] = -ratio
        found = _unless_given_up(programme, cost) if whole else programme.solve(cost, whole=False)
        if found is None or programme.slack_ratio(found) >= ratio - 1e-9:
            break
        best = found
    return {name: share for name, share in programme.slack_shares(best).items() if share > 1e-9}


def round_up(share: float) -> float:
    """To a tenth of a percent, never down."""
    return math.ceil(share / SHARE_STEP - 1e-6) * SHARE_STEP


def relax(limits: Iterable[Limit], by: Mapping[str, float]) -> list[Limit]:
    """The limits, each wider by what its name says, rounded up."""
    return [limit.relaxed(round_up(by.get(limit.name, 0.0))) for limit in limits]


def _named(limits: Sequence[Limit], names: Iterable[str]) -> list[Limit]:
    wanted = set(names)
    return [limit for limit in limits if limit.name in wanted]


def _feasible(sizes: Sequence[int], limits: Sequence[Limit]) -> bool | None:
    """None where the solver gave up."""
    try:
        return _largest(sizes, limits, 0.0) is not None
    except SolverGaveUp:
        return None


def _rows_min(num_cells: int, limits: Sequence[Limit]) -> int:
    """The fewest rows a set that is not empty can have: one row is a share of 1/T, which must fit
    below `high` wherever a row must be. It spares branch and bound from trying smaller sets."""
    fewest = 1.0
    highest: dict[str, float] = {}
    covered: dict[str, set[int]] = {}
    for limit in limits:
        if limit.low > 0 and limit.high > 0:
            fewest = max(fewest, 1 / limit.high)
        highest[limit.name] = max(highest.get(limit.name, 0.0), limit.high)
        covered.setdefault(limit.name, set()).update(limit.inside)
    for name, cells in covered.items():
        if len(cells) == num_cells and highest[name] > 0:
            fewest = max(fewest, 1 / highest[name])
    return math.ceil(fewest - 1e-6)


@dataclass(frozen=True)
class _Around:
    """Bounds [width] near a solution of the linear programme."""

    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]


class _Programme:
    """Columns: a count for each cell, T, and with slack one column for each constraint's name."""

    def __init__(
        self, sizes: Sequence[int], limits: Sequence[Limit], *, with_slack: bool = False
    ) -> None:
        self.sizes = np.asarray(sizes, dtype=np.float64)
        self.total = len(sizes)
        names = list(dict.fromkeys(limit.name for limit in limits)) if with_slack else []
        self.slack_of = {name: self.total + 1 + index for index, name in enumerate(names)}
        self.width = self.total + 1 + len(names)
        self.rows_min = 1.0 if with_slack else _rows_min(len(sizes), limits)
        self._entries: list[tuple[int, int, float]] = []
        self._bounds: list[tuple[float, float]] = []
        self._row([(index, 1.0) for index in range(self.total)], -1.0, 0.0, 0.0)
        for limit in limits:
            self._add(limit)

    @property
    def slacks(self) -> list[int]:
        return list(self.slack_of.values())

    def _add(self, limit: Limit) -> None:
        """`inside` − high·T − slack ≤ 0 and `inside` − low·T + slack ≥ 0."""
        inside = [(index, 1.0) for index in limit.inside]
        slack = self.slack_of.get(limit.name)
        if limit.high < 1.0:
            extra = [] if slack is None else [(slack, -1.0)]
            self._row([*inside, *extra], -limit.high, -np.inf, 0.0)
        if limit.low > 0.0:
            extra = [] if slack is None else [(slack, 1.0)]
            self._row([*inside, *extra], -limit.low, 0.0, np.inf)

    def _row(
        self, entries: Sequence[tuple[int, float]], of_total: float, lower: float, upper: float
    ) -> None:
        row = len(self._bounds)
        self._entries += [(row, column, value) for column, value in entries]
        self._entries.append((row, self.total, of_total))
        self._bounds.append((lower, upper))

    def solve(
        self,
        cost: npt.NDArray[np.float64],
        *,
        whole: bool = True,
        around: _Around | None = None,
    ) -> npt.NDArray[np.float64] | None:
        """The cheapest columns [width] with T ≥ `rows_min` found within `NODES_MAX`; None where
        there are none, `SolverGaveUp` where nothing was found and that is not proven."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        num_rows = float(self.sizes.sum())
        if num_rows < self.rows_min:
            return None
        bounds = around or self._everywhere()
        integers = np.ones(self.width)
        integers[self.slacks] = 0.0
        solved = milp(
            c=cost,
            constraints=LinearConstraint(self._matrix(), *np.array(self._bounds).T),
            integrality=integers if whole else np.zeros(self.width),
            bounds=Bounds(bounds.lower, bounds.upper),
            # T is whole, so a gap below one row is none
            options={"mip_rel_gap": 0.9 / num_rows, "node_limit": NODES_MAX},
        )
        if solved.x is not None:
            return np.asarray(solved.x, dtype=np.float64)
        if solved.status == INFEASIBLE:
            return None
        raise SolverGaveUp(
            f"curation: HiGHS found no set of {self.sizes.sum():.0f} rows in {self.total} cells "
            f"within {NODES_MAX} nodes, and no proof that there is none (it said: "
            f"{solved.message.strip()}); a wider curation.strata_tolerance or fewer "
            "strata_targets make it easier"
        )

    def _everywhere(self) -> _Around:
        free = np.full(self.width - self.total, float(self.sizes.sum()))
        lower = np.zeros(self.width)
        lower[self.total] = self.rows_min
        return _Around(lower, np.concatenate([self.sizes, free]))

    def around(self, solution: npt.NDArray[np.float64], ring: int) -> _Around:
        """Every cell at its count in `solution`, but for the fractional and the `ring` largest."""
        everywhere = self._everywhere()
        moves = np.abs(solution - np.round(solution)) > 1e-7
        moves[np.argsort(-self.sizes, kind="stable")[:ring]] = True
        lower = np.where(moves, np.floor(solution) - MOVE_ROWS, np.round(solution))
        upper = np.where(moves, np.ceil(solution) + MOVE_ROWS, np.round(solution))
        lower, upper = np.maximum(lower, everywhere.lower), np.minimum(upper, everywhere.upper)
        lower[self.total :] = everywhere.lower[self.total :]
        upper[self.total :] = everywhere.upper[self.total :]
        return _Around(lower, upper)

    def _matrix(self) -> Any:
        from scipy.sparse import csr_array

        rows, columns, values = (list(part) for part in zip(*self._entries, strict=True))
        return csr_array((values, (rows, columns)), shape=(len(self._bounds), self.width))

    def counts(self, solution: npt.NDArray[np.float64]) -> list[int]:
        return [round(value) for value in solution[: self.total]]

    def slack_shares(self, solution: npt.NDArray[np.float64]) -> dict[str, float]:
        total = float(solution[self.total])
        return {name: max(0.0, float(solution[at])) / total for name, at in self.slack_of.items()}

    def slack_ratio(self, solution: npt.NDArray[np.float64]) -> float:
        return sum(self.slack_shares(solution).values())
