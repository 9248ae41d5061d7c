"""Scoring with vLLM's pooling runner: one engine, many reward models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flywheel_core.engines.base import Progress, ScoreRow, Scores
from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.rendering import encode_rows
from flywheel_core.engines.vllm_engine import VllmEngine, load_tokenizer, progress_bar
from flywheel_core.errors import EngineError


class VllmScorer:
    """The `Scorer` on vLLM: raw logits of sequence-classification checkpoints with one output.

    Reward models of one architecture take turns in one engine (a change costs a weight reload).
    Rows go in by length, longest first: vLLM packs them without padding, so this buys no speed,
    but memory runs out at once or never. Candidates of one prompt share its prefix's cache.

    A row that is longer than the engine takes gets NaN and is counted in the log. It is never cut:
    at the right it would lose the response, at the left the character.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.engine = VllmEngine(config, "pooling")
        self._tokenizers: dict[Path, Any] = {}

    def score(
        self,
        model_dir: Path,
        rows: Sequence[ScoreRow],
        *,
        progress: Progress | None = None,
    ) -> Scores:
        """Raw logits [num_rows], in the order of the rows; NaN where a row does not fit."""
        checkpoint = self.engine.load(model_dir)
        if checkpoint.num_labels != 1:
            raise EngineError(
                f"model_dir {model_dir}: a reward model has num_labels 1, this one has "
                f"{checkpoint.num_labels}; train it with num_labels=1"
            )
        if not rows:
            return np.zeros(0, dtype=np.float32)
        if model_dir not in self._tokenizers:
            self._tokenizers[model_dir] = load_tokenizer(model_dir)
        tokenizer = self._tokenizers[model_dir]
        token_ids = encode_rows(tokenizer, rows)
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        limit = self.engine.max_model_len
        fitting = [index for index, ids in enumerate(token_ids) if len(ids) <= limit]
        if len(fitting) < len(rows):
            longest = max(map(len, token_ids))
            print(
                f"warning: {model_dir.name}: {len(rows) - len(fitting)} of {len(rows)} rows get no "
                f"score: longer than max_model_len {limit} tokens (the longest has {longest}); "
                "raise it, or filter long conversations in curation",
                flush=True,
            )
        fitting.sort(key=lambda index: -len(token_ids[index]))
        scores[fitting] = self._score_ids([token_ids[index] for index in fitting], progress)
        return scores

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()

    def _score_ids(self, token_ids: list[list[int]], progress: Progress | None) -> Scores:
        from vllm import PoolingParams

        if not token_ids:
            return np.zeros(0, dtype=np.float32)
        outputs = self.engine.llm.encode(
            [{"prompt_token_ids": ids} for ids in token_ids],
            pooling_task="classify",
            pooling_params=PoolingParams(use_activation=False),
            use_tqdm=progress_bar(progress, "rows scored"),
        )
        scores = np.array([float(output.outputs.data.reshape(-1)[0]) for output in outputs])
        return scores.astype(np.float32)
