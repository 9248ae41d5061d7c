"""What each prompt is for: six disjoint splits, stable under new data.

A *unit* (the user where the data has users, else the conversation) goes to training or to
evaluation as a whole, by a hash; so no user is on both sides. Within evaluation, `stop`, `select`
and `gate` divide units again, because a set that selected a checkpoint cannot also gate it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel_core.curation.diversity import prompt_text
from flywheel_core.records import SPLITS, Split

TRAINING_SPLITS: tuple[Split, ...] = ("annotate", "reject", "rl")
EVALUATION_SPLITS: tuple[Split, ...] = ("stop", "select", "gate")


@dataclass(frozen=True)
class Assigned:
    """Indices of rows by split, and what could not be met."""

    by_split: dict[Split, list[int]]
    unit: str
    asked: dict[Split, int]

    @property
    def got(self) -> dict[Split, int]:
        return {split: len(rows) for split, rows in self.by_split.items()}


def unit_of(row: Mapping[str, Any]) -> str:
    """The user where the row has one, else the conversation."""
    if row["user_id"] is None:
        return f"conversation:{row['conversation_id']}"
    return f"user:{row['user_id']}"


def hash_share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign(
    rows: Sequence[Mapping[str, Any]], order: Sequence[int], sizes: Mapping[str, int]
) -> Assigned:
    """Assign rows of one surface, taken in `order`, until each split has its size.

    A unit's place on the line from 0 to 1 is its hash; the splits divide the line in proportion
    to their sizes, so a unit keeps its split when new data arrives under the same recipe.
    """
    bounds = _bounds(sizes)
    by_split: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for index in order:
        place = hash_share("split:" + unit_of(rows[index]))
        split = next(split for split, upper in bounds if place < upper)
        if len(by_split[split]) < sizes[split]:
            by_split[split].append(index)
    units = {unit_of(rows[index]).split(":")[0] for index in order}
    return Assigned(by_split, " and ".join(sorted(units)), {s: sizes[s] for s in SPLITS})


def _bounds(sizes: Mapping[str, int]) -> list[tuple[Split, float]]:
    total = sum(sizes[split] for split in SPLITS)
    bounds, upper = [], 0.0
    for split in SPLITS:
        upper += sizes[split] / total
        bounds.append((split, upper))
    return [*bounds[:-1], (bounds[-1][0], 1.1)]


def count_overlaps(
    rows: Sequence[Mapping[str, Any]], assigned: Sequence[Assigned]
) -> tuple[int, int]:
    """Evaluation prompts that occur in training, and prompts shared by two evaluation splits."""
    texts: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for one in assigned:
        for split, indices in one.by_split.items():
            texts[split] |= {prompt_text(rows[index]) for index in indices}
    train = set().union(*(texts[split] for split in TRAINING_SPLITS))
    evaluation = [texts[split] for split in EVALUATION_SPLITS]
    shared = sum(
        len(first & second)
        for position, first in enumerate(evaluation)
        for second in evaluation[position + 1 :]
    )
    return len(train & set().union(*evaluation)), shared
