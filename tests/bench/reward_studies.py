"""Studies of reward models where the truth is known, and one where nobody knows it.

Each is a function of sizes. CI runs the accuracy curve and the comparison on conversations small;
Table 9 (`agreement_study`) and Table 8 (`drift_ledger`) take many trainings and run only here.
Trainings start from the tiny base model; scores come through vLLM, as a climb's do.
"""

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flywheel_core.annotation.adjudication import has_consensus
from flywheel_core.evaluation.statistics import Interval, paired_difference, wilson_interval
from flywheel_core.jobs.preference_batches import with_reviews
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
from tests.bench.reward_samples import (
    Row as Pair,
)
from tests.bench.reward_samples import (
    Wanted,
    true_gaps,
    world_pairs,
    write_rows,
)

Kind = Literal["pointwise", "pairwise"]
Reviews = Literal["all", "single", "unanimous"]

CURVE_SIZES = (125, 250, 500, 1000)
CURVE_EVAL_PAIRS = 2000
AGREEMENT_TRAIN_PAIRS, AGREEMENT_EVAL_PAIRS = 400, 2000
DRIFT_PAIRS, DRIFT_EVAL_PAIRS = 240, 500
NUM_RESAMPLES = 2000


def rows() -> Iterator[Row]:
    """Every study at its full size, in the group `rewards`."""
    from flywheel_core.engines.config import EngineConfig
    from flywheel_core.engines.environment import prepare_environment

    config = EngineConfig(max_model_len=256, num_threads=1)
    prepare_environment(config)
    from flywheel_core.engines.vllm_scorer import VllmScorer
    from tests.bench import topical_signals

    with tempfile.TemporaryDirectory(prefix="fw-bench-") as folder:
        bench = Bench(Path(folder), VllmScorer(config))
        yield from curve_rows(bench)
        yield from agreement_rows(bench)
        yield from drift_rows(bench)
        yield from topical_signals.rows(bench)


@dataclass
class Bench:
    """Where models are trained, and the engine that scores them."""

    folder: Path
    scorer: Any
    count: int = 0

    def train(self, kind: Kind | Literal["signal"], path: Path, *, num_epochs: float = 3) -> Path:
        """A model from the tiny base, by the tiny recipe's settings."""
        from flywheel_core.parents import BUILTIN_TINY
        from flywheel_core.training.config import LaunchConfig, RewardModelConfig
        from flywheel_core.training.rewards import RewardModelSpec, run_reward_models

        self.count += 1
        name = f"model-{self.count}"
        config = RewardModelConfig(
            kind=kind,
            learning_rate=1e-3,
            num_epochs=num_epochs,
            global_batch_size=32,
            max_length_tokens=256,
        )
        result = run_reward_models(
            [RewardModelSpec(name, config, path, path)],
            model_dir=BUILTIN_TINY,
            output_dir=self.folder / "models",
            launch_config=LaunchConfig(mode="inline"),
        )
        return result.model_dirs[name]

    def train_on_pairs(self, kind: Kind, pairs: Sequence[Pair], reviews: Reviews = "all") -> Path:
        """From pairs of users who are not held out."""
        import pyarrow.parquet as pq

        assert not any(row["held_out"] for row in pairs), "a held-out user's pairs train nothing"
        path = write_rows(self.folder / f"train-{self.count}.parquet", pairs)
        pq.write_table(with_reviews(pq.read_table(path), reviews), path)
        return self.train(kind, path)

    def gaps(self, kind: Kind, model: Path, pairs: Sequence[Pair]) -> np.ndarray:
        """How much the model prefers `response_0` [n]; pairwise models in both orders."""
        shown: list[Any]
        if kind == "pairwise":
            shown = [(row["messages"], row["response_0"], row["response_1"]) for row in pairs]
            shown += [(row["messages"], row["response_1"], row["response_0"]) for row in pairs]
        else:
            shown = [(row["messages"], row[f"response_{side}"]) for side in (0, 1) for row in pairs]
        scores = np.asarray(self.scorer.score(model, shown), dtype=np.float64)
        return scores[: len(pairs)] - scores[len(pairs) :]


# -- what a label is worth -----------------------------------------------------------------------


