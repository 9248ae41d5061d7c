"""Pairs: what is filtered and why, what is held out, what DPO's patch takes."""

from dataclasses import replace
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
from flywheel_core.errors import ConfigError
from flywheel_core.records import TIE_VOTE


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
    kept, dropped = filter_pairs(pairs, {"length_words": 5, "emoji_count": 2})
    assert kept == pairs[:1]
    assert dropped == {
        "identical": 1,
        "empty": 1,
        "length_words_difference": 1,
        "emoji_count_difference": 1,
    }


def test_any_registered_feature_filters_and_the_first_limit_broken_is_counted() -> None:
    listed = draft("plain and short words here", "1) one 2) two and words 😀😀😀")
    kept, dropped = filter_pairs([listed], {"list_share": 0, "emoji_count": 1})
    assert (kept, dropped) == ([], {"list_share_difference": 1})
    assert filter_pairs([listed], {"list_share": 1, "emoji_count": 3})[0] == [listed]


def test_a_filter_without_a_feature_or_a_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'sparkle' is not registered; one of: .*emoji_count"):
        filter_pairs([], {"sparkle": 1})
    with pytest.raises(ConfigError, match=r"emoji_count: got -1, must be 0 or more"):
        filter_pairs([], {"emoji_count": -1})


def test_target_is_the_share_of_votes_for_the_first() -> None:
    assert Judgement((1, 1, 0)).target == pytest.approx(2 / 3)
    assert Judgement((1, 0)).target == 0.5


def test_a_tie_counts_one_half_and_an_adjudicator_overrules() -> None:
    assert Judgement((1, TIE_VOTE, 0)).target == 0.5
    assert Judgement((1, TIE_VOTE, TIE_VOTE)).target == pytest.approx(2 / 3)
    assert Judgement((1, 0, 1), adjudicated_vote=0).target == 0.0
    row = pair_row(draft("a", "b"), Judgement((1, 0, 1), adjudicated_vote=0), 0.0, "steerability")
    assert (row["adjudicated"], row["workflow"], row["votes"]) == (True, "steerability", [1, 0, 1])


def test_held_out_share_is_met_and_stable() -> None:
    held = [is_held_out(f"c{i}", 0.2) for i in range(5000)]
    assert sum(held) / 5000 == pytest.approx(0.2, abs=0.02)
    assert held == [is_held_out(f"c{i}", 0.2) for i in range(5000)]


def test_a_user_is_held_out_whole_and_a_conversation_without_one_too() -> None:
    def held_out(user: str | None, conversation: str) -> bool:
        pair = draft("a", "b", conversation)
        context = {**pair.context, "user_id": user}
        return bool(pair_row(replace(pair, context=context), Judgement((1,)), 0.5)["held_out"])

    by_user = [{held_out(f"u{i}", f"c{i}-{j}") for j in range(8)} for i in range(40)]
    assert all(len(found) == 1 for found in by_user)
    assert {True, False} == set().union(*by_user)
    assert {held_out(None, f"c{i}") for i in range(40)} == {True, False}


def test_patch_takes_pairs_with_one_faulty_response_that_lost() -> None:
    lost = Judgement((1, 1, 0), {"false_refusal_1": True, "templated_0": False})
    won = Judgement((0, 0, 1), {"false_refusal_1": True})
    both = Judgement((1, 1, 1), {"false_refusal_1": True, "templated_0": True})
    rows = [pair_row(draft("good", "bad"), judged, 0.0) for judged in (lost, won, both)]
    patch = patch_rows(rows, limit=10)
    assert [(row["response_0"], row["response_1"]) for row in patch] == [("good", "bad")]
    assert patch_rows(rows, limit=0) == []


def test_the_patch_takes_nobody_who_is_held_out() -> None:
    lost = Judgement((1, 1, 0), {"false_refusal_1": True})
    kept, held_out = (
        pair_row(draft(said, "bad"), lost, share)
        for said, share in (("kept", 0.0), ("held out", 1.0))
    )
    patch = patch_rows([held_out, kept], limit=10)
    assert [row["response_0"] for row in patch] == ["kept"]


def test_a_tie_is_no_preference_for_the_patch_and_rewrites_take_half_of_it() -> None:
    tied = pair_row(draft("good", "bad"), Judgement((TIE_VOTE,), {"false_refusal_1": True}), 0.0)
    assert patch_rows([tied], limit=10) == []
    lost = pair_row(draft("good", "bad"), Judgement((1,), {"false_refusal_1": True}), 0.0)
    rewrites = [
        {"messages": [], "response": f"new {i}", "rejected": "old", "held_out": i == 0}
        for i in range(4)
    ]
    patch = patch_rows([lost] * 4, limit=4, rewrites=rewrites)
    assert [row["response_0"] for row in patch] == ["new 1", "new 2", "good", "good"]
