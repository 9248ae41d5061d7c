"""TRL's generation backend, replaced: weights to our engines, completions back to every rank.

TRL's own colocated vLLM fails on a CPU when it syncs weights (layers there are repacked). Here each
parameter is gathered once, rank 0 writes shards of bounded size, preferably to shared memory, and
the engine reloads them in place.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import save_file
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from flywheel_core.engines.config import SamplingConfig
from flywheel_core.engines.vllm_engine import WeightVersionMismatch
from flywheel_core.errors import TrainingError
from flywheel_core.training.grpo_config import GrpoConfig
from flywheel_core.training.grpo_engines import RlEngines, Rollout
from flywheel_core.training.grpo_ranks import on_main

SHARD_BYTES = 2 * 1024**3
SEED_STRIDE = 1_000_003


class EngineGeneration(VLLMGeneration):
    """Syncs by version and samples by version; a failure on rank 0 is raised on every rank."""

    engines: RlEngines
    config: GrpoConfig
    weights_root: Path

    def _init_vllm(self) -> None:
        self.step: Callable[[], int] = lambda: 0
        self.version = "nothing"
        self.num_nan_logprobs = 0
        self._run = uuid.uuid4().hex[:8]
        self._folder = 0
        self._folders = [self.weights_root / "a", self.weights_root / "b"]

    @property
    def weights_dir(self) -> Path:
        """Where the last synced weights lie (rank 0)."""
        return self._folders[self._folder]

    def sync_weights(self) -> None:
        """Bring the policy's weights into the engine. Collective: every rank takes part."""
        self.version = f"{self._run}-step{self.step()}"
        if not self.accelerator.is_main_process:
            for _ in self._iter_named_params():  # take part in gathering
                pass
        on_main(self._push_weights)

    def sync_once(self, trainer: Any) -> None:
        """Sync unless the engine has the current step's weights, and tell TRL so."""
        step = trainer.state.global_step
        if trainer._last_loaded_step != step:
            self.sync_weights()
            trainer._last_loaded_step = step

    def generate(
        self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None
    ) -> tuple[Any, ...]:
        """Completions of this rank's prompts (which repeat `num_generations` times)."""
        everyone = gather_object(prompts)
        rollout: Rollout = on_main(
            lambda: self._sample(everyone[::num_generations], num_generations)
        )
        first = self.accelerator.process_index * len(prompts)
        mine = slice(first, first + len(prompts))
        self.num_nan_logprobs += rollout.num_nan_logprobs
        token_ids = rollout.token_ids[mine]
        logprobs = [[[value] for value in values] for values in rollout.logprobs[mine]]
        return prompts, token_ids, logprobs, [[[token] for token in ids] for ids in token_ids]

    def ask(self, request: Callable[[], Any]) -> Any:
        """Run a request on rank 0; an engine that lost the weights gets them again, once."""
        try:
            return request()
        except WeightVersionMismatch as error:
            if not self.weights_dir.is_dir():
                raise
            print(f"engine lost the weights ({error}); sending them again", flush=True)
            self.engines.reload(self.weights_dir, self.version)
            return request()

    def close(self) -> None:
        """Remove the synced weights."""
        if self.accelerator.is_main_process:
            shutil.rmtree(self.weights_root, ignore_errors=True)

    def _sample(self, prompt_ids: list[list[int]], num_samples: int) -> Rollout:
        sampling = SamplingConfig(
            temperature=self.config.temperature,
            max_tokens=self.config.max_completion_tokens,
            num_samples=num_samples,
            seed=self.config.seed * SEED_STRIDE + self.step(),
        )
        rollout: Rollout = self.ask(lambda: self.engines.sample(prompt_ids, sampling, self.version))
        check_logprobs(rollout, self.config.nan_logprobs_max)
        return rollout

    def _push_weights(self) -> None:
        """Rank 0. A failure while gathering would desert the other ranks: write, then reload."""
        self._folder = 1 - self._folder
        write_shards(self._iter_named_params(), self.weights_dir)
        self.engines.reload(self.weights_dir, self.version)


def check_logprobs(rollout: Rollout, share_max: float) -> None:
    """Refuse a rollout with too many unusable log-probabilities of the sampler."""
    total = sum(map(len, rollout.logprobs))
    if rollout.num_nan_logprobs > share_max * total:
        raise TrainingError(
            f"{rollout.num_nan_logprobs} of {total} sampled tokens have no log-probability, above "
            f"nan_logprobs_max {share_max}; the policy has diverged: lower learning_rate, or "
            "start again from an earlier checkpoint"
        )


def write_shards(parameters: Iterable[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Write named tensors as a Hugging Face weights folder, in shards of at most `SHARD_BYTES`
    (one tensor may be larger), so that a whole model is never held in memory twice."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shard: dict[str, torch.Tensor] = {}
    shards: list[list[str]] = []
    size = total = 0

    def flush() -> None:
        save_file(shard, folder / f"{len(shards)}.part", {"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name, tensor in parameters:
        num_bytes = tensor.numel() * tensor.element_size()
        if shard and size + num_bytes > SHARD_BYTES:
            flush()
            size = 0
        shard[name] = tensor.detach().to("cpu", copy=True).contiguous()
        size, total = size + num_bytes, total + num_bytes
    flush()
    _name_shards(folder, shards, total)


def _name_shards(folder: Path, shards: list[list[str]], total_bytes: int) -> None:
    """One file is `model.safetensors`; several are numbered and listed in an index."""
    if len(shards) == 1:
        (folder / "0.part").rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"{number}.part").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def weights_root_of(output: Path) -> Path:
    """Where a run's weights pass from trainer to engine: in shared memory where there is some.

    The name follows from the run's output folder, so that a run that was killed and is started
    again reuses the room instead of leaving a model's weights behind.
    """
    name = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:12]
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"flywheel-weights-{name}"


@contextlib.contextmanager
def generation_by(engines: RlEngines, config: GrpoConfig, output: Path) -> Iterator[None]:
    """While a trainer is built: TRL constructs our generation backend instead of its own."""
    attributes = {"engines": engines, "config": config, "weights_root": weights_root_of(output)}
    bound = type("BoundGeneration", (EngineGeneration,), attributes)
    original = grpo_trainer.VLLMGeneration
    grpo_trainer.VLLMGeneration = bound
    try:
        yield
    finally:
        grpo_trainer.VLLMGeneration = original
