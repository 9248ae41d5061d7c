"""Phase III: the largest set that keeps Table 1's constraints, solved jointly.

Rows fall into cells (character × locale × language × job × depth × difficulty), in one pass.
`counts.py` finds how many rows of each cell to keep: as many as possible, with each character at
most 3 % of the final set, first turns at least 10 %, and every stratum near its share of the
traffic or its target. Within a cell the best rows are taken: by quality and difficulty where they
are given, else by a seeded hash. A field no row has binds nothing and is *not applicable*.

Prompt difficulty is the variance of reward scores over several responses to a prompt (§3.5.4);
it needs a reward model, so it is an optional input.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.curation.columns import hash_shares
from flywheel_core.curation.counts import (
    Limit,
    clash,
    largest_counts,
    round_up,
    smallest_relaxation,
)
from flywheel_core.curation.strata import (
    FIRST_TURN,
    STRATA,
    Cells,
    Indices,
    Measures,
    Row,
    Strata,
    cells_of,
    measured,
    row_strata,
)
from flywheel_core.errors import InputDataError

STRATUM_TOLERANCE = 0.02
"""How far a stratum's share may lie from its share of the traffic, or its target; ours."""
ROUNDING = 1e-9
NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class TableOne:
    """Table 1's constraints. `targets` gives shares of the final set by stratum and value, where
    the traffic's own are not wanted; a first-turn minimum above the traffic's share lifts the
    first turns' target and lowers the other depths in proportion."""

    first_turn_share_min: float = 0.10
    character_share_max: float = 0.03
    tolerance: float = STRATUM_TOLERANCE
    targets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Balanced:
    """Indices kept, what each constraint came to, and the shares that were wanted by stratum."""

    kept: list[int]
    achieved: dict[str, Any]
    wanted: dict[str, dict[str, float]] = field(default_factory=dict)


def balance(
    rows: Sequence[Row],
    indices: Sequence[int],
    *,
    first_turn_share_min: float,
    character_share_max: float,
    tolerance: float = STRATUM_TOLERANCE,
    targets: Mapping[str, Mapping[str, float]] | None = None,
    traffic: Sequence[int] | None = None,
    measures: Measures | None = None,
    seed: int = 0,
) -> Balanced:
    """The largest subset of `indices` within the constraints.

    `traffic` are the rows whose shares the strata follow (by default `indices`).
    `InputDataError` where no set fits: it names a smallest clash and the least relaxation.
    """
    table = TableOne(first_turn_share_min, character_share_max, tolerance, targets or {})
    measures = measures or Measures()
    if not len(indices):
        return Balanced([], achieved_shares(rows, []))
    candidates = np.asarray(indices, np.int64)
    followed = candidates if traffic is None else np.asarray(traffic, np.int64)
    strata = row_strata(rows, followed, measures)
    cells = cells_of(strata, candidates)
    limits = table_one_limits(cells.names, strata, followed, table)
    largest = largest_counts(cells.sizes, limits)
    if largest is None:
        raise InputDataError(_infeasible(cells.names, cells.sizes, limits, table))
    kept = np.sort(_best_of_each(rows, candidates, cells, largest.counts, measures, seed))
    return Balanced(
        kept.tolist(),
        _achieved(strata, kept)
        | {
            "rows_max": largest.rows_max,
            "quality": "ranked" if measures.quality else NOT_APPLICABLE,
            "difficulty": "ranked and kept in thirds" if measures.difficulty else NOT_APPLICABLE,
            "constraints": _report(limits, largest.counts),
        },
        {
            name: _wanted_shares(name, strata.counts(place, followed), table)
            for place, name in enumerate(STRATA, start=1)
        },
    )


