"""Fakes of the engines, for tests and dry runs: deterministic, instant, and named as fakes."""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from flywheel_core.engines.base import Completion, Messages, Progress, ScoreRow, Scores, Vectors
from flywheel_core.engines.config import SamplingConfig

CANNED = (
    "That sounds great! What happened next?",
    "I see. Tell me more.",
    "Ha, I like that. How did it make you feel?",
    "Hmm, let me think about it for a moment.",
    "Of course. Where shall we start?",
)


class FakeGenerator:
    """Draws canned responses by a hash of model, prompt, seed and sample number."""

    def __init__(self, responses: Sequence[str] = CANNED) -> None:
        self.responses = tuple(responses)
        self.version = "nothing"

    def load(self, model_dir: Path) -> str:
        """Any path will do; the version is a hash of its name."""
        self.version = _hash(str(model_dir.name))[:16]
        return self.version

    def generate(
        self,
        prompts: Sequence[Messages],
        sampling: SamplingConfig,
        *,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions a prompt."""
        made = []
        for index, messages in enumerate(prompts):
            made.append([self._one(messages, sampling, n) for n in range(sampling.num_samples)])
            if progress is not None:
                progress(index + 1, len(prompts), "responses generated")
        return made

    def _one(self, messages: Messages, sampling: SamplingConfig, number: int) -> Completion:
        drawn = 0 if sampling.temperature == 0 else number
        digest = _hash(f"{self.version}/{sampling.seed}/{drawn}/{list(map(dict, messages))}")
        words = self.responses[int(digest, 16) % len(self.responses)].split()
        cut = len(words) > sampling.max_tokens
        text = " ".join(words[: sampling.max_tokens])
        return Completion(text, min(len(words), sampling.max_tokens), "length" if cut else "stop")


class FakeScorer:
    """Scores rows with a function of (model name, row); by default the response's word count."""

    def __init__(self, function: Callable[[str, ScoreRow], float] | None = None) -> None:
        self.function = function or (lambda name, row: float(len(row[1].split())))

    def score(
        self,
        model_dir: Path,
        rows: Sequence[ScoreRow],
        *,
        progress: Progress | None = None,
    ) -> Scores:
        """Scores [num_rows]."""
        if progress is not None:
            progress(len(rows), len(rows), "rows scored")
        return np.array([self.function(model_dir.name, row) for row in rows], dtype=np.float32)


class HashEmbedder:
    """Hashed bags of words, of unit length: alike where texts share words."""

    batch_texts = 1

    def __init__(self, dimension: int = 64) -> None:
        self.dimension = dimension
        self.name = f"hash-{dimension}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """[num_texts, dimension]; an empty text is the first axis."""
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()) or [""]:
                number = int(_hash(word)[:8], 16)
                sign = 1.0 if number & 1 else -1.0
                vectors[row, (number >> 1) % self.dimension] += sign if word else 0.0
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[norms[:, 0] == 0, 0] = 1.0
        return np.asarray(vectors / np.where(norms == 0, 1.0, norms), dtype=np.float32)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
