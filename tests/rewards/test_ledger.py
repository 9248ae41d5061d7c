"""The ledger: Table 9's rule, intervals, zero-shot cells, and its picture."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from flywheel_core.report.ledger_chart import ledger_chart, render_ledger
from flywheel_core.rewards.changes import Outcome
from flywheel_core.rewards.ledger import (
    Family,
    Ledger,
    Measured,
    correctness,
    extend,
    regressions,
    summary,
)

TABLES = Path(__file__).resolve().parents[2] / "../shared/reference/paper_tables.json"
STATIC = "static"


def outcome(model: int, batch: int, right: list[float], workflow: str = STATIC) -> Outcome:
    return Outcome(
        model_generation=model, batch_generation=batch, workflow=workflow, right=tuple(right)
    )


def extended(
    family: Family, generation: int, outcomes: list[Outcome], num_without: dict[int, int]
) -> Family:
    """The only family of its ledger, after one more generation."""
    measured = {family.model: Measured(outcomes, num_without)}
    return extend(Ledger(families=(family,)), generation, measured).family(family.model)


def draws(rate: float, count: int = 200, seed: int = 0) -> list[float]:
    return (np.random.default_rng(seed).random(count) < rate).astype(float).tolist()


def test_a_tie_of_scores_is_half_right_and_nan_is_no_answer() -> None:
    found = correctness([2.0, -1.0, 0.0, np.nan, -3.0], [True, True, False, True, False])
    assert found[[0, 1, 2, 4]].tolist() == [1.0, 0.0, 0.5, 1.0]
    assert np.isnan(found[3])


def test_a_cell_is_its_share_with_wilsons_interval() -> None:
    right = draws(0.7, 160)
    (cell,) = extended(Family(model="m"), 1, [outcome(1, 1, right)], {}).cells
    lower, upper = proportion_confint(sum(right), 160, method="wilson")
    assert (cell.accuracy.lower, cell.accuracy.upper) == pytest.approx((lower, upper))
    assert cell.accuracy.estimate == sum(right) / 160
    assert not cell.zero_shot


def test_the_model_in_force_gets_its_zero_shot_cell_on_the_new_batch() -> None:
    first = extended(Family(model="m"), 1, [outcome(1, 1, draws(0.7))], {1: 40})
    second = extended(
        first,
        2,
        [
            outcome(1, 1, draws(0.7)),
            outcome(1, 2, draws(0.55, seed=1)),
            outcome(2, 1, draws(0.7)),
            outcome(2, 2, draws(0.8, seed=2)),
        ],
        {2: 30},
    )
    places = {(c.model_generation, c.batch_generation): c.zero_shot for c in second.cells}
    assert places == {(1, 1): False, (1, 2): True, (2, 1): False, (2, 2): False}
    changes = {one.batch_generation: one.change for one in second.comparisons}
    assert changes == {1: "held", 2: "gained"}
    assert second.num_without_consensus == {1: 40, 2: 30}
    told = summary(Ledger(generation=2, families=(second,)))["m"]
    assert set(told["new_batch"]) == {"static, zero-shot", "static, trained"}
    assert told["regressed"] == []


def test_measuring_a_generation_again_replaces_its_cells() -> None:
    once = extended(Family(model="m"), 1, [outcome(1, 1, draws(0.6))], {})
    twice = extended(once, 1, [outcome(1, 1, draws(0.8))], {})
    assert len(twice.cells) == 1
    assert twice.cells[0].accuracy.estimate == sum(draws(0.8)) / 200
    before, after = outcome(1, 1, [1.0] * 40), outcome(2, 1, [0.0] * 20 + [1.0] * 20)
    fallen = extended(twice, 2, [before, after], {})
    again = extended(fallen, 2, [before, outcome(2, 1, [1.0] * 40)], {})
    assert [one.change for one in fallen.comparisons] == ["regressed"]
    assert [one.change for one in again.comparisons] == ["held"]


def test_families_are_judged_together_and_others_rest() -> None:
    """One doubtful loss stands while it is the only question, and falls among four."""
    before = [1.0] * 150 + [0.0] * 50
    doubtful = [0.0] * 9 + [1.0] * 141 + [1.0] + [0.0] * 49
    resting = extended(Family(model="resting"), 1, [outcome(1, 1, before)], {1: 7})

    def measured(*families: str) -> Ledger:
        found = {
            name: Measured(
                [outcome(1, 1, before), outcome(2, 1, doubtful if name == "b" else before)], {}
            )
            for name in families
        }
        return extend(Ledger(generation=1, families=(resting,)), 2, found)

    alone, among = measured("b"), measured("a", "b", "c", "d")
    assert [one.change for one in regressions(alone.family("b"), 2)] == ["regressed"]
    assert regressions(among.family("b"), 2) == []
    assert [family.model for family in among.families] == ["a", "b", "c", "d", "resting"]
    assert among.family("resting") == resting
    (shown,) = among.family("b").comparisons
    assert shown.difference is not None
    assert shown.difference.upper < 0, "the interval is that comparison's own"


def test_a_batch_without_consensus_has_no_cell() -> None:
    found = extended(Family(model="m"), 1, [outcome(1, 1, [])], {1: 12})
    assert found.cells == ()
    assert found.num_without_consensus == {1: 12}
    assert ElementTree.fromstring(render_ledger(Ledger(generation=1, families=(found,))))


def test_it_reads_back_what_it_wrote() -> None:
    family = extended(Family(model="m"), 1, [outcome(1, 1, draws(0.6))], {1: 3})
    ledger = Ledger(generation=1, families=(family,))
    assert Ledger.model_validate_json(ledger.model_dump_json()) == ledger


def test_the_picture_has_every_cell_and_marks_what_fell() -> None:
    ledger = drifting_ledger()
    chart = ledger_chart(ledger)
    assert [panel.title for panel in chart.panels] == [
        "pointwise, user data, static chats",
        "pointwise, user data, interactive chats",
    ]
    boxes = chart.panels[0].boxes
    assert sum(box.kind == "diagonal" for box in boxes) == 3
    assert sum(box.kind == "zero_shot" for box in boxes) == 2
    assert [box.title for box in boxes if box.regressed] == [
        next(b.title for b in boxes if b.title.startswith("model 3 on batch 1"))
    ]
    drawn = ElementTree.fromstring(render_ledger(ledger))
    texts = [element.text for element in drawn.iter() if element.text]
    for box in boxes:
        assert box.text in texts
    assert all(panel.x + panel.width <= chart.width for panel in chart.panels)


def drifting_ledger() -> Ledger:
    """Three generations; the third forgets the first batch."""
    rates = {1: {1: 0.9}, 2: {1: 0.9, 2: 0.8}, 3: {1: 0.6, 2: 0.8, 3: 0.85}}
    family = Family(model="pointwise_user")
    for generation in (1, 2, 3):
        outcomes = []
        for workflow, easier in ((STATIC, 0.0), ("interactive", -0.1)):
            for batch in range(1, generation + 1):
                outcomes += [
                    outcome(model, batch, draws(rates[model].get(batch, 0.6) + easier), workflow)
                    for model in (generation - 1, generation)
                    if model
                ]
        family = extended(family, generation, outcomes, {generation: 100})
    return Ledger(generation=3, families=(family,))


@pytest.mark.skipif(not TABLES.exists(), reason=f"the paper's tables are not here: {TABLES}")
def test_the_papers_own_table_8_fits_the_ledger() -> None:
    """Its 4 × 4 cells for both kinds of chat, at 1,000 pairs a cell (the paper gives no number):
    zero-shot above the diagonal; every batch gains when it is learnt; no drop on an old batch is
    flagged, as §3.4 says, though pairs that nest make the narrowest interval."""
    table = json.loads(TABLES.read_text())["table8_pointwise_accuracy"]
    family = Family(model="pointwise_paper")
    for workflow in ("static", "interactive"):
        before: list[Outcome] = []
        for model, accuracies in enumerate(table[workflow].values(), start=1):
            after = [
                outcome(model, batch, shares(rate), workflow)
                for batch, rate in enumerate(accuracies[:4], start=1)
            ]
            outcomes, before = before + after, after
            family = extended(family, model, outcomes, {})
    zero_shot = [cell.accuracy.estimate for cell in family.cells if cell.zero_shot]
    assert len(family.cells) == 32
    assert len(zero_shot) == 12
    assert 0.49 < min(zero_shot) < max(zero_shot) < 0.63
    old = [one for one in family.comparisons if one.batch_generation < one.model_generation]
    new = [one for one in family.comparisons if one.batch_generation == one.model_generation]
    assert (len(old), len(new)) == (12, 6)
    assert {one.change for one in new} == {"gained"}
    assert all(one.change in ("held", "gained") for one in old)
    drops = [-one.difference.estimate for one in old if one.difference is not None]
    assert max(drops) == pytest.approx(0.020, abs=0.0005)
    assert ElementTree.fromstring(render_ledger(Ledger(generation=4, families=(family,))))


def shares(rate: float, count: int = 1000) -> list[float]:
    return [1.0] * round(rate * count) + [0.0] * (count - round(rate * count))
