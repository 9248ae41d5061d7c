"""Table 8 re-run (§3.4): four batches with drift, diagonal gains, and what was forgotten."""

import itertools
import math
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from flywheel_core.annotation.adjudication import has_consensus
from flywheel_core.evaluation.statistics import Interval
from flywheel_core.rewards.changes import Outcome
from flywheel_core.rewards.ledger import (
    Family,
    Ledger,
    Measured,
    correctness,
    extend,
    regressions,
)
from flywheel_core.world.contexts import ChatContext
from tests.bench import Row
from tests.bench.reward_lab import Bench, signed
from tests.bench.reward_samples import Row as Pair
from tests.bench.reward_samples import Wanted, world_pairs

NUM_PAIRS, EVAL_PAIRS = 800, 3000
"""Pairs trained a batch, and evaluated a batch and workflow: for a comparison's half-width of two
points, the drop that counts, 0.15 · (1.96 / 0.02)² = 1,440 unanimous ones, and half of all are."""


def english_talk(context: ChatContext) -> bool:
    return context.language == "en" and context.jtbd in ("chat", "advice")


def english_play(context: ChatContext) -> bool:
    return context.language == "en" and context.jtbd in ("roleplay", "info", "goodbye")


def spanish(context: ChatContext) -> bool:
    return context.language == "es"


def hindi(context: ChatContext) -> bool:
    return context.language == "hi"


BATCHES: tuple[tuple[str, Wanted], ...] = (
    ("English chat and advice", english_talk),
    ("English role-play, facts and goodbyes", english_play),
    ("Spanish", spanish),
    ("Hindi", hindi),
)
"""A product that opens one market after the other; what annotators like stays the same, as §3.4
says of consistent guidelines."""


def interactive(wanted: Wanted) -> Wanted:
    """Chats that have been going on: the annotator talks with the model (two turns or more)."""
    return lambda context: wanted(context) and context.depth >= 2


def drift_ledger(bench: Bench, num_train: int, num_eval: int, seed: int = 0) -> Ledger:
    """Table 8 over `BATCHES`: model k learns from batches 1 … k, every model reads every batch."""
    kinds = ("static", "interactive")
    training: list[Pair] = []
    evaluation: dict[tuple[int, str], list[Pair]] = {}
    models: dict[int, Path] = {}
    for number, (_, wanted) in enumerate(BATCHES, start=1):
        for offset, workflow in enumerate(kinds):
            taken = interactive(wanted) if workflow == "interactive" else wanted
            part = 1000 * seed + 100 * number + offset
            training += world_pairs(num_train // 2, seed=part, wanted=taken, held_out=False)
            asked = world_pairs(num_eval, seed=part + 50, wanted=taken, held_out=True)
            evaluation[number, workflow] = [row for row in asked if has_consensus(row["votes"])]
        models[number] = bench.train_on_pairs("pointwise", training)
    outcomes = [
        Outcome(
            model_generation=model,
            batch_generation=batch,
            workflow=workflow,
            right=tuple(
                correctness(
                    bench.gaps("pointwise", path, pairs), [row["votes"][0] == 1 for row in pairs]
                ).tolist()
            ),
        )
        for model, path in models.items()
        for (batch, workflow), pairs in evaluation.items()
    ]
    ledger = Ledger()
    for generation in models:
        mine = [one for one in outcomes if one.model_generation in (generation - 1, generation)]
        ledger = extend(ledger, generation, {"pointwise_user": Measured(mine, {})})
    return ledger


def diagonal_gains(family: Family) -> dict[tuple[int, str], Interval]:
    """Accuracy of model k minus that of model k − 1 on batch k, pair by pair."""
    return {
        (one.batch_generation, one.workflow): one.difference
        for one in family.comparisons
        if one.batch_generation == one.model_generation and one.difference is not None
    }


def mean_gain(gains: Collection[Interval]) -> Interval:
    """Their mean; batches share no pairs, so variances add."""
    mean = float(np.mean([gain.estimate for gain in gains]))
    half = math.hypot(*(gain.upper - gain.estimate for gain in gains)) / len(gains)
    return Interval(estimate=mean, lower=mean - half, upper=mean + half)


def since_learnt(family: Family) -> dict[tuple[int, str], float]:
    """Accuracy of the last model minus that of model k, on each older batch k."""
    changes = {}
    for number, workflow in itertools.product(range(1, len(BATCHES)), family.workflows):
        last, first = (family.cell(model, number, workflow) for model in (len(BATCHES), number))
        assert last is not None
        assert first is not None
        changes[number, workflow] = last.accuracy.estimate - first.accuracy.estimate
    return changes


def rows(bench: Bench) -> Iterator[Row]:
    """`rm_table8_diagonal_gain` and `rm_table8_forgotten`."""
    ledger = drift_ledger(bench, NUM_PAIRS, EVAL_PAIRS)
    family = ledger.families[0]
    from flywheel_core.report.ledger_chart import render_ledger

    picture = Path("bench_ledger.svg")
    picture.write_text(render_ledger(ledger), encoding="utf-8")
    gains = diagonal_gains(family)
    table = "; ".join(
        f"{workflow} model {model}: "
        + "/".join(
            f"{cell.accuracy.estimate:.3f}"
            for cell in family.cells
            if (cell.workflow, cell.model_generation) == (workflow, model)
        )
        for workflow in family.workflows
        for model in range(1, len(BATCHES) + 1)
    )
    mean = mean_gain(gains.values())
    yield Row(
        "rm_table8_diagonal_gain", mean.estimate, "accuracy", "> 0 on every batch",
        all(gain.estimate > 0 for gain in gains.values()),
        f"model k minus model k-1 on batch k, mean {signed(mean)}: "
        + ", ".join(f"batch {b} {w} {signed(gain)}" for (b, w), gain in gains.items())
        + f"; batches: {', '.join(name for name, _ in BATCHES)}; {table}; drawn in {picture}",
    )  # fmt: skip
    fallen = [one for number in range(1, len(BATCHES) + 1) for one in regressions(family, number)]
    old = [one for one in family.comparisons if one.batch_generation < one.model_generation]
    worst = min(one.difference.estimate for one in old if one.difference is not None)
    kept = ", ".join(
        f"batch {b} {w} {change:+.3f}" for (b, w), change in since_learnt(family).items()
    )
    yield Row(
        "rm_table8_forgotten", float(len(fallen)), "batches", "0", not fallen,
        "drops on old batches of more than 2 points at a false discovery rate of 5 % a generation, "
        f"of {len(old)} comparisons of model k with k-1, pair by pair; the largest drop is "
        f"{worst:+.3f}; the last model minus the one that first learnt the batch: {kept}",
    )  # fmt: skip
