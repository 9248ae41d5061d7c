"""The linter: each rule by example, counts before and after, and every row restored exactly."""

import time
from typing import Any

import pytest
from curation_samples import SYSTEM, traffic_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_core.curation.linter import (
    RULES,
    Change,
    Edit,
    apply,
    lint_row,
    lint_rows,
    revert,
    undo,
)
from flywheel_core.evaluation.features import emoji_count, has_list, is_templated

EXAMPLES = [
    ("stock_phrases", "OMG! That is great. LOL. Mind blown! Ok", "That is great. Ok"),
    ("stock_phrases", "lol, I agree", "I agree"),
    ("stock_phrases", "I said lol yesterday", "I said lol yesterday"),
    ("stock_phrases", "Yes.\nOMG that is so\nnice", "Yes.\nthat is so\nnice"),
    ("stock_phrases", "LOLLIPOPS are nice", "LOLLIPOPS are nice"),
    ("stock_phrases", "I love it so. I love it so. I love it so. Yes.", "I love it so. Yes."),
    ("stock_phrases", "No. No. No.", "No. No. No."),
    ("markdown", "This is **bold and", "This is **bold and**"),
    ("markdown", "**closed** and `code`", "**closed** and `code`"),
    ("markdown", "a stray end**", "a stray end"),
    ("markdown", "*waves at you", "*waves at you*"),
    ("markdown", "*waves* **hi", "*waves* **hi**"),
    ("markdown", "2 * 3 = 6 and 5*3", "2 * 3 = 6 and 5*3"),
    ("markdown", "##Title\n#love", "## Title\n#love"),
    ("markdown", "* one\n• two\n- three", "- one\n- two\n- three"),
    ("markdown", "see\n```py\nx = **y", "see\n```py\nx = **y\n```"),
    ("markdown", "```\na `b\n```\ndone", "```\na `b\n```\ndone"),
    ("list_carry_over", "Try:\n- one\n- two.\n3) three\nBye", "Try: one; two. three\nBye"),
    ("list_carry_over", "1. a\n2. b", "a; b"),
    ("list_carry_over", "in 1999. We met", "in 1999. We met"),
    ("emoji_carry_over", "Hi 😂😂 there ❤️! 🔥", "Hi there!"),
    ("emoji_carry_over", "¡Qué día!", "¡Qué día!"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text", "cleaned"), EXAMPLES)
def test_each_rule_by_example(rule: str, text: str, cleaned: str) -> None:
    edits = [edit for edit in RULES[rule](text) if edit.removed != edit.inserted]
    assert apply(text, edits) == cleaned
    assert undo(cleaned, edits) == text
    assert [edit for edit in RULES[rule](cleaned) if edit.removed != edit.inserted] == []


HOSTILE = (
    "\n", " ", "\t", "\n ", " \n", "- ", "\n- ", "\n1. ", "1", "*", "* ", "a*", "**", "`", "```\n",
    "#", "lol ", "omg! ", "! ", ".", "aaaaaaaa. ", "😂", " 😂", "\ufe0f",
)  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_with_the_length_and_not_with_its_square(unit: str) -> None:
    """A hostile text against an eighth of it: 8 times is linear, 64 quadratic."""

    def cpu_s(size: int) -> float:
        text = (unit * size)[:size]
        start = time.process_time()
        for rule in RULES.values():
            apply(text, list(rule(text)))
        return time.process_time() - start

    small = max(min(cpu_s(4_000) for _ in range(3)), 0.001)
    assert min(cpu_s(32_000) for _ in range(2)) / small < 28


def talk(earlier: str, asked: str, response: str) -> dict[str, Any]:
    (row,) = traffic_rows(1)
    row["messages"] = [
        SYSTEM,
        {"role": "user", "content": "Hi **there 😂"},
        {"role": "assistant", "content": earlier},
        {"role": "user", "content": asked},
    ]
    row["response"] = response
    return row


def test_the_users_words_stay_and_lists_and_emoji_go_from_the_history_only() -> None:
    row = talk("OMG! Sure 😂:\n- tea\n- **cake", "OMG lol 😂\n- x", "LOL. 😂 Sure:\n- tea")
    linted = lint_row(row).row
    assert linted["messages"][1] == row["messages"][1]
    assert linted["messages"][3] == row["messages"][3]
    assert linted["messages"][2]["content"] == "Sure: tea; **cake**"
    assert linted["response"] == "😂 Sure:\n- tea"
    assert row["response"] == "LOL. 😂 Sure:\n- tea"


def test_a_turn_is_never_left_empty() -> None:
    row = talk("LOL!", "?", "😂")
    linted = lint_row(row)
    assert linted.row == row
    assert linted.changes == ()


def test_counts_before_and_after_agree_with_the_features_of_the_gates() -> None:
    rows = [
        talk(
            "OMG! Yes." if number % 2 else "Yes.",
            "?",
            "Mind blown! " * (number % 3 == 0) + "So **good" + "." * number,
        )
        for number in range(12)
    ] + [talk("Look 😂:\n- a\n- b", "?", "Fine.")]
    linted = lint_rows(rows)
    assert linted.before == {
        "stock_phrases": 10, "markdown": 12, "list_carry_over": 1, "emoji_carry_over": 1,
    }  # fmt: skip
    assert set(linted.after.values()) == {0}
    history = [one.row["messages"][2]["content"] for one in linted.rows]
    responses = [one.row["response"] for one in linted.rows]
    for feature in (emoji_count, has_list, is_templated):
        assert sum(map(feature, history)) == 0
    assert sum(map(is_templated, responses)) == 0


def test_rules_can_be_chosen_by_name() -> None:
    row = talk("OMG! Yes 😂", "?", "Fine.")
    linted = lint_row(row, {"emoji_carry_over": RULES["emoji_carry_over"]})
    assert linted.row["messages"][2]["content"] == "OMG! Yes"
    assert linted.changes == (Change(2, "emoji_carry_over", (Edit(8, " 😂", ""),)),)


PIECES = st.sampled_from(
    ["OMG! ", "lol ", "Mind blown. ", "**", "*", "`", "```", "\n", "- ", "* ", "• ", "1. ", "##",
     "😂", "❤️", " ", "word", "Yes. ", "I say so. ", "2 * 3", "?", "!", "\ud800", "\r\n"]
)  # fmt: skip
TEXTS = st.lists(PIECES, min_size=1, max_size=25).map("".join).filter(str.strip)


@settings(max_examples=300, deadline=None)
@given(earlier=TEXTS, response=TEXTS)
def test_any_row_is_restored_exactly(earlier: str, response: str) -> None:
    row = talk(earlier, "?", response)
    linted = lint_row(row)
    assert revert(linted) == row
    assert linted.row["response"].strip()


def test_a_text_changed_since_cannot_be_reverted() -> None:
    linted = lint_row(talk("OMG! Yes **now", "?", "Fine."))
    linted.row["messages"][2]["content"] = "else"
    with pytest.raises(ValueError, match="changed after the linter"):
        revert(linted)
