"""What an engine does, apart from how. Imports no torch and no vLLM.

`messages` start with the system turn, alternate user and assistant, and end with the user turn
to be answered; the engine renders them with the model's own chat template.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from flywheel_core.engines.config import SamplingConfig
from flywheel_core.records import Message

Messages: TypeAlias = Sequence[Message] | Sequence[Mapping[str, str]]
"""A conversation: mappings with `role` and `content`."""

ScoreRow: TypeAlias = tuple[Messages, str] | tuple[Messages, str, str]
"""Context and response (pointwise), or context and two responses (pairwise)."""

Scores: TypeAlias = npt.NDArray[np.float32]
Vectors: TypeAlias = npt.NDArray[np.float32]
FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True)
class Completion:
    """One sampled response. `length` means it was cut at `max_tokens` or at the context's end;
    `num_tokens` counts the end-of-turn token."""

    text: str
    num_tokens: int
    finish_reason: FinishReason


class Progress(Protocol):
    """Called with work done, work in all, and what is being worked on."""

    def __call__(self, done: int, total: int, what: str = "") -> None: ...


class Generator(Protocol):
    """Samples responses from one loaded model."""

    def load(self, model_dir: Path) -> str:
        """Serve this checkpoint; returns its weight version. Cheap where only weights differ."""

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: SamplingConfig,
        *,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions for each prompt, in the order of the prompts."""


class Scorer(Protocol):
    """Scores text with reward models (one output each)."""

    def score(
        self,
        model_dir: Path,
        rows: Sequence[ScoreRow],
        *,
        progress: Progress | None = None,
    ) -> Scores:
        """Raw logits [num_rows] of the checkpoint, in the order of the rows; NaN for a row that
        does not fit in the engine: nothing is cut."""


class VectorRows(Protocol):
    """Vectors of unit length, by row: an array, or one that lies in files."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> Vectors:
        """The vectors [len(rows), dimension] of these rows."""


class Embedder(Protocol):
    """Maps texts to vectors of unit length, in batches of texts of like length.

    `name` changes with whatever changes a vector. Texts are taken in the order of `by_length`,
    `batch_texts` at a time, so a text's vector depends (in its last bits) on which texts go with
    it, not on how they are ordered.
    """

    @property
    def name(self) -> str: ...

    @property
    def batch_texts(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> VectorRows:
        """[num_texts, dimension], in the order of the texts."""


def by_length(texts: Sequence[str]) -> list[int]:
    """Indices of the texts, the longest first and equally long ones by their characters: a batch
    is padded to its longest, and the largest comes first, where it may be too large for memory."""
    return sorted(range(len(texts)), key=lambda index: (-len(texts[index]), texts[index]))


class Judge(Protocol):
    """Answers a yes-or-no question about a response (§2.5.1)."""

    def ask(self, question: str, rows: Sequence[tuple[Messages, str]]) -> npt.NDArray[np.float64]:
        """The probability of yes [num_rows], in the order of the rows."""
