"""Accuracy against the number of training pairs, below the noise ceiling."""

from collections.abc import Iterator, Sequence

from flywheel_core.evaluation.statistics import Interval
from tests.bench import Row
from tests.bench.reward_lab import Bench, accuracies, noise_ceiling
from tests.bench.reward_samples import world_pairs

SIZES = (125, 250, 500, 1000)
EVAL_PAIRS = 2000


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


def rows(bench: Bench) -> Iterator[Row]:
    """`rm_accuracy_by_pairs`."""
    curve = accuracy_curve(bench, SIZES, EVAL_PAIRS)
    ceiling = noise_ceiling(world_pairs(EVAL_PAIRS, seed=2, held_out=True))
    first, last = (curve[size]["unanimous"] for size in (SIZES[0], SIZES[-1]))
    said = "; ".join(
        f"{size} pairs " + "/".join(f"{one.estimate:.3f}" for one in found.values())
        for size, found in curve.items()
    )
    top = "/".join(f"{one.estimate:.3f}" for one in ceiling.values())
    yield Row(
        "rm_accuracy_by_pairs", last.estimate, "", "above the smallest, beyond both intervals",
        last.lower > first.upper,
        f"unanimous accuracy at {SIZES[-1]} pairs [{last.lower:.3f}, {last.upper:.3f}]; "
        f"single/majority/unanimous by size: {said}; ceiling (true utility) {top}",
    )  # fmt: skip
