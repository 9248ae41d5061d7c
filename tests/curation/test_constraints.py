"""Phase III against an independent check, brute force on small sets, and named clashes."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from curation_samples import broken_caps, table_one_excess, traffic_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_core.curation import counts
from flywheel_core.curation.constraints import (
    STRATUM_TOLERANCE,
    TableOne,
    balance,
    best_first,
    table_one_limits,
)
from flywheel_core.curation.counts import (
    EXACT_CELLS_MAX,
    GAP_SHARE_MAX,
    Limit,
    clash,
    largest_counts,
    relax,
    round_up,
    smallest_relaxation,
)
from flywheel_core.curation.strata import Measures, cells_of, row_strata
from flywheel_core.errors import InputDataError, SolverGaveUp


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


def instance(seed: int, count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows with uneven strata, some without a value, and constraints; anything may clash."""
    rng = random.Random(seed)
    rows = traffic_rows(count, seed)
    characters = rng.choice([2, 5, 34, 60])
    first_turns, unlabelled = rng.random() * 0.6, rng.choice([0.0, 0.2])
    for row in rows:
        row["character_id"] = f"k{int(characters * rng.random() ** 1.5)}"
        row["depth"] = 0 if rng.random() < first_turns else rng.randint(1, 9)
        row["language"] = None if rng.random() < unlabelled else rng.choice(["en", "en", "es"])
        row["locale"] = rng.choice(["US", "IN"])
    targets = {"language": {"en": rng.random() * 0.8}} if rng.random() < 0.3 else {}
    return rows, {
        "first_turn_share_min": rng.choice([0.0, 0.1, 0.4]),
        "character_share_max": rng.choice([0.03, 0.06, 0.25, 0.5]),
        "tolerance": rng.choice([0.02, 0.05, 0.2]),
        "targets": targets,
    }


def test_200_random_instances_by_an_independent_check() -> None:
    kept_of, infeasible = [], 0
    for seed in range(200):
        rows, constraints = instance(seed, random.Random(seed).randint(20, 200))
        if largest_counts(*limits_of(rows, constraints)) is None:
            infeasible += 1
            with pytest.raises(InputDataError, match=r"relaxation|or raise it|to 0 for"):
                balance(rows, range(len(rows)), **constraints)
            continue
        kept = [rows[index] for index in balance(rows, range(len(rows)), **constraints).kept]
        assert kept
        assert table_one_excess(kept, rows, **constraints) == {}
        kept_of.append(len(kept) / len(rows))
    print(f"\n{len(kept_of)} of 200 feasible, {infeasible} named; mean kept share "
          f"{sum(kept_of) / len(kept_of):.3f}")  # fmt: skip
    assert min(len(kept_of), infeasible) > 40


def limits_of(
    rows: Sequence[dict[str, Any]], constraints: dict[str, Any]
) -> tuple[list[int], list[Limit]]:
    """Sizes of the cells, and Table 1's limits on them."""
    everything = np.arange(len(rows))
    strata = row_strata(rows, everything, Measures())
    cells = cells_of(strata, everything)
    return cells.sizes, table_one_limits(cells.names, strata, everything, TableOne(**constraints))


def all_subsets(rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], ...]]:
    return [some for size in range(len(rows), 0, -1) for some in itertools.combinations(rows, size)]


@pytest.mark.parametrize("seed", range(24))
def test_optimum_clash_and_relaxation_by_brute_force(seed: int) -> None:
    """Every subset of nine rows: the largest that keeps all constraints, whether those named
    clash and whether any could be spared, and the least sum of excesses."""
    rows, constraints = instance(1000 + seed, 9)
    excesses = [
        (len(some), table_one_excess(some, rows, **constraints)) for some in all_subsets(rows)
    ]
    largest = max((size for size, excess in excesses if not excess), default=0)
    sizes, limits = limits_of(rows, constraints)
    if largest:
        assert len(balance(rows, range(9), **constraints).kept) == largest
        assert clash(sizes, limits) == ()
        return

    def can_hold(names: set[str]) -> bool:
        return any(not names & excess.keys() for _, excess in excesses)

    clashing = set(clash(sizes, limits))
    assert clashing
    assert not can_hold(clashing)
    assert all(can_hold(clashing - {name}) for name in clashing)
    by = smallest_relaxation(sizes, limits)
    least = min(sum(excess.values()) for _, excess in excesses)
    assert least - 0.001 * len(by) <= sum(by.values()) <= least + 1e-6
    assert largest_counts(sizes, relax(limits, by)) is not None
    with pytest.raises(InputDataError) as told:
        balance(rows, range(9), **constraints)
    assert all(name in str(told.value) for name in by)


