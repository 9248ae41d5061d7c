"""One vLLM engine that changes weights in place. Shared by the generator and the scorer.

Two engines (one generating, one pooling) live in one process on a CPU. vLLM is given token ids and
gives token ids back; tokenizers and templates stay on our side, so a checkpoint's own tokenizer is
used even where its weights were loaded into another checkpoint's engine.
"""

import contextlib
import gc
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from flywheel_core.engines.checkpoint import Checkpoint, inspect_checkpoint, tensor_shapes
from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.environment import prepare_environment
from flywheel_core.errors import EngineError

Runner = Literal["generate", "pooling"]
NOTHING = "nothing"
"""The weight version of an engine that must not be asked."""


class VllmEngine:
    """A lazily started `vllm.LLM` whose weights carry a version.

    The version names what is being served. Whoever needs particular weights states the version
    it expects; a restarted engine has another one and refuses, instead of serving old weights.
    """

    def __init__(self, config: EngineConfig, runner: Runner) -> None:
        self.config = config
        self.runner: Runner = runner
        self.version = NOTHING
        self.start_s = 0.0
        self.max_model_len = config.max_model_len
        self._architecture = ""
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._llm: Any = None

    def load(self, model_dir: Path) -> Checkpoint:
        """Serve a checkpoint: nothing to do, a reload in place, or a new engine."""
        checkpoint = inspect_checkpoint(model_dir)
        if self._llm is None or checkpoint.architecture != self._architecture:
            self._start(checkpoint)
        elif checkpoint.version != self.version:
            self.reload(model_dir, checkpoint.version)
        return checkpoint

    def reload(self, weights_dir: Path, version: str) -> None:
        """Load the safetensors of `weights_dir` into the running engine.

        If that fails, the engine serves nothing until the next load. Names and shapes are checked
        first, because a reload that breaks off would leave modules half-made that vLLM shares
        between the engines of a process (rotary embeddings).
        """
        if self._llm is None:
            raise EngineError("no model is loaded; call load(model_dir) first")
        self.version = NOTHING
        self._check_fit(weights_dir)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(weights_dir)})
        if self.config.device == "cpu":
            self._llm.collective_rpc(_repack_tied_output_layer)
        self._llm.reset_prefix_cache()
        self.version = version

    def _check_fit(self, weights_dir: Path) -> None:
        found = tensor_shapes(weights_dir)
        wrong = [
            f"{name} {found.get(name, 'missing')} instead of {shape}"
            for name, shape in self._shapes.items()
            if found.get(name) != shape and name != "lm_head.weight"
        ]
        if wrong:
            raise EngineError(
                f"weights in {weights_dir} do not fit the running model: {'; '.join(wrong[:3])}"
                f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}; "
                "save the checkpoint again"
            )

    def expect(self, version: str | None) -> None:
        """Refuse when other weights than `version` are being served."""
        if version is not None and version != self.version:
            raise WeightVersionMismatch(
                f"weight version {version!r} was asked for, but the engine serves "
                f"{self.version!r}; load or reload the weights first"
            )

    @property
    def llm(self) -> Any:
        if self._llm is None or self.version == NOTHING:
            raise EngineError("no model is loaded; call load(model_dir) first")
        return self._llm

    def close(self) -> None:
        """Stop the engine and give its memory back.

        In-process, vLLM's own shutdown destroys the process-wide parallel state that a second
        engine here still needs, so the engine is only dropped.
        """
        if self._llm is not None and self.config.tensor_parallel_size > 1:
            with contextlib.suppress(Exception):
                self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        self.version = NOTHING
        gc.unfreeze()
        gc.collect()
        if self.config.device == "cuda":
            torch.cuda.empty_cache()

    def _start(self, checkpoint: Checkpoint) -> None:
        self.close()
        ceiling = self.config.max_model_len
        self.max_model_len = min(ceiling, checkpoint.max_positions or ceiling)
        prepare_environment(self.config)
        began_s = time.monotonic()
        try:
            with _random_state_kept():
                from vllm import LLM

                self._llm = LLM(**self._arguments(checkpoint.path))
        except Exception as error:
            raise EngineError(
                f"model_dir {checkpoint.path}: vLLM could not start ({type(error).__name__}: "
                f"{error}); check that the checkpoint is whole, and lower max_model_len "
                f"({self.max_model_len}) or max_num_seqs ({self.config.max_num_seqs}) "
                "if memory is short"
            ) from error
        self._architecture, self.version = checkpoint.architecture, checkpoint.version
        self._shapes = tensor_shapes(checkpoint.path)
        self.start_s = time.monotonic() - began_s

    def _arguments(self, model_dir: Path) -> dict[str, Any]:
        config = self.config
        arguments: dict[str, Any] = {
            "model": str(model_dir),
            "runner": self.runner,
            # The pooling front-end wants a tokenizer even where it is given token ids.
            "skip_tokenizer_init": self.runner == "generate",
            "generation_config": "vllm",
            "dtype": config.dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": config.max_num_seqs,
            "tensor_parallel_size": config.tensor_parallel_size,
            "enforce_eager": config.enforce_eager,
            "use_tqdm_on_load": False,
        }
        if config.max_num_batched_tokens is not None:
            arguments["max_num_batched_tokens"] = config.max_num_batched_tokens
        if config.device == "cuda":
            arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        else:
            # A seeded request whose prompt is prefilled in pieces fails on a CPU ("CPU Generator
            # does not use offset", vLLM 0.29), so prompts are prefilled whole.
            arguments["enable_chunked_prefill"] = False
            arguments.setdefault("max_num_batched_tokens", max(4096, self.max_model_len))
            if self.runner == "pooling":
                # Only whole blocks of a prefix are shared. On a CPU a block has 128 tokens unless
                # told otherwise, longer than many a prompt: best of 4 scored 1.4 times as fast.
                arguments["block_size"] = 32
        if self.runner == "generate":
            # What Eq. 8's π_gen needs: log-probabilities after temperature.
            arguments["logprobs_mode"] = "processed_logprobs"
        return arguments

    def check_lengths(self, token_ids: list[list[int]], *, room: int) -> None:
        """Refuse inputs that leave less than `room` tokens of `max_model_len`."""
        limit = self.max_model_len - room
        long = [index for index, ids in enumerate(token_ids) if len(ids) > limit]
        if long:
            longest = max(len(token_ids[index]) for index in long)
            raise EngineError(
                f"{len(long)} of {len(token_ids)} inputs are longer than {limit} tokens "
                f"(the first is number {long[0]}; the longest has {longest}), the most that "
                f"max_model_len {self.max_model_len} allows; raise it (up to the model's "
                "own limit) or filter long conversations in curation"
            )


