"""Phase III: the largest set that keeps Table 1's constraints, solved jointly.

Rows fall into cells (character × language × job × first turn). One integer programme, solved by
HiGHS, picks how many rows of each cell to keep: as many as possible, with each character at most
3 % of the final set, first turns at least 10 %, and languages and jobs near their share of the
traffic. Within a cell the choice is by hash, so it repeats.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flywheel_core.curation.splits import hash_share
from flywheel_core.errors import InputDataError

Cell = tuple[Any, Any, Any, bool]
STRATUM_TOLERANCE = 0.02
"""How far a language's or job's share may lie from its share of the traffic; ours."""


@dataclass(frozen=True)
class Balanced:
    """Indices kept, and what each constraint came to."""

    kept: list[int]
    achieved: dict[str, Any]


def balance(
    rows: Sequence[Mapping[str, Any]],
    indices: Sequence[int],
    *,
    first_turn_share_min: float,
    character_share_max: float,
) -> Balanced:
    """The largest subset of `indices` within the constraints; a field nobody has binds nothing."""
    cells: dict[Cell, list[int]] = defaultdict(list)
    for index in indices:
        row = rows[index]
        cells[(row["character_id"], row["language"], row["jtbd"], row["depth"] == 0)].append(index)
    names = sorted(cells, key=str)
    counts = _solve(
        names, [len(cells[n]) for n in names], first_turn_share_min, character_share_max
    )
    kept = []
    for name, count in zip(names, counts, strict=True):
        ranked = sorted(cells[name], key=lambda i: hash_share(f"cell:{rows[i]['conversation_id']}"))
        kept += ranked[:count]
    return Balanced(sorted(kept), achieved_shares(rows, kept))


def _solve(
    names: Sequence[Cell], sizes: Sequence[int], first_turn_min: float, character_max: float
) -> list[int]:
    from scipy.optimize import Bounds, LinearConstraint, milp

    if not sizes:
        return []
    rows, lower, upper = [], [], []

    def constrain(inside: np.ndarray[Any, Any], share: float, below: float, above: float) -> None:
        """`below`·T ≤ Σ inside − share·T ≤ `above`·T, linear because T is the sum of all."""
        if np.isfinite(below):
            rows.append(inside - share - below)
            lower.append(0.0)
            upper.append(np.inf)
        if np.isfinite(above):
            rows.append(inside - share - above)
            lower.append(-np.inf)
            upper.append(0.0)

    total = sum(sizes)
    constrain(np.array([float(n[3]) for n in names]), first_turn_min, 0.0, np.inf)
    for position, limit in ((0, character_max), (1, None), (2, None)):
        values = {name[position] for name in names} - {None}
        for value in sorted(values):
            inside = np.array([float(name[position] == value) for name in names])
            share = float(inside @ np.array(sizes)) / total
            if limit is not None:
                constrain(inside, limit, -np.inf, 0.0)
            elif len(values) > 1:
                constrain(inside, share, -STRATUM_TOLERANCE, STRATUM_TOLERANCE)
    solved = milp(
        c=-np.ones(len(sizes)),
        constraints=LinearConstraint(np.array(rows), np.array(lower), np.array(upper)),
        integrality=np.ones(len(sizes)),
        bounds=Bounds(0, np.array(sizes, dtype=float)),
        options={"mip_rel_gap": 0.005, "time_limit": 120},
    )
    return _counts(solved, _infeasible(names, sizes, first_turn_min, character_max))


def _counts(solved: Any, infeasible: str) -> list[int]:
    """What HiGHS found. Keeping nothing is always allowed, so no answer at all is not a clash."""
    if solved.x is None:
        raise InputDataError(
            f"curation: the cells could not be balanced ({solved.message}); lower "
            "traffic.num_days, or relax character_share_max or first_turn_share_min"
        )
    found = [round(value) for value in solved.x]
    if not any(found):
        raise InputDataError(infeasible)
    return found


def _infeasible(
    names: Sequence[Cell], sizes: Sequence[int], first_turn_min: float, character_max: float
) -> str:
    """Which constraint cannot be met, and the smallest relaxation that would do."""
    characters = {name[0] for name in names} - {None}
    if characters and len(characters) * character_max < 1:
        least = np.ceil(1000 / len(characters)) / 1000
        return (
            f"curation.character_share_max {character_max}: {len(characters)} characters cannot "
            f"fill a set with at most {character_max:.1%} each; it takes "
            f"{int(np.ceil(1 / character_max))}, or raise it to {least:.3f}"
        )
    first = sum(size for name, size in zip(names, sizes, strict=True) if name[3])
    if not first:
        return (
            f"curation.first_turn_share_min {first_turn_min}: the traffic holds no first turn; "
            "set it to 0 for this source"
        )
    return (
        "curation: the constraints on characters, first turns, languages and jobs clash; relax "
        "character_share_max or first_turn_share_min"
    )


def achieved_shares(rows: Sequence[Mapping[str, Any]], kept: Sequence[int]) -> dict[str, Any]:
    """Shares of the final set; `not applicable` where no row has the field."""
    total = max(1, len(kept))
    characters = Counter(rows[index]["character_id"] for index in kept)
    characters.pop(None, None)
    return {
        "rows": len(kept),
        "first_turn_share": sum(rows[index]["depth"] == 0 for index in kept) / total,
        "largest_character_share": max(characters.values()) / total
        if characters
        else "not applicable",
        **{f"{field}_shares": _shares(rows, kept, field) for field in ("language", "jtbd")},
    }


def _shares(rows: Sequence[Mapping[str, Any]], kept: Sequence[int], field: str) -> Any:
    values = Counter(rows[index][field] for index in kept)
    if set(values) <= {None}:
        return "not applicable"
    return {str(name): count / len(kept) for name, count in sorted(values.items(), key=str)}
