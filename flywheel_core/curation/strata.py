"""Table 1's dimensions: what stratum every row is in, and the cells of equal strata."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from flywheel_core.curation.columns import Encoded, column_of, encoded

STRATA = ("locale", "language", "jtbd", "depth", "difficulty")
"""Table 1's dimensions that follow the traffic or a target."""
DEPTH_BANDS = ((0, "first turn"), (2, "short"), (9, "medium"), (39, "long"))
"""Earlier user turns up to which a conversation is called so (Table 1 gives the two ends: welcome
messages and first impressions, sustained engagement). Past the last, `VERY_LONG`. Ours."""
FIRST_TURN, VERY_LONG = DEPTH_BANDS[0][1], "very long"
DIFFICULTY_BANDS = ("easy", "middling", "hard")
"""Thirds of the traffic by difficulty; ours."""

Row: TypeAlias = Mapping[str, Any]
Measure: TypeAlias = Sequence[float | None]
"""A number for each row, None where it was not measured."""
Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measures:
    """Optional numbers [num_rows]: quality (larger is better) and difficulty (reward variance
    over responses, §3.5.4; larger is harder)."""

    quality: Measure | None = None
    difficulty: Measure | None = None


@dataclass(frozen=True)
class Strata:
    """The value of every dimension for every row: what cells and limits are made of.

    `codes` [num_rows, num_dimensions] are positions in the dimension's `values`.
    """

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]
    codes: npt.NDArray[np.int32]

    def counts(self, dimension: int, indices: Indices) -> dict[Any, int]:
        """How many of the rows `indices` have each value of a dimension, zeros left out."""
        found = np.bincount(self.codes[indices, dimension])
        return {self.values[dimension][code]: int(found[code]) for code in np.flatnonzero(found)}


@dataclass(frozen=True)
class Cells:
    """Rows of equal strata: the cells' values in order, their sizes, and each row's cell."""

    names: list[tuple[Any, ...]]
    sizes: list[int]
    of_row: Indices


def row_strata(rows: Sequence[Row], traffic: Indices, measures: Measures) -> Strata:
    """Character, then `STRATA`, of every row."""
    fields = [encoded(rows, name) for name in ("character_id", "locale", "language", "jtbd")]
    fields += [_depths(rows), _difficulties(len(rows), traffic, measures.difficulty)]
    codes = np.stack([codes for codes, _ in fields], axis=1)
    return Strata(("character", *STRATA), tuple(values for _, values in fields), codes)


def _depths(rows: Sequence[Row]) -> Encoded:
    depths = np.asarray(column_of(rows, "depth"), np.int32)
    codes = np.searchsorted([last for last, _ in DEPTH_BANDS], depths).astype(np.int32)
    return codes, (*(name for _, name in DEPTH_BANDS), VERY_LONG)


def _difficulties(num_rows: int, traffic: Indices, difficulty: Measure | None) -> Encoded:
    """No band, or that of the number by the thirds of the traffic."""
    values = (None, *DIFFICULTY_BANDS)
    numbers = measured(difficulty, missing=np.nan, num_rows=num_rows)
    known = numbers[traffic][~np.isnan(numbers[traffic])]
    if not len(known):
        return np.zeros(num_rows, np.int32), values
    edges = np.quantile(known, [1 / 3, 2 / 3])
    bands = np.where(np.isnan(numbers), 0, 1 + np.searchsorted(edges, numbers))
    return bands.astype(np.int32), values


def measured(measure: Measure | None, *, missing: float, num_rows: int) -> npt.NDArray[np.float64]:
    """A number for each row [num_rows]; `missing` where there is none."""
    if measure is None:
        return np.full(num_rows, missing)
    return np.array([missing if value is None else value for value in measure], np.float64)


def cells_of(strata: Strata, indices: Indices) -> Cells:
    """The cells the rows `indices` fall into, in order of their values' text."""
    widths = tuple(len(values) for values in strata.values)
    numbers = np.ravel_multi_index(tuple(strata.codes[indices].T), widths)
    found, of_row, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    codes = np.stack(np.unravel_index(found, widths), axis=1)
    names = [
        tuple(values[code] for values, code in zip(strata.values, cell, strict=True))
        for cell in codes
    ]
    order = sorted(range(len(names)), key=lambda cell: str(names[cell]))
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    return Cells([names[cell] for cell in order], sizes[order].tolist(), place[of_row])
