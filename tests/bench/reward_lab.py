"""Where reward-model studies are made: training and scoring, and what a label is worth.

The studies are `reward_curve`, `reward_agreement` (Table 9), `reward_drift` (Table 8) and, on real
conversations, `topical_signals`. Each is a function of sizes: small and seeded in CI, at full size
in `make bench ONLY=rewards`. Trainings start from the tiny base model; scores come through vLLM, as
a climb's do.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flywheel_core.annotation.adjudication import has_consensus
from flywheel_core.evaluation.statistics import Interval, wilson_interval
from flywheel_core.jobs.preference_batches import with_reviews
from flywheel_core.rewards.ledger import correctness
from tests.bench.reward_samples import Row as Pair
from tests.bench.reward_samples import true_gaps, write_rows

Kind = Literal["pointwise", "pairwise"]
Reviews = Literal["all", "single", "unanimous"]


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


@contextmanager
def open_bench(folder: Path) -> Iterator[Bench]:
    """A bench whose engine lives as long as the block."""
    from flywheel_core.engines.config import EngineConfig
    from flywheel_core.engines.environment import prepare_environment

    config = EngineConfig(max_model_len=256, num_threads=1)
    prepare_environment(config)
    from flywheel_core.engines.vllm_scorer import VllmScorer

    with closing(VllmScorer(config)) as scorer:
        yield Bench(folder, scorer)


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


def signed(found: Interval) -> str:
    return f"{found.estimate:+.3f} [{found.lower:+.3f}, {found.upper:+.3f}]"
