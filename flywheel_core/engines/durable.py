"""Generation in shards that survive a killed job: a retry goes on at the first missing one."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from flywheel_core.artifacts import digest_of
from flywheel_core.engines.base import Completion, Embedder, Generator, Messages, Progress, Scorer
from flywheel_core.engines.config import EmbedderConfig, SamplingConfig
from flywheel_core.engines.embeddings import ShardedEmbedder
from flywheel_core.engines.pool import EnginePool
from flywheel_core.store import write_whole


class DurableEngines:
    """A pool whose generators keep what they have sampled below `folder`.

    `pool` is the pool itself, for online RL: its weights change between calls, so nothing sampled
    from them may be kept.
    """

    def __init__(self, pool: EnginePool, folder: Path, progress: Progress) -> None:
        self.pool = pool
        self.config = pool.config
        self.progress = progress
        self._folder = folder

    def generator(self, model_dir: Path) -> Generator:
        """The generator, serving `model_dir` once something is asked of it."""
        return _DurableGenerator(self, model_dir)

    def scorer(self) -> Scorer:
        """The pool's scorer."""
        return self.pool.scorer()

    def embedder(self, config: EmbedderConfig | None = None) -> Embedder:
        """The pool's embedder, which keeps what it has embedded."""
        return ShardedEmbedder(self.pool.embedder(config), self._folder / "vectors", self.progress)


class _DurableGenerator:
    """The pool's generator for one model, shard by shard."""

    def __init__(self, engines: DurableEngines, model_dir: Path) -> None:
        self._engines = engines
        self._model_dir = model_dir

    def load(self, model_dir: Path) -> str:
        """Serve another checkpoint from now on."""
        self._model_dir = model_dir
        return self._engines.pool.generator(model_dir).load(model_dir)

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: SamplingConfig,
        *,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """As the pool's own, in the order of the prompts."""
        told = progress or self._engines.progress
        found: list[list[Completion]] = [[] for _ in prompts]
        before = 0

        def tell(done: int, total: int, what: str = "") -> None:
            told(before + len(asked) * done // max(1, total), len(prompts), "prompts answered")

        for number, indices in shards(prompts, self._engines.config.shard_prompts):
            asked = [prompts[index] for index in indices]
            answers = self._shard(asked, sampling, number, tell)
            for index, samples in zip(indices, answers, strict=True):
                found[index] = samples
            before += len(indices)
            told(before, len(prompts), "prompts answered")
        return found

    def _shard(
        self,
        prompts: Sequence[Messages],
        sampling: SamplingConfig,
        number: int,
        progress: Progress,
    ) -> list[list[Completion]]:
        """One shard, from its file or from the model; the file appears whole."""
        sampling = sampling.model_copy(update={"seed": seed_of(sampling.seed, number)})
        name = digest_of([str(self._model_dir), sampling.model_dump(), _plain(prompts)])
        path = self._engines._folder / f"{name[:32]}.json"
        kept = _read_shard(path)
        if kept is not None:
            return kept
        generator = self._engines.pool.generator(self._model_dir)
        answers = generator.generate(prompts, sampling, progress=progress)
        write_whole(path, json.dumps([[astuple(one) for one in a] for a in answers]).encode())
        return answers


def _read_shard(path: Path) -> list[list[Completion]] | None:
    """What a shard's file holds; a file that a machine's crash has torn is sampled again."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_bytes())
        return [[Completion(*one) for one in samples] for samples in kept]
    except (TypeError, ValueError):
        path.unlink()
        return None


def shards(prompts: Sequence[Messages], size: int) -> list[tuple[int, list[int]]]:
    """Indices of the prompts in shards of at most `size`, no prompt twice in one.

    A sample's seed comes from its prompt and from its number among equal prompts of one call. So
    the n-th of equal prompts goes into shards numbered n, whose seed `seed_of` sets apart: what is
    drawn depends neither on `size` nor on which shards were there already.
    """
    seen: dict[str, int] = defaultdict(int)
    rounds: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        text = json.dumps(_plain([prompt]))
        rounds[seen[text]].append(index)
        seen[text] += 1
    return [
        (number, indices[start : start + size])
        for number, indices in sorted(rounds.items())
        for start in range(0, len(indices), size)
    ]


def seed_of(seed: int, number: int) -> int:
    """The call's seed for the first of equal prompts; another for each further one."""
    return seed if number == 0 else int(digest_of([seed, number])[:8], 16)


def _plain(prompts: Sequence[Messages]) -> list[list[list[str]]]:
    return [[[turn["role"], turn["content"]] for turn in messages] for messages in prompts]
