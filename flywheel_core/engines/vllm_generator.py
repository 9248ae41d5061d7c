"""Sampling responses with vLLM."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_core.engines.base import Completion, FinishReason, Messages, Progress
from flywheel_core.engines.config import EngineConfig, SamplingConfig
from flywheel_core.engines.rendering import encode, render_prompt
from flywheel_core.engines.vllm_engine import VllmEngine, load_tokenizer, progress_bar
from flywheel_core.errors import EngineError


@dataclass(frozen=True)
class SampledTokens:
    """One completion as the sampler saw it.

    `logprobs` [num_tokens] are log π_gen after temperature; NaN where the sampler had none, empty
    where they were not asked for.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


class VllmGenerator:
    """The `Generator` on vLLM. Start-up is paid at the first `load`."""

    def __init__(self, config: EngineConfig) -> None:
        self.engine = VllmEngine(config, "generate")
        self._tokenizer: Any = None
        self._tokenizer_of: Path | None = None
        self._stop_ids: list[int] = []

    @property
    def version(self) -> str:
        """The weight version being served."""
        return self.engine.version

    def load(self, model_dir: Path) -> str:
        """Serve this checkpoint; returns its weight version."""
        checkpoint = self.engine.load(model_dir)
        if self._tokenizer_of != model_dir:
            self._tokenizer, self._tokenizer_of = load_tokenizer(model_dir), model_dir
        ids = {*checkpoint.eos_token_ids, self._tokenizer.eos_token_id}
        self._stop_ids = sorted(token for token in ids if token is not None)
        return checkpoint.version

    def reload(self, weights_dir: Path, version: str) -> None:
        """Weights of the same model after a training step; `version` is the trainer's name."""
        self.engine.reload(weights_dir, version)

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: SamplingConfig,
        *,
        progress: Progress | None = None,
        expected_version: str | None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions for each prompt, in the order of the prompts."""
        if self._tokenizer is None:
            raise EngineError("no model is loaded; call load(model_dir) first")
        prompt_ids = encode(
            self._tokenizer, [render_prompt(self._tokenizer, messages) for messages in prompts]
        )
        sampled = self.generate_ids(
            prompt_ids, sampling, progress=progress, expected_version=expected_version
        )
        flat = [sample for samples in sampled for sample in samples]
        texts = self._tokenizer.batch_decode(
            [list(sample.token_ids) for sample in flat], skip_special_tokens=True
        )
        completions = iter(
            Completion(text.strip(), len(sample.token_ids), sample.finish_reason)
            for text, sample in zip(texts, flat, strict=True)
        )
        return [[next(completions) for _ in samples] for samples in sampled]

    def generate_ids(
        self,
        prompt_ids: list[list[int]],
        sampling: SamplingConfig,
        *,
        logprobs: bool = False,
        progress: Progress | None = None,
        expected_version: str | None = None,
    ) -> list[list[SampledTokens]]:
        """Token ids in, token ids out (end-of-turn token included)."""
        self.engine.expect(expected_version)
        llm = self.engine.llm
        if not prompt_ids:
            return []
        self.engine.check_lengths(prompt_ids, room=1)
        outputs = llm.generate(
            [{"prompt_token_ids": ids} for ids in prompt_ids],
            self._parameters(prompt_ids, sampling, logprobs),
            use_tqdm=progress_bar(progress, "responses generated"),
        )
        return [[_sampled(sample, logprobs) for sample in output.outputs] for output in outputs]

    def _parameters(
        self, prompt_ids: list[list[int]], sampling: SamplingConfig, logprobs: bool
    ) -> list[Any]:
        from vllm import SamplingParams

        greedy = sampling.temperature == 0
        return [
            SamplingParams(
                n=sampling.num_samples,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=None if greedy else seed,
                stop_token_ids=self._stop_ids,
                detokenize=False,
                logprobs=0 if logprobs else None,
            )
            for seed in request_seeds(prompt_ids, sampling.seed)
        ]


def request_seeds(prompt_ids: Sequence[Sequence[int]], seed: int) -> list[int]:
    """A seed for each request from the call's seed, the prompt and its number among equal prompts.

    So a retry, another batch size or another order of prompts draws the same samples, and equal
    prompts draw different ones.
    """
    seen: Counter[tuple[int, ...]] = Counter()
    seeds = []
    for ids in prompt_ids:
        prompt = tuple(ids)
        text = f"{seed}/{seen[prompt]}/{','.join(map(str, prompt))}"
        seen[prompt] += 1
        seeds.append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "little"))
    return seeds


def _sampled(sample: Any, logprobs: bool) -> SampledTokens:
    ids = tuple(sample.token_ids)
    values: tuple[float, ...] = ()
    if logprobs:
        values = tuple(
            float(step[token].logprob) for token, step in zip(ids, sample.logprobs, strict=True)
        )
    return SampledTokens(ids, values, "stop" if sample.finish_reason == "stop" else "length")
