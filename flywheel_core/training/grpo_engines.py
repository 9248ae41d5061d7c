"""The engines that RL samples from and is rewarded by: in this process, or in a Ray actor.

The trainer names the weights it expects with every call (`version`). An engine that was restarted
serves something else, refuses, is given the last synced weights, and is asked again.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flywheel_core.engines.base import Messages, ScoreRow
from flywheel_core.engines.config import EngineConfig, SamplingConfig
from flywheel_core.engines.environment import prepare_environment, variables
from flywheel_core.engines.vllm_engine import NOTHING

ScoresByModel = dict[str, npt.NDArray[np.float32]]
ACTOR_RESTARTS_MAX = 3


@dataclass(frozen=True)
class Rollout:
    """Sampled completions, prompt by prompt and sample by sample, as flat lists."""

    token_ids: list[list[int]]
    logprobs: list[list[float]]
    num_nan_logprobs: int


class RlEngines(Protocol):
    """What the trainer asks for. Every method may be called from any rank."""

    def reload(self, weights_dir: Path, version: str) -> None:
        """Serve these weights under this name."""

    def sample(
        self, prompt_ids: list[list[int]], sampling: SamplingConfig, version: str
    ) -> Rollout:
        """Completions with log π_gen."""

    def answer(
        self, prompts: Sequence[Messages], sampling: SamplingConfig, version: str
    ) -> list[str]:
        """One response a prompt."""

    def score(self, models: Mapping[str, Path], rows: Sequence[ScoreRow]) -> ScoresByModel:
        """Raw logits of each reward model."""


class LocalEngines:
    """The engines of this process. `generator` and `scorer` may be shared with other stages."""

    def __init__(
        self,
        config: EngineConfig,
        model_dir: Path,
        *,
        generator: Any = None,
        scorer: Any = None,
    ) -> None:
        prepare_environment(config)
        from flywheel_core.engines.vllm_generator import VllmGenerator
        from flywheel_core.engines.vllm_scorer import VllmScorer

        self._model_dir = model_dir
        self._generator = generator or VllmGenerator(config)
        self._scorer = scorer or VllmScorer(config)
        self._generator.load(model_dir)

    def reload(self, weights_dir: Path, version: str) -> None:
        """Serve these weights under this name."""
        if self._generator.version == NOTHING:
            self._generator.load(self._model_dir)
        self._generator.reload(weights_dir, version)

    def sample(
        self, prompt_ids: list[list[int]], sampling: SamplingConfig, version: str
    ) -> Rollout:
        """Completions with log π_gen."""
        sampled = self._generator.generate_ids(
            prompt_ids, sampling, logprobs=True, expected_version=version
        )
        flat = [sample for samples in sampled for sample in samples]
        logprobs = [list(sample.logprobs) for sample in flat]
        num_nan = sum(int(np.isnan(values).sum()) for values in logprobs)
        return Rollout([list(sample.token_ids) for sample in flat], logprobs, num_nan)

    def answer(
        self, prompts: Sequence[Messages], sampling: SamplingConfig, version: str
    ) -> list[str]:
        """One response a prompt."""
        completions = self._generator.generate(prompts, sampling, expected_version=version)
        return [samples[0].text for samples in completions]

    def score(self, models: Mapping[str, Path], rows: Sequence[ScoreRow]) -> ScoresByModel:
        """Raw logits of each reward model."""
        return {name: self._scorer.score(path, rows) for name, path in models.items()}


class RayEngines:
    """The same engines in named Ray actors, reachable from every rank. Picklable.

    On a CPU one actor holds both engines (1.9 GB); on a GPU the scorer has an actor of its own,
    because two engines cannot share one card's memory setting.
    """

    def __init__(self, sampler: str, scorer: str, namespace: str) -> None:
        self._names = {"sampler": sampler, "scorer": scorer}
        self._namespace = namespace

    def _ask(self, which: str, method: str, *arguments: Any) -> Any:
        import ray

        actor = ray.get_actor(self._names[which], namespace=self._namespace)
        return ray.get(getattr(actor, method).remote(*arguments))

    def reload(self, weights_dir: Path, version: str) -> None:
        """Serve these weights under this name."""
        self._ask("sampler", "reload", weights_dir, version)

    def sample(
        self, prompt_ids: list[list[int]], sampling: SamplingConfig, version: str
    ) -> Rollout:
        """Completions with log π_gen."""
        rollout: Rollout = self._ask("sampler", "sample", prompt_ids, sampling, version)
        return replace(rollout)

    def answer(
        self, prompts: Sequence[Messages], sampling: SamplingConfig, version: str
    ) -> list[str]:
        """One response a prompt."""
        answers: list[str] = self._ask("sampler", "answer", list(prompts), sampling, version)
        return answers

    def score(self, models: Mapping[str, Path], rows: Sequence[ScoreRow]) -> ScoresByModel:
        """Raw logits of each reward model."""
        scores: ScoresByModel = self._ask("scorer", "score", dict(models), list(rows))
        return scores


def start_ray_engines(config: EngineConfig, model_dir: Path, run_name: str) -> RayEngines:
    """Start the actors in the current Ray session; they end with the driver."""
    import ray

    namespace = ray.get_runtime_context().namespace
    separate = config.device == "cuda"
    names = [f"{run_name}-engines"] + ([f"{run_name}-scorer"] if separate else [])
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": config.tensor_parallel_size if separate else 0,
        "max_restarts": ACTOR_RESTARTS_MAX,
        "max_task_retries": ACTOR_RESTARTS_MAX,
        "namespace": namespace,
        "runtime_env": {"env_vars": variables(config) | {"PYTHONPATH": os.pathsep.join(_path())}},
    }
    remote = ray.remote(LocalEngines if not separate else _OneEngine)
    for index, name in enumerate(names):
        arguments = (config, model_dir) if not separate else (config, model_dir, index == 0)
        handle = remote.options(name=name, **options).remote(*arguments)
        _KEPT[name] = handle
    return RayEngines(names[0], names[-1], namespace)


_KEPT: dict[str, Any] = {}
"""Handles of the actors this driver started: an actor ends when the last handle is dropped."""


def stop_ray_engines(engines: RayEngines) -> None:
    """End the actors of `start_ray_engines`."""
    import ray

    for name in set(engines._names.values()):
        handle = _KEPT.pop(name, None)
        if handle is not None:
            ray.kill(handle, no_restart=True)


class _OneEngine(LocalEngines):
    """On a GPU: loads the generator only where it samples."""

    def __init__(self, config: EngineConfig, model_dir: Path, samples: bool) -> None:
        if samples:
            super().__init__(config, model_dir)
            return
        prepare_environment(config)
        from flywheel_core.engines.vllm_scorer import VllmScorer

        self._scorer = VllmScorer(config)


def _path() -> list[str]:
    """Where the actor finds this package: beside this file, then as the driver does."""
    here = str(Path(__file__).resolve().parents[2])
    return [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
