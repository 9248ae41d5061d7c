"""Engines for RL tests without vLLM: seeded random tokens, scores that count a letter."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.engines.base import Messages, ScoreRow
from flywheel_core.engines.config import SamplingConfig
from flywheel_core.engines.vllm_engine import WeightVersionMismatch
from flywheel_core.training.grpo_engines import Rollout, ScoresByModel
from tests.engines.tiny import messages


class FakeRlEngines:
    """`win` is the share of stopping prompts on which the policy beats production."""

    def __init__(self, vocabulary: int, *, win: float = 0.5, nan_every: int = 0) -> None:
        self.vocabulary, self.win, self.nan_every = vocabulary, win, nan_every
        self.version = "nothing"
        self.reloaded: list[str] = []
        self.restart_before_sample = -1
        self.num_samples_calls = 0

    def reload(self, weights_dir: Path, version: str) -> None:
        assert list(weights_dir.glob("*.safetensors"))
        self.version = version
        self.reloaded.append(version)

    def _expect(self, version: str) -> None:
        if version != self.version:
            raise WeightVersionMismatch(f"{version!r} was asked for, serving {self.version!r}")

    def sample(
        self, prompt_ids: list[list[int]], sampling: SamplingConfig, version: str
    ) -> Rollout:
        if self.num_samples_calls == self.restart_before_sample:
            self.version = "base"
        self.num_samples_calls += 1
        self._expect(version)
        ids, logprobs = [], []
        for prompt in prompt_ids:
            rng = random.Random(f"{sampling.seed}/{prompt}")
            for _ in range(sampling.num_samples):
                length = rng.randint(2, sampling.max_tokens)
                ids.append([rng.randrange(5, self.vocabulary) for _ in range(length)])
                logprobs.append([-5.5 + rng.uniform(-0.6, 0.6) for _ in range(length)])
        if self.nan_every:
            logprobs[0][0] = float("nan")
        nans = sum(int(np.isnan(values).sum()) for values in logprobs)
        return Rollout(ids, logprobs, nans)

    def answer(
        self, prompts: Sequence[Messages], sampling: SamplingConfig, version: str
    ) -> list[str]:
        self._expect(version)
        wins = round(self.win * len(prompts))
        return ["good" if index < wins else "bad" for index in range(len(prompts))]

    def score(self, models: Mapping[str, Path], rows: Sequence[ScoreRow]) -> ScoresByModel:
        fixed = {"good": 2.0, "bad": -2.0}
        scores = [
            fixed.get(row[1], 0.1 * row[1].count("e") + 0.01 * (len(row[1]) % 7)) for row in rows
        ]
        return {name: np.array(scores, dtype=np.float32) for name in models}


def write_prompts(folder: Path, num_prompts: int = 16, num_stop: int = 10) -> tuple[Path, Path]:
    """RL prompts and stopping prompts as Parquet."""
    prompts, stop = folder / "prompts.parquet", folder / "stop.parquet"
    rows = [{"prompt_id": str(n), "messages": messages(n)} for n in range(num_prompts)]
    pq.write_table(pa.Table.from_pylist(rows), prompts)
    rows = [
        {
            "prompt_id": f"s{n}",
            "messages": messages(100 + n),
            "production_response": "fine" + "e" * (n % 3),
            "surface": ("internal", "user")[n % 2],
        }
        for n in range(num_stop)
    ]
    pq.write_table(pa.Table.from_pylist(rows), stop)
    return prompts, stop
