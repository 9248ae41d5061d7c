"""Phase III against an independent check, brute force on small sets, and named clashes."""

import itertools
from collections import Counter

import pytest
from curation_samples import broken_caps, traffic_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_core.curation.constraints import STRATUM_TOLERANCE, balance
from flywheel_core.errors import InputDataError


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(60, 400),
    first_turn_share_min=st.sampled_from([0.0, 0.1, 0.3, 0.5]),
    character_share_max=st.sampled_from([0.03, 0.05, 0.2, 1.0]),
)
def test_whatever_is_kept_keeps_every_constraint(
    seed: int, count: int, first_turn_share_min: float, character_share_max: float
) -> None:
    rows = traffic_rows(count, seed)
    caps = {
        "first_turn_share_min": first_turn_share_min,
        "character_share_max": character_share_max,
    }
    try:
        balanced = balance(rows, range(count), **caps)
    except InputDataError:
        assert character_share_max * count < 4 or first_turn_share_min > 0.2
        return
    kept = [rows[index] for index in balanced.kept]
    assert kept
    assert broken_caps(kept, **caps) == []
    for field in ("language", "jtbd"):
        before, after = (Counter(row[field] for row in some) for some in (rows, kept))
        for value, number in before.items():
            gap = after[value] / len(kept) - number / count
            assert abs(gap) <= STRATUM_TOLERANCE + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_the_largest_set_by_brute_force(seed: int) -> None:
    rows = traffic_rows(11, seed, language=None, jtbd=None)
    for number, row in enumerate(rows):
        row["character_id"] = f"k{(number * number + seed) % 4}"
    caps = {"first_turn_share_min": 0.4, "character_share_max": 0.34}
    largest = max(
        (
            size
            for size in range(len(rows), 0, -1)
            for some in itertools.combinations(rows, size)
            if not broken_caps(some, **caps)
        ),
        default=0,
    )
    if largest:
        assert len(balance(rows, range(11), **caps).kept) == largest
    else:
        with pytest.raises(InputDataError):
            balance(rows, range(11), **caps)


def test_too_few_characters_are_named_with_the_smallest_relaxation() -> None:
    rows = traffic_rows(300)
    for number, row in enumerate(rows):
        row["character_id"] = f"k{number % 33}"
    with pytest.raises(InputDataError, match=r"33 characters.*takes 34, or raise it to 0\.031"):
        balance(rows, range(300), first_turn_share_min=0.1, character_share_max=0.03)


def test_no_first_turn_is_named() -> None:
    rows = traffic_rows(300, depth=2)
    with pytest.raises(InputDataError, match="no first turn"):
        balance(rows, range(300), first_turn_share_min=0.1, character_share_max=0.05)


def test_a_field_nobody_has_binds_nothing_and_is_called_not_applicable() -> None:
    rows = traffic_rows(100, character_id=None, language=None, jtbd=None)
    balanced = balance(rows, range(100), first_turn_share_min=0.0, character_share_max=0.03)
    assert len(balanced.kept) == 100
    for name in ("largest_character_share", "language_shares", "jtbd_shares"):
        assert balanced.achieved[name] == "not applicable"


def test_it_repeats() -> None:
    rows = traffic_rows(400)
    caps = {"first_turn_share_min": 0.3, "character_share_max": 0.03}
    assert balance(rows, range(400), **caps) == balance(rows, range(400), **caps)
    assert balance(rows, [], **caps).kept == []