def label_sets(pairs: Sequence[Pair]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Three evaluation sets of the same pairs: which rows, and whether the first was better."""
    votes = np.array([row["votes"] for row in pairs])
    agreed = np.array([has_consensus(row["votes"]) for row in pairs])
    every = np.ones(len(pairs), dtype=bool)
    return {
        "single": (every, votes[:, 0] == 1),
        "majority": (every, votes.mean(axis=1) > 0.5),
        "unanimous": (agreed, votes[:, 0] == 1),
    }


def accuracies(gaps: np.ndarray, pairs: Sequence[Pair]) -> dict[str, Interval]:
    """Accuracy on each evaluation set, with Wilson's interval."""
    found = {}
    for name, (taken, better) in label_sets(pairs).items():
        right = correctness(gaps, better)[taken]
        found[name] = wilson_interval(float(right.sum()), len(right))
    return found


def noise_ceiling(pairs: Sequence[Pair]) -> dict[str, Interval]:
    """What the hidden utility itself scores: no model can be expected to do better."""
    return accuracies(true_gaps(pairs), pairs)


# -- accuracy against the number of pairs --------------------------------------------------------


def accuracy_curve(
    bench: Bench, sizes: Sequence[int], num_eval: int, seed: int = 0
) -> dict[int, dict[str, Interval]]:
    """Pointwise accuracy by number of training pairs; each size contains the smaller ones."""
    training = world_pairs(max(sizes), seed=seed * 10 + 1, held_out=False)
    held_out = world_pairs(num_eval, seed=seed * 10 + 2, held_out=True)
    return {
        size: accuracies(
            bench.gaps("pointwise", bench.train_on_pairs("pointwise", training[:size]), held_out),
            held_out,
        )
        for size in sizes
    }


def curve_rows(bench: Bench) -> Iterator[Row]:
    curve = accuracy_curve(bench, CURVE_SIZES, CURVE_EVAL_PAIRS)
    ceiling = noise_ceiling(world_pairs(CURVE_EVAL_PAIRS, seed=2, held_out=True))
    first, last = (curve[size]["unanimous"] for size in (CURVE_SIZES[0], CURVE_SIZES[-1]))
    said = "; ".join(
        f"{size} pairs " + "/".join(f"{one.estimate:.3f}" for one in found.values())
        for size, found in curve.items()
    )
    top = "/".join(f"{one.estimate:.3f}" for one in ceiling.values())
    yield Row(
        "rm_accuracy_by_pairs", last.estimate, "", "above the smallest, beyond both intervals",
        last.lower > first.upper,
        f"unanimous accuracy at {CURVE_SIZES[-1]} pairs [{last.lower:.3f}, {last.upper:.3f}]; "
        f"single/majority/unanimous by size: {said}; ceiling (true utility) {top}",
    )  # fmt: skip


# -- Table 9 -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """Table 9: accuracy by kind, training variant and evaluation set; what was right, pair by pair,
    for paired comparisons; and which pairs each evaluation set takes."""

    accuracy: dict[tuple[Kind, str], dict[str, Interval]]
    right: dict[tuple[Kind, str], dict[str, np.ndarray]]
    taken: dict[str, np.ndarray]

    def difference(self, kind: Kind, one: str, other: str, evaluated_on: str) -> Interval:
        """Variant `one` minus `other` on the same pairs."""
        return paired_difference(
            self.right[kind, one][evaluated_on].tolist(),
            self.right[kind, other][evaluated_on].tolist(),
        )

    def shown_by_consensus(self, kind: Kind, one: str, other: str) -> Interval:
        """The gain of `one` over `other` seen on unanimous pairs minus the gain seen on single
        reviews. Both sets share pairs, so the pairs are drawn again (percentile bootstrap)."""
        gains = {
            labels: self.right[kind, one][labels] - self.right[kind, other][labels]
            for labels in ("unanimous", "single")
        }
        agreed = self.taken["unanimous"]
        spread = np.zeros(len(agreed))
        spread[agreed] = gains["unanimous"]
        random = np.random.default_rng(0)
        drawn = []
        for _ in range(NUM_RESAMPLES):
            rows = random.integers(len(agreed), size=len(agreed))
            among = max(1, int(agreed[rows].sum()))
            drawn.append(spread[rows].sum() / among - gains["single"][rows].mean())
        lower, upper = np.quantile(drawn, (0.025, 0.975))
        estimate = float(gains["unanimous"].mean() - gains["single"].mean())
        return Interval(estimate=estimate, lower=float(lower), upper=float(upper))


VARIANTS: tuple[tuple[str, Reviews], ...] = (
    ("unanimous", "unanimous"),
    ("single_all", "all"),
    ("single_random", "single"),
)


def agreement_study(
    bench: Bench, num_train: int, num_eval: int, kinds: Sequence[Kind] = ("pointwise", "pairwise")
) -> Agreement:
    """§3.4.1 re-run. The paper's baseline is a model not trained on this data set: here one that
    learnt from a quarter as many pairs of the other surface."""
    training = world_pairs(num_train, seed=51, held_out=False)
    held_out = world_pairs(num_eval, seed=52, held_out=True)
    other = world_pairs(num_train // 4, seed=53, surface="internal", held_out=False)
    accuracy: dict[tuple[Kind, str], dict[str, Interval]] = {}
    right: dict[tuple[Kind, str], dict[str, np.ndarray]] = {}
    for kind in kinds:
        models = {"baseline": bench.train_on_pairs(kind, other)}
        models |= {
            name: bench.train_on_pairs(kind, training, reviews) for name, reviews in VARIANTS
        }
        for name, model in models.items():
            gaps = bench.gaps(kind, model, held_out)
            accuracy[kind, name] = accuracies(gaps, held_out)
            right[kind, name] = {
                labels: correctness(gaps, better)[taken]
                for labels, (taken, better) in label_sets(held_out).items()
            }
    taken = {labels: rows for labels, (rows, _) in label_sets(held_out).items()}
    return Agreement(accuracy, right, taken)


def agreement_rows(bench: Bench) -> Iterator[Row]:
    study = agreement_study(bench, AGREEMENT_TRAIN_PAIRS, AGREEMENT_EVAL_PAIRS)
    said = "; ".join(
        f"{kind} {name} {found['single'].estimate:.3f}/{found['unanimous'].estimate:.3f}"
        for (kind, name), found in study.accuracy.items()
    )
    lost = {
        kind: study.difference(kind, "single_random", "unanimous", "unanimous")
        for kind in ("pointwise", "pairwise")
    }
    worst = min(found.estimate for found in lost.values())
    yield Row(
        "rm_single_review_training", worst, "accuracy", ">= -0.02", worst >= -0.02,
        "trained on single reviews minus trained on unanimous pairs, both evaluated on unanimous "
        + ", ".join(f"{kind} {signed(found)}" for kind, found in lost.items())
        + f"; single/unanimous accuracy: {said}",
    )  # fmt: skip
    gains = {
        labels: study.difference("pointwise", "single_random", "baseline", labels)
        for labels in ("single", "unanimous")
    }
    shown = study.shown_by_consensus("pointwise", "single_random", "baseline")
    yield Row(
        "rm_consensus_evaluation", shown.estimate, "accuracy", "> 0, beyond its interval",
        shown.lower > 0,
        "the same training's gain over the baseline, seen on unanimous pairs minus seen on single "
        f"reviews, {signed(shown)} by bootstrap over pairs: "
        + ", ".join(f"{labels} {signed(gain)}" for labels, gain in gains.items()),
    )  # fmt: skip


def signed(found: Interval) -> str:
    return f"{found.estimate:+.3f} [{found.lower:+.3f}, {found.upper:+.3f}]"


# -- Table 8 -------------------------------------------------------------------------------------


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


def drift_ledger(bench: Bench, num_train: int, num_eval: int) -> Ledger:
    """Table 8 over `BATCHES`: model k learns from batches 1 … k, every model reads every batch."""
    kinds = ("static", "interactive")
    training: list[Pair] = []
    evaluation: dict[tuple[int, str], list[Pair]] = {}
    models: dict[int, Path] = {}
    for number, (_, wanted) in enumerate(BATCHES, start=1):
        for offset, workflow in enumerate(kinds):
            taken = interactive(wanted) if workflow == "interactive" else wanted
            seed = 100 * number + offset
            training += world_pairs(num_train // 2, seed=seed, wanted=taken, held_out=False)
            asked = world_pairs(num_eval, seed=seed + 50, wanted=taken, held_out=True)
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


def diagonal_gains(family: Family) -> dict[tuple[int, str], float]:
    """Accuracy of model k minus that of model k − 1, on batch k."""
    gains = {}
    for number, workflow in itertools.product(range(2, len(BATCHES) + 1), family.workflows):
        new, old = (family.cell(model, number, workflow) for model in (number, number - 1))
        assert new is not None
        assert old is not None
        gains[number, workflow] = new.accuracy.estimate - old.accuracy.estimate
    return gains


def since_learnt(family: Family) -> dict[tuple[int, str], float]:
    """Accuracy of the last model minus that of model k, on each older batch k."""
    changes = {}
    for number, workflow in itertools.product(range(1, len(BATCHES)), family.workflows):
        last, first = (family.cell(model, number, workflow) for model in (len(BATCHES), number))
        assert last is not None
        assert first is not None
        changes[number, workflow] = last.accuracy.estimate - first.accuracy.estimate
    return changes


def drift_rows(bench: Bench) -> Iterator[Row]:
    ledger = drift_ledger(bench, DRIFT_PAIRS, DRIFT_EVAL_PAIRS)
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
    mean = float(np.mean(list(gains.values())))
    yield Row(
        "rm_table8_diagonal_gain", mean, "accuracy", "> 0 on every batch",
        all(gain > 0 for gain in gains.values()),
        "model k minus model k-1 on batch k: "
        + ", ".join(f"batch {b} {w} {gain:+.3f}" for (b, w), gain in gains.items())
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
