"""What was sampled is kept: a killed job loses no more than a shard."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from flywheel_core.engines.base import Completion, Messages, Progress
from flywheel_core.engines.config import EngineConfig, SamplingConfig
from flywheel_core.engines.durable import DurableEngines, seed_of, shards
from flywheel_core.engines.pool import EnginePool
from flywheel_core.engines.vllm_generator import request_seeds

SAMPLING = SamplingConfig(max_tokens=8, num_samples=2, seed=5)


def messages(text: str) -> Messages:
    return [{"role": "system", "content": "Be Ada."}, {"role": "user", "content": text}]


class Counting:
    """A generator that says which model, prompt and seed it was asked for, and fails on demand."""

    def __init__(self, fails_at_call: int | None = None) -> None:
        self.calls: list[int] = []
        self.fails_at_call = fails_at_call
        self.model = ""

    def load(self, model_dir: Path) -> str:
        self.model = model_dir.name
        return self.model

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: SamplingConfig,
        *,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        if len(self.calls) == self.fails_at_call:
            raise KeyboardInterrupt
        self.calls.append(len(prompts))
        return [
            [
                Completion(f"{self.model}/{prompt[-1]['content']}/{sampling.seed}/{n}", 3, "stop")
                for n in range(sampling.num_samples)
            ]
            for prompt in prompts
        ]


def engines(folder: Path, generator: Counting, told: list[tuple[int, int]]) -> DurableEngines:
    pool = EnginePool(EngineConfig(shard_prompts=3), generator=generator)
    return DurableEngines(pool, folder, lambda done, total, what="": told.append((done, total)))


def test_a_retry_goes_on_at_the_first_missing_shard(tmp_path: Path) -> None:
    prompts = [messages(f"prompt {n}") for n in range(8)]
    told: list[tuple[int, int]] = []
    killed = Counting(fails_at_call=2)
    with pytest.raises(KeyboardInterrupt):
        engines(tmp_path, killed, told).generator(Path("m")).generate(prompts, SAMPLING)
    again = Counting()
    answers = engines(tmp_path, again, told).generator(Path("m")).generate(prompts, SAMPLING)
    assert killed.calls == [3, 3]
    assert again.calls == [2]
    assert told == [(3, 8), (6, 8), (3, 8), (6, 8), (8, 8)]
    whole = Counting()
    whole.load(Path("m"))
    assert answers == whole.generate(prompts, SAMPLING)


def test_another_model_seed_or_prompt_is_another_shard(tmp_path: Path) -> None:
    generator = Counting()
    durable = engines(tmp_path, generator, [])
    one = [messages("hi")]
    first = durable.generator(Path("a")).generate(one, SAMPLING)
    second = durable.generator(Path("b")).generate(one, SAMPLING)
    third = durable.generator(Path("b")).generate(one, SAMPLING.model_copy(update={"seed": 6}))
    assert len({answers[0][0].text for answers in (first, second, third)}) == 3
    assert durable.generator(Path("a")).generate(one, SAMPLING) == first
    assert generator.calls == [1, 1, 1]


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_what_is_drawn_does_not_depend_on_the_shards(size: int) -> None:
    prompts = [messages(text) for text in "abcabxaaybc"]
    ids = {text: [ord(text)] for text in "abcxy"}

    def seeds(size: int) -> dict[int, int]:
        found = {}
        for number, indices in shards(prompts, size):
            asked = [ids[prompts[index][-1]["content"]] for index in indices]
            given = request_seeds(asked, seed_of(SAMPLING.seed, number))
            found.update(zip(indices, given, strict=True))
        return found

    assert seeds(size) == seeds(1000)
    assert len(set(seeds(size).values())) == len(prompts)
