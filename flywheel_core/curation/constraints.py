"""Phase III: the largest set that keeps Table 1's constraints, solved jointly.

Rows fall into cells (character × locale × language × job × depth × difficulty), in one pass.
`counts.py` finds how many rows of each cell to keep: as many as possible, with each character at
most 3 % of the final set, first turns at least 10 %, and every stratum near its share of the
traffic or its target. Within a cell the best rows are taken: by quality and difficulty where they
are given, else by a seeded hash. A field no row has binds nothing and is *not applicable*.

Prompt difficulty is the variance of reward scores over several responses to a prompt (§3.5.4);
it needs a reward model, so it is an optional input.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from flywheel_core.curation.counts import (
    Limit,
    clash,
    largest_counts,
    round_up,
    smallest_relaxation,
)
from flywheel_core.curation.splits import hash_share
from flywheel_core.errors import InputDataError

STRATUM_TOLERANCE = 0.02
"""How far a stratum's share may lie from its share of the traffic, or its target; ours."""
STRATA = ("locale", "language", "jtbd", "depth", "difficulty")
"""Table 1's dimensions that follow the traffic or a target."""
DEPTH_BANDS = ((0, "first turn"), (2, "short"), (9, "medium"), (39, "long"))
"""Earlier user turns up to which a conversation is called so (Table 1 gives the two ends: welcome
messages and first impressions, sustained engagement). Past the last: very long. Ours."""
FIRST_TURN = DEPTH_BANDS[0][1]
DIFFICULTY_BANDS = ("easy", "middling", "hard")
"""Thirds of the traffic by difficulty; ours."""
NOT_APPLICABLE = "not applicable"

Row: TypeAlias = Mapping[str, Any]
Measure: TypeAlias = Sequence[float | None]
"""A number for each row, None where it was not measured."""


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
class Measures:
    """Optional numbers [num_rows]: quality (larger is better) and difficulty (reward variance
    over responses, §3.5.4; larger is harder)."""

    quality: Measure | None = None
    difficulty: Measure | None = None


@dataclass(frozen=True)
class Balanced:
    """Indices kept, and what each constraint came to."""

    kept: list[int]
    achieved: dict[str, Any]


@dataclass(frozen=True)
class Strata:
    """The value of every dimension, by row index: what cells and limits are made of."""

    names: tuple[str, ...]
    of: Callable[[int], tuple[Any, ...]]


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
    if not indices:
        return Balanced([], achieved_shares(rows, []))
    strata = row_strata(rows, traffic or indices, measures)
    cells: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index in indices:
        cells[strata.of(index)].append(index)
    names = sorted(cells, key=str)
    sizes = [len(cells[name]) for name in names]
    limits = table_one_limits(names, strata, traffic or indices, table)
    largest = largest_counts(sizes, limits)
    if largest is None:
        raise InputDataError(_infeasible(names, sizes, limits, table))
    kept = []
    for name, count in zip(names, largest.counts, strict=True):
        kept += best_first(rows, cells[name], measures, seed)[:count]
    return Balanced(
        sorted(kept),
        achieved_shares(rows, kept)
        | {
            "rows_max": largest.rows_max,
            "quality": "ranked" if measures.quality else NOT_APPLICABLE,
            "difficulty": "ranked and kept in thirds" if measures.difficulty else NOT_APPLICABLE,
            "constraints": _report(limits, largest.counts),
        },
    )


def depth_band(depth: int) -> str:
    """What Table 1 calls a conversation of so many earlier user turns."""
    return next((name for last, name in DEPTH_BANDS if depth <= last), "very long")


def row_strata(rows: Sequence[Row], traffic: Sequence[int], measures: Measures) -> Strata:
    """Character, then `STRATA`, of a row by its index."""
    difficulty = measures.difficulty
    edges = _thirds([difficulty[index] for index in traffic]) if difficulty else None

    def values(index: int) -> tuple[Any, ...]:
        row = rows[index]
        hard = None if difficulty is None else _difficulty_band(difficulty[index], edges)
        plain = (row["character_id"], row["locale"], row["language"], row["jtbd"])
        return (*plain, depth_band(row["depth"]), hard)

    return Strata(("character", *STRATA), values)


def _thirds(values: Sequence[float | None]) -> tuple[float, ...] | None:
    known = [value for value in values if value is not None]
    return tuple(np.quantile(known, [1 / 3, 2 / 3])) if known else None


def _difficulty_band(value: float | None, edges: tuple[float, ...] | None) -> str | None:
    if value is None or edges is None:
        return None
    return DIFFICULTY_BANDS[sum(value > edge for edge in edges)]


def table_one_limits(
    names: Sequence[tuple[Any, ...]], strata: Strata, traffic: Sequence[int], table: TableOne
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
    seen = [strata.of(index) for index in traffic]
    for position, stratum in enumerate(strata.names[1:], start=1):
        inside = _inside(names, position)
        shares = _wanted_shares(stratum, [values[position] for values in seen], table)
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


def _wanted_shares(stratum: str, values: Sequence[Any], table: TableOne) -> dict[str, float]:
    """The target share of each value: as given, or the traffic's."""
    if stratum in table.targets:
        return dict(table.targets[stratum])
    counted = Counter(value for value in values if value is not None)
    shares = {value: counted[value] / len(values) for value in sorted(counted)}
    if len(shares) < 2:
        return {}
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
    rows: Sequence[Row], indices: Sequence[int], measures: Measures, seed: int
) -> list[int]:
    """A cell's rows, best first: by the sum of their ranks in quality and difficulty (Borda; each
    counts the same, ours), rows without a number last, ties by a hash of seed and row."""
    ranks = Counter(dict.fromkeys(indices, 0))
    for measure in (measures.quality, measures.difficulty):
        if measure is not None:
            ranks.update(_ranks(indices, measure))
    return sorted(indices, key=lambda i: (ranks[i], hash_share(f"cell:{seed}:{rows[i]['row_id']}")))


def _ranks(indices: Sequence[int], measure: Measure) -> dict[int, int]:
    """0 for the largest number; equal numbers share a rank."""

    def number(index: int) -> float:
        value = measure[index]
        return -np.inf if value is None else value

    place = {value: rank for rank, value in enumerate(sorted(set(map(number, indices)))[::-1])}
    return {index: place[number(index)] for index in indices}


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


def achieved_shares(rows: Sequence[Row], kept: Sequence[int]) -> dict[str, Any]:
    """Shares of the final set; `not applicable` where no row has the field."""
    total = max(1, len(kept))
    characters = Counter(rows[index]["character_id"] for index in kept)
    characters.pop(None, None)
    return {
        "rows": len(kept),
        "first_turn_share": sum(rows[index]["depth"] == 0 for index in kept) / total,
        "largest_character_share": max(characters.values()) / total
        if characters
        else NOT_APPLICABLE,
        **{
            f"{name}_shares": _shares([rows[index][name] for index in kept])
            for name in ("locale", "language", "jtbd")
        },
        "depth_shares": _shares([depth_band(rows[index]["depth"]) for index in kept]),
    }


def _shares(values: Sequence[Any]) -> Any:
    counted = Counter(values)
    if set(counted) <= {None}:
        return NOT_APPLICABLE
    return {str(name): count / len(values) for name, count in sorted(counted.items(), key=str)}
