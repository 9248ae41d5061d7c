"""The linter on a stage's rows: what is changed, what is counted, and every row given back."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from curation_samples import SYSTEM, traffic_rows

from flywheel_core.curation.config import LintRule
from flywheel_core.curation.lint_tables import (
    LINT_EDITS,
    lint_rl_prompts,
    lint_training_rows,
    restored,
)
from flywheel_core.curation.linter import RULES
from flywheel_core.records import SPLITS, read_table, write_table

EARLIER = ("OMG! Sure 😂:\n- tea\n- **cake", "Yes.", "lol, well 🔥", "Try:\n1. rest\n2. walk")
SAID = ("LOL. 😂 Fine **then", "Fine.", "I love it so. I love it so.", "##Title\n* one")


def rows(count: int = 24) -> list[dict[str, Any]]:
    made = traffic_rows(count)
    for number, row in enumerate(made):
        row["messages"] = [
            SYSTEM,
            {"role": "user", "content": "OMG hi 😂"},
            {"role": "assistant", "content": EARLIER[number % 4]},
            {"role": "user", "content": "And **you?"},
        ]
        row |= {"response": SAID[number % 4], "split": SPLITS[number % 6], "source": "base"}
    return made


def test_the_recipe_names_every_rule_there_is() -> None:
    assert get_args(LintRule) == tuple(RULES)


def test_training_rows_are_cleaned_counted_and_given_back(tmp_path: Path) -> None:
    before = rows()
    linted = lint_training_rows(before, tuple(RULES))
    assert linted.rows != before
    assert linted.rows[0]["messages"][2]["content"] == "Sure: tea; **cake**"
    assert linted.rows[0]["response"] == "😂 Fine **then**"
    assert [row["messages"][1]["content"] for row in linted.rows] == ["OMG hi 😂"] * 24
    assert linted.report == {
        "rows": 24,
        "rows_changed": 18,
        "turns_before": {
            "stock_phrases": 24, "markdown": 18, "list_carry_over": 12, "emoji_carry_over": 12,
        },
        "turns_after": dict.fromkeys(RULES, 0),
    }  # fmt: skip
    write_table(tmp_path / "lint.parquet", linted.edits, LINT_EDITS)
    edits = read_table(tmp_path / "lint.parquet", LINT_EDITS).to_pylist()
    assert restored(linted.rows, edits) == before
    json.dumps(linted.report)


def test_of_prompts_only_the_history_of_rl_prompts_is_cleaned() -> None:
    before = rows()
    linted = lint_rl_prompts(before, tuple(RULES))
    changed = [n for n, row in enumerate(linted.rows) if row != before[n]]
    assert changed == [n for n in range(24) if before[n]["split"] == "rl" and n % 4 != 1]
    assert [row["response"] for row in linted.rows] == [row["response"] for row in before]
    assert linted.report["rows"] == 4
    assert linted.report["rows_changed"] == len(changed)
    assert restored(linted.rows, linted.edits) == before


def test_only_the_rules_asked_for_run() -> None:
    linted = lint_training_rows(rows(), ("emoji_carry_over",))
    assert linted.report["turns_before"] == {"emoji_carry_over": 12}
    assert linted.rows[0]["messages"][2]["content"] == "OMG! Sure:\n- tea\n- **cake"
    assert {edit["rule"] for edit in linted.edits} == {"emoji_carry_over"}


def test_rows_that_were_changed_since_are_not_given_back() -> None:
    linted = lint_training_rows(rows(), tuple(RULES))
    linted.rows[0]["response"] = "Else."
    with pytest.raises(ValueError, match="changed after the linter"):
        restored(linted.rows, linted.edits)