def checked(
    rows: Sequence[Row],
    kept: Sequence[int],
    traffic: Sequence[int],
    table: TableOne,
    measures: Measures | None = None,
) -> dict[str, dict[str, float | bool]]:
    """What each constraint comes to in a set, and whether it is `met`: caps exactly, strata to
    within one row, for a set of T rows has no shares between multiples of 1/T."""
    followed, chosen = np.asarray(traffic, np.int64), np.asarray(kept, np.int64)
    strata = row_strata(rows, followed, measures or Measures())
    cells = cells_of(strata, chosen)
    limits = table_one_limits(cells.names, strata, followed, table)
    caps = ("first_turn_share_min", "character_share_max")
    told: dict[str, dict[str, float | bool]] = {}
    for name, found in _report(limits, cells.sizes).items():
        slack = ROUNDING if name in caps else 1 / max(1, len(chosen)) + ROUNDING
        met = found["low"] - slack <= found["share"] <= found["high"] + slack
        told[name] = {**found, "met": met}
    return told


def table_one_limits(
    names: Sequence[tuple[Any, ...]], strata: Strata, traffic: Indices, table: TableOne
) -> list[Limit]:
    """Every constraint as a limit on cells. A dimension with one value in the traffic and no
    target binds nothing; rows without a value count in the whole, but are no stratum."""
    depth = strata.names.index("depth")
    first = tuple(i for i, name in enumerate(names) if name[depth] == FIRST_TURN)
    limits = [Limit("first_turn_share_min", first, low=table.first_turn_share_min)]
    limits += [
        Limit("character_share_max", inside, high=table.character_share_max)
        for inside in _inside(names, 0).values()
    ]
    for position, stratum in enumerate(strata.names[1:], start=1):
        inside = _inside(names, position)
        shares = _wanted_shares(stratum, strata.counts(position, traffic), table)
        limits += [
            Limit(
                f"{stratum} {value!r}",
                inside.get(value, ()),
                low=share - table.tolerance,
                high=share + table.tolerance,
            )
            for value, share in shares.items()
        ]
    return limits


