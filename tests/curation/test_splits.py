"""Six disjoint splits: stable, by user where users are known, and within the caps."""

from typing import Any

import pytest
from curation_samples import broken_caps, traffic_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_core.curation.splits import (
    EVALUATION_SPLITS,
    TRAINING_SPLITS,
    Assigned,
    assign,
    count_overlaps,
)
from flywheel_core.records import SPLITS

SIZES = dict.fromkeys(SPLITS, 40)


def values(rows: list[dict[str, Any]], assigned: Assigned, field: str) -> dict[str, set[Any]]:
    return {
        split: {rows[index][field] for index in taken} for split, taken in assigned.by_split.items()
    }


@pytest.mark.parametrize("field", ["user_id", "conversation_id", "row_id"])
def test_no_user_conversation_or_row_is_in_two_splits(field: str) -> None:
    rows = traffic_rows(2000)
    found = values(rows, assign(rows, range(2000), SIZES), field)
    assert sum(map(len, found.values())) == len(set().union(*found.values()))


def test_without_users_conversations_stay_whole() -> None:
    rows = traffic_rows(2000, user_id=None)
    for number, row in enumerate(rows):
        row["conversation_id"] = f"c{number // 5}"
    assigned = assign(rows, range(2000), SIZES)
    assert assigned.unit == "conversation"
    found = values(rows, assigned, "conversation_id")
    assert sum(map(len, found.values())) == len(set().union(*found.values()))
    assert assigned.got == SIZES


def test_new_data_moves_nobody() -> None:
    old, new = traffic_rows(1000), traffic_rows(1000, seed=1)
    large = dict.fromkeys(SPLITS, 10_000)
    before = values(old, assign(old, range(1000), large), "user_id")
    after = values(old + new, assign(old + new, range(2000), large), "user_id")
    assert all(before[split] <= after[split] for split in SPLITS)


def test_too_few_rows_fill_the_splits_in_proportion_and_say_so() -> None:
    rows = traffic_rows(3000, user_id=None)
    sizes = dict(zip(SPLITS, (900, 600, 300, 300, 300, 1200), strict=True))
    assigned = assign(rows, range(1500), sizes)
    assert assigned.asked == sizes
    for split in SPLITS:
        assert assigned.got[split] == pytest.approx(1500 * sizes[split] / 3600, rel=0.25)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 1200),
    size=st.integers(1, 200),
    first_turn_share_min=st.sampled_from([0.0, 0.1, 0.3]),
    character_share_max=st.sampled_from([0.03, 0.05, 1.0]),
)
def test_the_caps_hold_for_what_is_taken(
    seed: int, count: int, size: int, first_turn_share_min: float, character_share_max: float
) -> None:
    rows = traffic_rows(count, seed)
    caps = {
        "first_turn_share_min": first_turn_share_min,
        "character_share_max": character_share_max,
    }
    assigned = assign(rows, range(count), dict.fromkeys(SPLITS, size), **caps)
    taken = [rows[index] for indices in assigned.by_split.values() for index in indices]
    assert broken_caps(taken, **caps) == []
    assert all(number <= size for number in assigned.got.values())


def test_rl_takes_only_what_the_parent_served_and_fills_up_with_it() -> None:
    rows = traffic_rows(3000)
    for number, row in enumerate(rows):
        row["model_digest"] = "parent" if number % 3 == 0 else "older"
    assigned = assign(rows, range(3000), SIZES, rl_digest="parent")
    assert {rows[index]["model_digest"] for index in assigned.by_split["rl"]} == {"parent"}
    assert assigned.got == SIZES
    assert {rows[index]["model_digest"] for index in assigned.by_split["gate"]} == {
        "parent",
        "older",
    }


def test_where_the_caps_bind_the_gates_prompts_go_first() -> None:
    rows = traffic_rows(1000)
    assigned = assign(rows, range(1000), dict.fromkeys(SPLITS, 130), character_share_max=0.021)
    assert assigned.got["gate"] == max(assigned.got.values())
    assert sum(assigned.got.values()) < 6 * 130


def test_overlaps_are_counted() -> None:
    rows = traffic_rows(6)
    rows[3]["messages"] = rows[0]["messages"]
    rows[5]["messages"] = rows[4]["messages"]
    by_split = {split: [number] for number, split in enumerate(SPLITS)}
    assert set(by_split) == {*TRAINING_SPLITS, *EVALUATION_SPLITS}
    assert count_overlaps(rows, [Assigned(by_split, "user", {})]) == (1, 1)
