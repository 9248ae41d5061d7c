"""Pairs: what is filtered and why, what is held out, what DPO's patch takes."""

from typing import Any

import pytest

from flywheel_core.annotation.pairs import (
    Judgement,
    PairDraft,
    filter_pairs,
    is_held_out,
    pair_row,
    patch_rows,
)


def draft(first: str, second: str, conversation: str = "c1") -> PairDraft:
    context: dict[str, Any] = {
        "prompt_id": "p",
        "messages": [{"role": "user", "content": "hi"}],
        "surface": "user",
        "conversation_id": conversation,
        "turn_index": 0,
        "user_id": "u1",
        "character_id": None,
        "locale": None,
        "language": None,
        "jtbd": None,
        "depth": 0,
    }
    return PairDraft(context, first, second, "production", "base")


def test_superficial_pairs_are_dropped_and_counted() -> None:
    pairs = [
        draft("good day", "hello there"),
        draft("same", "same"),
        draft("", "something"),
        draft("short", "a much longer answer than the other one is"),
        draft("plain words", "words 😀😀😀"),
    ]
    kept, dropped = filter_pairs(pairs, length_difference_words_max=5, emoji_difference_max=2)
    assert kept == pairs[:1]
    assert dropped == {"identical": 1, "empty": 1, "length_difference": 1, "emoji_difference": 1}


def test_target_is_the_share_of_votes_for_the_first() -> None:
    assert Judgement((1, 1, 0)).target == pytest.approx(2 / 3)
    assert Judgement((1, 0)).target == 0.5


def test_held_out_share_is_met_and_stable() -> None:
    held = [is_held_out(f"c{i}", 0.2) for i in range(5000)]
    assert sum(held) / 5000 == pytest.approx(0.2, abs=0.02)
    assert held == [is_held_out(f"c{i}", 0.2) for i in range(5000)]


def test_patch_takes_pairs_with_one_faulty_response_that_lost() -> None:
    lost = Judgement((1, 1, 0), {"false_refusal_1": True, "templated_0": False})
    won = Judgement((0, 0, 1), {"false_refusal_1": True})
    both = Judgement((1, 1, 1), {"false_refusal_1": True, "templated_0": True})
    rows = [pair_row(draft("good", "bad"), judged, 0.0) for judged in (lost, won, both)]
    patch = patch_rows(rows, limit=10)
    assert [(row["response_0"], row["response_1"]) for row in patch] == [("good", "bad")]
    assert patch_rows(rows, limit=0) == []
