"""What each prompt is for: six disjoint splits, stable under new data.

A *unit* (the user where the data has users, else the conversation) goes to training or to
evaluation as a whole, by a hash; so no user is on both sides. Within evaluation, `stop`, `select`
and `gate` divide units again, because a set that selected a checkpoint cannot also gate it.

Four *sides* must share nothing: training, `stop`, `select` and `gate`. A hash decides where a unit
belongs, and new data never moves it. What would still tie two sides together (a conversation of
several users, a near duplicate) is left out on the side that is filled later; evaluation is filled
first.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from flywheel_core.curation.diversity import prompt_key
from flywheel_core.curation.drawing import Drawn, Plan, Pool, in_order
from flywheel_core.curation.hashing import hash_share
from flywheel_core.curation.near_duplicates import NO_GROUPS, FindNear, Groups
from flywheel_core.records import SPLITS, Split

TRAINING_SPLITS: tuple[Split, ...] = ("annotate", "reject", "rl")
EVALUATION_SPLITS: tuple[Split, ...] = ("stop", "select", "gate")
ROUNDING = 1e-9


@dataclass(frozen=True)
class Assigned:
    """Indices of rows by split, and what could not be met. `left_out` counts rows that tie two
    sides together, by what does."""

    by_split: dict[Split, list[int]]
    unit: str
    asked: dict[Split, int]
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def got(self) -> dict[Split, int]:
        return {split: len(rows) for split, rows in self.by_split.items()}


def side_of(split: Split) -> str:
    """The training splits are one side, each evaluation split is its own."""
    return "training" if split in TRAINING_SPLITS else split


class Sides:
    """Which side took which rows, and so which rows no other side may take."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], groups: Groups) -> None:
        self._rows, self._group_of = rows, groups.by_row()
        self._of_group: dict[int, str] = {}
        self._of_conversation: dict[str, str] = {}

    def tie(self, index: int, split: Split) -> str:
        """What ties this row to another side's, or nothing."""
        side = side_of(split)
        conversation = self._rows[index]["conversation_id"]
        if self._of_conversation.get(conversation, side) != side:
            return "conversation"
        group = self._group_of.get(index)
        if group is not None and self._of_group.get(group, side) != side:
            return "near_duplicate"
        return ""

    def take(self, index: int, split: Split) -> None:
        side = side_of(split)
        self._of_conversation[self._rows[index]["conversation_id"]] = side
        if index in self._group_of:
            self._of_group[self._group_of[index]] = side

    def copy(self) -> "Sides":
        """The same, to try an assignment on."""
        other = copy(self)
        other._of_group = dict(self._of_group)
        other._of_conversation = dict(self._of_conversation)
        return other


def unit_of(row: Mapping[str, Any]) -> str:
    """The user where the row has one, else the conversation."""
    if row["user_id"] is None:
        return f"conversation:{row['conversation_id']}"
    return f"user:{row['user_id']}"


def assign(
    rows: Sequence[Mapping[str, Any]],
    order: Sequence[int],
    sizes: Mapping[str, int],
    *,
    first_turn_share_min: float = 0.0,
    character_share_max: float = 1.0,
    rl_digest: str | None = None,
    sides: Sides | None = None,
    rl_older_share_max: float = 0.0,
    plan: Plan | None = None,
) -> Assigned:
    """Assign rows of one surface until each split has its size: by `plan`, those of equal strata
    in the order of `order`.

    A unit's place on the line from 0 to 1 is its hash; the splits divide the line in proportion
    to their sizes, so a unit keeps its split when new data arrives under the same recipe. The
    caps hold for what is taken, exactly; `rl` takes turns served by `rl_digest`, if given, and
    after them those of other models, as long as these are at most `rl_older_share_max` of it.
    `sides` holds what other surfaces took before, and is told what this one takes.
    """
    sides = sides or Sides(rows, NO_GROUPS)
    bounds = _bounds(sizes)
    placed: list[tuple[int, Split]] = []
    for index in order:
        place = hash_share("split:" + unit_of(rows[index]))
        split = next(split for split, upper in bounds if place < upper)
        placed.append((index, split))
    older = {
        index
        for index, split in placed
        if split == "rl" and rl_digest is not None and rows[index]["model_digest"] != rl_digest
    }
    queues = _queues(placed, older)
    plan = plan or in_order(len(rows))
    total = sum(sizes[split] for split in SPLITS)
    while True:
        caps = (
            math.floor(character_share_max * total + ROUNDING),
            math.floor((1 - first_turn_share_min) * total + ROUNDING),
        )
        older_turns = _Older(older, rl_older_share_max)
        drawn = Drawn(plan)
        by_split, left_out = _take(rows, queues, sizes, *caps, older_turns, sides.copy(), drawn)
        got = sum(len(taken) for taken in by_split.values())
        if got == total:
            break
        total = got  # fewer rows than asked: the caps are shares of what there is
    for split, indices in by_split.items():
        for index in indices:
            sides.take(index, split)
    units = {unit_of(rows[index]).split(":")[0] for index in order}
    asked = {split: sizes[split] for split in SPLITS}
    return Assigned(by_split, " and ".join(sorted(units)), asked, left_out)