def many_cells(count: int = 6000, seed: int = 3) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = traffic_rows(count, seed)
    for row in rows:
        row["character_id"] = f"k{int(150 * rng.random() ** 4)}"
        row["locale"] = rng.choice(["US", "US", "IN", "MX"])
        row["depth"] = int(rng.expovariate(0.2))
    return rows


def test_with_many_cells_the_set_is_within_a_thousandth_of_the_bound() -> None:
    rows = many_cells()
    constraints = {"first_turn_share_min": 0.3, "character_share_max": 0.03}
    sizes, limits = limits_of(rows, constraints)
    assert len(sizes) > 5 * EXACT_CELLS_MAX
    largest = largest_counts(sizes, limits)
    assert largest is not None
    assert sum(largest.counts) >= (1 - GAP_SHARE_MAX) * largest.rows_max - 1
    balanced = balance(rows, range(len(rows)), **constraints)
    kept = [rows[index] for index in balanced.kept]
    assert broken_caps(kept, **constraints) == []
    assert len(kept) == sum(largest.counts)
    assert largest == largest_counts(sizes, limits)


def test_with_many_cells_the_relaxation_suffices_and_a_smaller_one_does_not() -> None:
    rows = many_cells()
    sizes, limits = limits_of(rows, {"first_turn_share_min": 0.1, "character_share_max": 0.005})
    assert clash(sizes, limits) == ("character_share_max",)
    by = smallest_relaxation(sizes, limits)
    assert by == pytest.approx({"character_share_max": 1 / 150 - 0.005})
    assert largest_counts(sizes, relax(limits, by)) is not None
    assert largest_counts(sizes, relax(limits, {"character_share_max": 0.001})) is None


def test_constraints_that_only_clash_together_are_named_with_what_would_do() -> None:
    rows = traffic_rows(1000, character_id=None, jtbd=None)
    for number, row in enumerate(rows):
        row["language"] = "es" if number % 10 == 0 else "en"
        row["depth"] = 0 if row["language"] == "es" else 1
    with pytest.raises(InputDataError) as told:
        balance(
            rows,
            range(1000),
            first_turn_share_min=0.5,
            character_share_max=0.03,
        )
    text = str(told.value)
    assert "1000 rows cannot meet first_turn_share_min and language" in text
    assert "the smallest relaxation that works" in text


def test_targets_replace_the_traffics_shares_and_a_missing_stratum_is_named() -> None:
    rows = traffic_rows(2000)
    constraints: dict[str, Any] = {"first_turn_share_min": 0.1, "character_share_max": 0.05}
    targets = {"language": {"hi": 0.6}}
    balanced = balance(rows, range(2000), targets=targets, **constraints)
    assert 0.58 <= balanced.achieved["language_shares"]["hi"] <= 0.62
    assert balanced.achieved["constraints"]["language 'hi'"]["share"] == pytest.approx(
        0.6, abs=0.02
    )
    with pytest.raises(InputDataError, match=r"language 'fr'.*tolerance 0\.300 for language 'fr'"):
        balance(rows, range(2000), targets={"language": {"fr": 0.3}}, **constraints)


def test_strata_follow_the_traffic_and_not_what_phase_two_left_of_it() -> None:
    rows = traffic_rows(3000)
    left = [n for n, row in enumerate(rows) if row["language"] == "en" or n % 3]
    balanced = balance(
        rows, left, first_turn_share_min=0.1, character_share_max=0.05, traffic=range(3000)
    )
    share = sum(row["language"] == "en" for row in rows) / 3000
    assert set(balanced.kept) <= set(left)
    assert balanced.achieved["language_shares"]["en"] == pytest.approx(share, abs=0.021)


def test_within_a_cell_the_best_rows_stay() -> None:
    rows = traffic_rows(90, character_id="k", language="en", jtbd="chat", depth=1)
    for number, row in enumerate(rows):
        row["locale"] = "US" if number < 60 else "IN"
    constraints: dict[str, Any] = {
        "first_turn_share_min": 0.0, "character_share_max": 1.0, "tolerance": 0.0,
        "targets": {"locale": {"US": 0.5, "IN": 0.5}},
    }  # fmt: skip
    quality = [float(number % 60) for number in range(90)]
    best = balance(rows, range(90), measures=Measures(quality=quality), **constraints)
    assert best.kept == [*range(30, 60), *range(60, 90)]
    by_hash = [balance(rows, range(90), seed=seed, **constraints).kept for seed in (0, 0, 1)]
    assert by_hash[0] == by_hash[1] != by_hash[2]