def _repack_tied_output_layer(worker: Any) -> None:
    """On a CPU the output layer multiplies with a packed copy of its weights. Where it is tied to
    the embeddings, `reload_weights` (vLLM 0.29) renews the embeddings only and the copy stays at
    the old weights: log-probabilities were off by more than 1 in our test."""
    model = worker.model_runner.get_model()
    output_layer = getattr(model, "lm_head", None)
    if output_layer is not None and getattr(model.config, "tie_word_embeddings", False):
        output_layer.quant_method.process_weights_after_loading(output_layer)


class WeightVersionMismatch(EngineError):
    """The engine serves other weights than the caller expects."""


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """vLLM in-process seeds the global generators when it starts; a trainer's must not move."""
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)


def load_tokenizer(model_dir: Path) -> Any:
    """The checkpoint's tokenizer, with its chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model_dir), local_files_only=True)
    except Exception as error:
        raise EngineError(
            f"model_dir {model_dir}: the tokenizer cannot be read ({error}); "
            "save it beside the weights again"
        ) from error
    if not tokenizer.chat_template:
        raise EngineError(
            f"model_dir {model_dir}: the tokenizer has no chat template; save one with it"
        )
    return tokenizer


def progress_bar(progress: Any, what: str) -> Any:
    """A silent tqdm class that reports to `progress`, or False for no report."""
    if progress is None:
        return False
    import io

    from tqdm import tqdm

    class Reporter(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"file": io.StringIO()}))

        def update(self, n: float | None = 1) -> bool | None:
            result = super().update(n)
            progress(int(self.n), int(self.total or 0), what)
            return bool(result)

    return Reporter