@dataclass(frozen=True)
class _Older:
    """RL candidates that another model served, and the share of the RL prompts they may be."""

    indices: set[int]
    share_max: float

    def admits(self, index: int, num_taken: int, num_older: int) -> bool:
        """Near-policy turns come first, so the share of what is taken now is the final one."""
        if index not in self.indices:
            return True
        return num_older + 1 <= self.share_max * (num_taken + 1) + ROUNDING


def _queues(placed: Sequence[tuple[int, Split]], older: set[int]) -> list[tuple[Split, list[int]]]:
    """What is drawn from, in turn: where rows are few, the gate's go first; and near-policy turns
    before others."""
    by_turn: dict[tuple[Split, bool], list[int]] = {
        (split, late): [] for split in reversed(SPLITS) for late in (False, True)
    }
    for index, split in placed:
        by_turn[split, index in older].append(index)
    return [(split, indices) for (split, _), indices in by_turn.items() if indices]


def _take(
    rows: Sequence[Mapping[str, Any]],
    queues: Sequence[tuple[Split, list[int]]],
    sizes: Mapping[str, int],
    num_per_character: int,
    num_later_turns: int,
    older: _Older,
    sides: Sides,
    drawn: Drawn,
) -> tuple[dict[Split, list[int]], Counter[str]]:
    """Rows as they are drawn, up to each split's size and the two caps, counted over all splits;
    and how many were left out by what ties them to another side."""
    by_split: dict[Split, list[int]] = {split: [] for split in SPLITS}
    characters: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    later_turns = num_older = 0
    for split, indices in queues:
        pool = Pool(drawn, indices)
        taken = by_split[split]
        while len(taken) < sizes[split] and (index := pool.draw()) is not None:
            character, later = rows[index]["character_id"], rows[index]["depth"] > 0
            if (
                (character is not None and characters[character] >= num_per_character)
                or (later and later_turns >= num_later_turns)
                or not older.admits(index, len(taken), num_older)
            ):
                continue
            tie = sides.tie(index, split)
            if tie:
                left_out[tie] += 1
                continue
            sides.take(index, split)
            drawn.take(index)
            taken.append(index)
            characters[character] += 1
            later_turns += later
            num_older += index in older.indices
    return by_split, left_out


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
    keys: dict[Split, set[str | bytes]] = {split: set() for split in SPLITS}
    for one in assigned:
        for split, indices in one.by_split.items():
            keys[split] |= {prompt_key(rows[index]) for index in indices}
    train = set().union(*(keys[split] for split in TRAINING_SPLITS))
    evaluation = [keys[split] for split in EVALUATION_SPLITS]
    shared = sum(
        len(first & second)
        for position, first in enumerate(evaluation)
        for second in evaluation[position + 1 :]
    )
    return len(train & set().union(*evaluation)), shared


def shared_between_sides(
    rows: Sequence[Mapping[str, Any]], assigned: Sequence[Assigned], find_near: FindNear
) -> dict[str, dict[str, int]]:
    """The proof: how many users, conversations, prompts and near duplicates training shares with
    evaluation, and the evaluation splits with each other. Counted anew from the finished splits."""
    side_by_index = {
        index: side_of(split)
        for one in assigned
        for split, indices in one.by_split.items()
        for index in indices
    }
    group_of = find_near(sorted(side_by_index)).by_row()
    sides_of_group: dict[int, set[str]] = {}
    for index, group in group_of.items():
        sides_of_group.setdefault(group, set()).add(side_by_index[index])
    labels: dict[str, dict[Any, set[str]]] = {name: {} for name in SHARED}
    for index, side in side_by_index.items():
        row = rows[index]
        of_row = (row["user_id"], row["conversation_id"], prompt_key(row))
        for name, label in zip(SHARED, of_row, strict=False):
            if label is not None:
                labels[name].setdefault(label, set()).add(side)
        if index in group_of:
            labels["near_duplicates"][index] = sides_of_group[group_of[index]]
    return {
        "training_and_evaluation": {
            name: sum("training" in sides and len(sides) > 1 for sides in found.values())
            for name, found in labels.items()
        },
        "evaluation_sets": {
            name: sum(len(sides - {"training"}) > 1 for sides in found.values())
            for name, found in labels.items()
        },
    }


SHARED = ("users", "conversations", "prompts", "near_duplicates")
