"""Embeddings in shards of whole batches: a run that broke off goes on, and memory holds one shard.

Texts are put in order of length once, over all of them, and cut into shards of whole batches; so
each batch is the one that `embed` on all texts would make, and the vectors are the same, bit by
bit. A shard is one `.npy` file, named by what it was made from, that appears whole.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flywheel_core.artifacts import digest_of
from flywheel_core.engines.base import Embedder, Progress, Vectors, by_length
from flywheel_core.errors import EngineError
from flywheel_core.store import write_whole

SHARD_TEXTS = 8_192
"""Texts of a shard, rounded down to whole batches: 12 MiB of MiniLM's vectors."""


class ShardedEmbedder:
    """An embedder whose vectors lie below `folder`."""

    def __init__(
        self, embedder: Embedder, folder: Path, progress: Progress, shard_texts: int = SHARD_TEXTS
    ) -> None:
        self._embedder, self._folder, self._progress = embedder, folder, progress
        self._shard_texts = shard_texts

    @property
    def name(self) -> str:
        return self._embedder.name

    @property
    def batch_texts(self) -> int:
        return self._embedder.batch_texts

    def embed(self, texts: Sequence[str]) -> "StoredVectors | Vectors":
        """The vectors, read from their files when they are looked at."""
        order = by_length(texts)
        size = max(1, self._shard_texts // self.batch_texts) * self.batch_texts
        shards = []
        for start in range(0, len(order), size):
            self._progress(start, len(order), "turns embedded")
            shards.append(self._shard([texts[index] for index in order[start : start + size]]))
        self._progress(len(order), len(order), "turns embedded")
        if not shards:
            return self._embedder.embed([])[np.empty(0, np.int64)]
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        return StoredVectors(shards, size, places)

    def _shard(self, texts: list[str]) -> Vectors:
        path = self._folder / f"{digest_of([self.name, texts])[:32]}.npy"
        kept = _read(path, len(texts))
        if kept is not None:
            return kept
        vectors = self._embedder.embed(texts)[np.arange(len(texts))]
        whole = io.BytesIO()
        np.save(whole, vectors)
        write_whole(path, whole.getvalue())
        made = _read(path, len(texts))
        if made is None:
            raise EngineError(f"embeddings: {path} cannot be read back; is the disk sound?")
        return made


class StoredVectors:
    """Vectors [n, dimension] in shards of `size` rows; row i lies at `places[i]` of them all."""

    def __init__(self, shards: Sequence[Vectors], size: int, places: npt.NDArray[np.int64]) -> None:
        self._shards, self._size, self._places = tuple(shards), size, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> Vectors:
        places = self._places[rows]
        found = np.empty((len(places), self._shards[0].shape[1]), dtype=np.float32)
        numbers = places // self._size
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            found[here] = self._shards[number][places[here] % self._size]
        return found


def _read(path: Path, count: int) -> Vectors | None:
    """A shard's vectors, mapped and not loaded; a file that a crash has torn is made again."""
    try:
        vectors = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return None
    if vectors.ndim != 2 or len(vectors) != count or vectors.dtype != np.float32:
        return None
    return np.asarray(vectors)