def _inside(names: Sequence[tuple[Any, ...]], position: int) -> dict[Any, tuple[int, ...]]:
    cells: dict[Any, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        if name[position] is not None:
            cells[name[position]].append(index)
    return {value: tuple(cells[value]) for value in sorted(cells)}


def _wanted_shares(stratum: str, counts: Mapping[Any, int], table: TableOne) -> dict[str, float]:
    """The target share of each value: as given, or the traffic's."""
    if stratum in table.targets:
        return dict(table.targets[stratum])
    known = sorted(value for value in counts if value is not None)
    if len(known) < 2:
        return {}
    shares = {value: counts[value] / sum(counts.values()) for value in known}
    return _lifted(shares, table.first_turn_share_min) if stratum == "depth" else shares


def _lifted(shares: Mapping[str, float], first_turn_share_min: float) -> dict[str, float]:
    """Depth shares with first turns at least at their minimum, the rest in proportion."""
    first = shares.get(FIRST_TURN, 0.0)
    if first >= first_turn_share_min or first in (0.0, 1.0):
        return dict(shares)
    scale = (1 - first_turn_share_min) / (1 - first)
    lifted = {value: share * scale for value, share in shares.items()}
    return lifted | {FIRST_TURN: first_turn_share_min}


def best_first(
    rows: Sequence[Row], indices: Indices, of_row: Indices, measures: Measures, seed: int
) -> Indices:
    """Positions in `indices`, cell by cell (`of_row`), the best of a cell first: by the sum of
    their ranks in quality and difficulty (Borda; each counts the same, ours), rows without a
    number last, ties by a hash of seed and row."""
    ranks = np.zeros(len(indices), np.int64)
    for measure in (measures.quality, measures.difficulty):
        if measure is not None:
            numbers = measured(measure, missing=-np.inf, num_rows=len(rows))[indices]
            ranks += _ranks(of_row, numbers)
    ties = hash_shares(f"cell:{seed}:", rows, indices)
    return np.asarray(np.lexsort((ties, ranks, of_row)), np.int64)


def _ranks(of_row: Indices, numbers: npt.NDArray[np.float64]) -> Indices:
    """Within each cell 0 for the largest number; equal numbers share a rank."""
    order = np.lexsort((-numbers, of_row))
    cells, ordered = of_row[order], numbers[order]
    starts = np.concatenate([[True], cells[1:] != cells[:-1]])
    steps = starts | np.concatenate([[True], ordered[1:] != ordered[:-1]])
    place = np.cumsum(steps)
    first_place = np.maximum.accumulate(np.where(starts, place, 0))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = place - first_place
    return ranks


def _best_of_each(
    rows: Sequence[Row],
    indices: Indices,
    cells: Cells,
    counts: Sequence[int],
    measures: Measures,
    seed: int,
) -> Indices:
    """The `counts` best rows of each cell."""
    order = best_first(rows, indices, cells.of_row, measures, seed)
    starts = np.concatenate([[0], np.cumsum(cells.sizes)[:-1]])
    cell = cells.of_row[order]
    place = np.arange(len(order)) - starts[cell]
    return np.asarray(indices[order[place < np.asarray(counts)[cell]]])


def _infeasible(
    names: Sequence[tuple[Any, ...]],
    sizes: Sequence[int],
    limits: Sequence[Limit],
    table: TableOne,
) -> str:
    """Which constraints cannot be met, and the smallest relaxation that would do."""
    clashing = clash(sizes, limits)
    characters = {name[0] for name in names} - {None}
    by = smallest_relaxation(sizes, limits)
    alone = clashing[0] if clashing == tuple(by) and len(clashing) == 1 else None
    if alone == "character_share_max" and len(characters) * table.character_share_max < 1:
        raised = table.character_share_max + round_up(by["character_share_max"])
        return (
            f"curation.character_share_max {table.character_share_max}: {len(characters)} "
            f"characters cannot fill a set with at most {table.character_share_max:.1%} each; it "
            f"takes {int(np.ceil(1 / table.character_share_max))}, or raise it to {raised:.3f}"
        )
    if alone == "first_turn_share_min" and not limits[0].inside:
        return (
            f"curation.first_turn_share_min {table.first_turn_share_min}: the traffic holds no "
            "first turn; set it to 0 for this source"
        )
    return (
        f"curation: {sum(sizes)} rows cannot meet {' and '.join(clashing)} together; the smallest "
        f"relaxation that works: {_described(by, limits, table)}"
    )


def _described(by: Mapping[str, float], limits: Sequence[Limit], table: TableOne) -> str:
    """Each relaxation as the setting to change and its new value."""
    told = []
    for name, share in by.items():
        wider = round_up(share)
        if name == "character_share_max":
            told.append(f"{name} {table.character_share_max + wider:.3f}")
        elif name == "first_turn_share_min":
            told.append(f"{name} {max(0.0, table.first_turn_share_min - wider):.3f}")
        else:
            told.append(f"tolerance {table.tolerance + wider:.3f} for {name}")
    return ", ".join(told)


def _report(limits: Sequence[Limit], counts: Sequence[int]) -> dict[str, dict[str, float]]:
    """Each constraint's limits and the share it came to (of characters, the largest)."""
    total = max(1, sum(counts))
    told: dict[str, dict[str, float]] = {}
    for limit in limits:
        share = sum(counts[index] for index in limit.inside) / total
        if limit.name not in told or share > told[limit.name]["share"]:
            told[limit.name] = {
                "low": max(0.0, limit.low),
                "high": min(1.0, limit.high),
                "share": share,
            }
    return told


def achieved_shares(rows: Sequence[Row], kept: Sequence[int] | Indices) -> dict[str, Any]:
    """Shares of the final set; `not applicable` where no row has the field."""
    chosen = np.asarray(kept, np.int64)
    return _achieved(row_strata(rows, chosen, Measures()), chosen)


def _achieved(strata: Strata, chosen: Indices) -> dict[str, Any]:
    character, *others = (strata.counts(number, chosen) for number in range(len(STRATA)))
    known = [count for value, count in character.items() if value is not None]
    depth = others[STRATA.index("depth")]
    total = max(1, len(chosen))
    return {
        "rows": len(chosen),
        "first_turn_share": depth.get(FIRST_TURN, 0) / total,
        "largest_character_share": max(known) / total if known else NOT_APPLICABLE,
        **{f"{name}_shares": _shares(counts) for name, counts in zip(STRATA, others, strict=False)},
    }


def _shares(counts: Mapping[Any, int]) -> Any:
    if set(counts) <= {None}:
        return NOT_APPLICABLE
    total = sum(counts.values())
    return {str(name): count / total for name, count in sorted(counts.items(), key=str)}