def test_quality_and_difficulty_count_the_same_and_the_unmeasured_come_last() -> None:
    rows = traffic_rows(4)
    quality, difficulty = [9.0, 5.0, 1.0, 7.0], [1.0, 9.0, 5.0, None]

    def ranked(**measures: Any) -> list[int]:
        one_cell = np.zeros(4, np.int64)
        return best_first(rows, np.arange(4), one_cell, Measures(**measures), seed=0).tolist()

    both = ranked(quality=quality, difficulty=difficulty)
    assert set(both[:2]) == {0, 1}
    assert set(both[2:]) == {2, 3}
    assert ranked(difficulty=difficulty) == [1, 2, 0, 3]
    assert ranked(quality=quality) == [0, 3, 1, 2]


def test_ranks_are_of_a_cell_and_equal_numbers_share_one() -> None:
    rows = traffic_rows(6)
    quality, difficulty = [5.0, 5.0, 7.0, 9.0, 9.0, 1.0], [3.0, 2.0, 1.0, 8.0, 9.0, 0.0]
    measures = Measures(quality=quality, difficulty=difficulty)
    of_row = np.array([1, 1, 1, 0, 0, 0])
    order = best_first(rows, np.arange(6), of_row, measures, seed=0).tolist()
    assert order == [4, 3, 5, 0, *order[4:]], "cell 0 first; ranks 0+0, 0+1, 1+2; then 1+0"
    assert set(order[4:]) == {1, 2}


def test_difficulty_keeps_its_thirds_where_it_is_given_and_binds_nothing_where_not() -> None:
    rows = traffic_rows(1200)
    rng = random.Random(9)
    difficulty = [rng.random() ** 3 for _ in rows]
    left = [n for n in range(1200) if difficulty[n] > 0.3 or n % 4 == 0]
    measured = balance(
        rows, left, first_turn_share_min=0.1, character_share_max=0.05, traffic=range(1200),
        measures=Measures(difficulty=difficulty),
    ).achieved["constraints"]  # fmt: skip
    for band in ("easy", "middling", "hard"):
        assert measured[f"difficulty {band!r}"]["share"] == pytest.approx(1 / 3, abs=0.021)
    plain = balance(rows, left, first_turn_share_min=0.1, character_share_max=0.05)
    assert not [name for name in plain.achieved["constraints"] if name.startswith("difficulty")]
    assert plain.achieved["difficulty"] == "not applicable"


def test_depth_bands_run_from_the_first_turn_to_sustained_engagement() -> None:
    rows = [
        {**row, "depth": depth}
        for row, depth in zip(traffic_rows(8), (0, 1, 2, 3, 9, 10, 39, 40), strict=True)
    ]
    strata = row_strata(rows, np.arange(8), Measures())
    depth = strata.names.index("depth")
    assert [strata.values[depth][code] for code in strata.codes[:, depth]] == [
        "first turn", "short", "short", "medium", "medium", "long", "long", "very long",
    ]  # fmt: skip


def test_relaxations_are_rounded_up_to_a_tenth_of_a_percent() -> None:
    assert [round_up(share) for share in (0.0, 1 / 33 - 0.03, 0.002, 0.0021)] == [
        0.0, 0.001, 0.002, 0.003,
    ]  # fmt: skip


def test_a_solver_that_gives_up_says_so_and_names_no_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six strata of twelve cells, which take a few nodes of branch and bound; then none."""
    rng = random.Random(0)
    sizes = [rng.randint(1, 40) for _ in range(12)]
    limits = []
    for number in range(6):
        inside = tuple(cell for cell in range(12) if rng.random() < 0.5)
        share = sum(sizes[cell] for cell in inside) / sum(sizes)
        limits.append(Limit(f"l{number}", inside, low=share - 0.003, high=share + 0.003))
    found = largest_counts(sizes, limits)
    assert found is not None
    assert sum(found.counts) > 0
    monkeypatch.setattr(counts, "NODES_MAX", 0)
    for ask in (largest_counts, clash):
        with pytest.raises(SolverGaveUp, match="within 0 nodes, and no proof that there is none"):
            ask(sizes, limits)
    impossible = [Limit("low", (0,), low=0.6), Limit("high", (0,), high=0.5)]
    assert clash([10, 10], impossible) == ("low", "high")
