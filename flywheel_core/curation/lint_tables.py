"""The linter on what a stage writes: supervised rows and RL prompts (Table 7, §3.5.6).

Every edit is kept in a table of its own beside the rows (`lint.parquet`), so `restored` gives each
row back as it was. An RL prompt is what the policy reads: its history is cleaned, and the response
that traffic gave stays the record it is.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flywheel_core.curation.config import LintRule
from flywheel_core.curation.linter import (
    RULES,
    Change,
    Edit,
    LintedRow,
    lint_rows,
    revert,
)

LINT_FILE = "lint.parquet"
LINT_EDITS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("removed", pa.string(), nullable=False),
        pa.field("inserted", pa.string(), nullable=False),
    ]
)
"""`row` counts from 0 in the table beside it; `turn` is the place in `messages`, or -1 for the
response. The edits of a row are in the order in which they were made."""


@dataclass(frozen=True)
class LintedTable:
    """Rows after the rules, their edits (rows of `LINT_EDITS`), and counts of turns by rule."""

    rows: list[dict[str, Any]]
    edits: list[dict[str, Any]]
    report: dict[str, Any]


def lint_training_rows(rows: Sequence[Mapping[str, Any]], rules: Sequence[LintRule]) -> LintedTable:
    """Supervised rows: the assistant's turns, and the response that is learned."""
    return _lint(rows, range(len(rows)), rules, with_response=True)


def lint_rl_prompts(prompts: Sequence[Mapping[str, Any]], rules: Sequence[LintRule]) -> LintedTable:
    """Prompts of every split (`records.PROMPTS`): those of `rl` are cleaned, no other is."""
    chosen = [index for index, prompt in enumerate(prompts) if prompt["split"] == "rl"]
    return _lint(prompts, chosen, rules, with_response=False)


def _lint(
    rows: Sequence[Mapping[str, Any]],
    indices: Sequence[int],
    rules: Sequence[LintRule],
    *,
    with_response: bool,
) -> LintedTable:
    made = [dict(row) for row in rows]
    asked = [made[index] if with_response else {**made[index], "response": ""} for index in indices]
    linted = lint_rows(asked, {name: RULES[name] for name in RULES if name in rules})
    edits = []
    for index, one in zip(indices, linted.rows, strict=True):
        made[index] |= {"messages": one.row["messages"]}
        if with_response:
            made[index] |= {"response": one.row["response"]}
        edits += _edit_rows(index, one)
    changed = len({edit["row"] for edit in edits})
    counts = {"turns_before": linted.before, "turns_after": linted.after}
    return LintedTable(made, edits, {"rows": len(asked), "rows_changed": changed, **counts})


def _edit_rows(index: int, linted: LintedRow) -> list[dict[str, Any]]:
    return [
        {
            "row": index,
            "turn": change.turn,
            "rule": change.rule,
            "start": edit.start,
            "removed": edit.removed,
            "inserted": edit.inserted,
        }
        for change in linted.changes
        for edit in change.edits
    ]


def restored(
    rows: Sequence[Mapping[str, Any]], edits: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows as they were before the linter; `ValueError` where one was changed since."""
    found: dict[int, dict[tuple[str, int], list[Edit]]] = defaultdict(dict)
    for edit in edits:
        one = Edit(edit["start"], edit["removed"], edit["inserted"])
        found[edit["row"]].setdefault((edit["rule"], edit["turn"]), []).append(one)
    made = [dict(row) for row in rows]
    for index, by_place in found.items():
        changes = tuple(Change(turn, rule, tuple(some)) for (rule, turn), some in by_place.items())
        made[index] |= revert(LintedRow(made[index], changes))
    return made
