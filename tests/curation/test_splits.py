"""Six disjoint splits: stable, by user where users are known, and within the caps."""

from functools import partial
from typing import Any

import pytest
from curation_samples import broken_caps, traffic_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flywheel_core.curation.near_duplicates import FindNear, near_duplicates
from flywheel_core.curation.section import CurationSection
from flywheel_core.curation.splits import (
    EVALUATION_SPLITS,
    TRAINING_SPLITS,
    Assigned,
    Sides,
    assign,
    count_overlaps,
    shared_between_sides,
)
from flywheel_core.records import SPLITS

SIZES = dict.fromkeys(SPLITS, 40)


def near(rows: list[dict[str, Any]]) -> FindNear:
    return partial(near_duplicates, rows)


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


def conversations_of_two_users(count: int) -> list[dict[str, Any]]:
    """Two rows a conversation, each of another user."""
    rows = traffic_rows(count)
    for number, row in enumerate(rows):
        row["conversation_id"] = f"c{number // 2}"
    return rows


def test_a_conversation_of_several_users_stays_on_one_side() -> None:
    rows = conversations_of_two_users(1000)
    plain = assign(rows, range(1000), SIZES)
    assert plain.unit == "user"
    assert plain.left_out["conversation"] > 0
    shared = shared_between_sides(rows, [plain], near(rows))
    for told in shared.values():
        assert (told["users"], told["conversations"]) == (0, 0)


def with_copies(count: int) -> list[dict[str, Any]]:
    """Rows of twelve words of their own, each followed by another user's copy with one more."""
    rows = traffic_rows(2 * count)
    for number, row in enumerate(rows):
        text = " ".join(f"w{number // 2}x{place}" for place in range(12))
        more = " indeed" if number % 2 else ""
        row["messages"] = [row["messages"][0], {"role": "user", "content": text + more}]
    return rows


def test_near_duplicates_stay_on_one_side_and_evaluation_keeps_its_own() -> None:
    rows = with_copies(500)
    sides = Sides(rows, near_duplicates(rows, range(1000)))
    apart = assign(rows, range(1000), SIZES, sides=sides)
    assert apart.left_out["near_duplicate"] > 0
    told = shared_between_sides(rows, [apart], near(rows))
    assert {count for counts in told.values() for count in counts.values()} == {0}
    plain = assign(rows, range(1000), SIZES)
    assert (
        shared_between_sides(rows, [plain], near(rows))["training_and_evaluation"][
            "near_duplicates"
        ]
        > 0
    )
    assert apart.by_split["gate"] == plain.by_split["gate"]


def test_short_prompts_of_equal_words_stay_on_one_side_and_are_counted_in_the_proof() -> None:
    rows = traffic_rows(600)
    for number, row in enumerate(rows):
        text = f"what is {number // 2} plus two" + "?" * (number % 2)
        row["messages"] = [row["messages"][0], {"role": "user", "content": text}]
    plain = shared_between_sides(rows, [assign(rows, range(600), SIZES)], near(rows))
    assert plain["training_and_evaluation"]["near_duplicates"] > 20
    assert plain["training_and_evaluation"]["prompts"] == 0
    sides = Sides(rows, near_duplicates(rows, range(600)))
    apart = assign(rows, range(600), SIZES, sides=sides)
    assert apart.left_out["near_duplicate"] > 0
    told = shared_between_sides(rows, [apart], near(rows))
    assert {told[sides]["near_duplicates"] for sides in told} == {0}
    assert apart.by_split["gate"] == assign(rows, range(600), SIZES).by_split["gate"]


def test_the_proof_is_counted_anew_and_finds_what_is_shared() -> None:
    rows = with_copies(8)
    rows[4]["conversation_id"] = rows[6]["conversation_id"] = "c"
    rows[8]["user_id"] = rows[10]["user_id"] = "u"
    by_split = {split: [] for split in SPLITS} | {
        "annotate": [0, 4, 12], "reject": [13], "gate": [1, 6, 8], "stop": [10],
    }  # fmt: skip
    told = shared_between_sides(rows, [Assigned(by_split, "user", {})], near(rows))
    assert told == {
        "training_and_evaluation": {
            "users": 0, "conversations": 1, "prompts": 0, "near_duplicates": 2,
        },
        "evaluation_sets": {"users": 1, "conversations": 0, "prompts": 0, "near_duplicates": 0},
    }  # fmt: skip


def test_surfaces_share_the_sides() -> None:
    rows = with_copies(500)
    sides = Sides(rows, near_duplicates(rows, range(1000)))
    both = [assign(rows, range(start, 1000, 2), SIZES, sides=sides) for start in (0, 1)]
    assert both[1].left_out["near_duplicate"] > 0
    told = shared_between_sides(rows, both, near(rows))["training_and_evaluation"]
    assert told["near_duplicates"] == 0


def test_new_data_moves_no_row_to_another_side() -> None:
    rows = with_copies(800)
    large = dict.fromkeys(SPLITS, 10_000)

    def sides_of(count: int) -> dict[str, str]:
        sides = Sides(rows, near_duplicates(rows, range(count)))
        found = assign(rows, range(count), large, sides=sides).by_split
        return {rows[i]["row_id"]: split for split, taken in found.items() for i in taken}

    before, after = sides_of(900), sides_of(1600)
    assert {after[row] == split for row, split in before.items() if row in after} == {True}
    assert len(before.keys() - after.keys()) < 0.5 * len(before)


def test_a_recipe_that_leaves_no_character_a_prompt_is_refused() -> None:
    sizes = dict.fromkeys(SPLITS, 5)
    with pytest.raises(ValidationError, match=r"of the 30 prompts of prompts_per_surface"):
        CurationSection(prompts_per_surface=sizes)
    assert CurationSection(prompts_per_surface=dict.fromkeys(SPLITS, 6))
