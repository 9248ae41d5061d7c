"""The engines of one process, started when first asked for and shared by its stages."""

from pathlib import Path

from flywheel_core.engines.base import Embedder, Generator, Scorer
from flywheel_core.engines.config import EmbedderConfig, EngineConfig
from flywheel_core.engines.environment import prepare_environment
from flywheel_core.engines.fake import HashEmbedder


class EnginePool:
    """Real engines unless a replacement is given (fakes in tests and dry runs).

    One generation engine and one pooling engine; models of one architecture take turns in them.
    On a CPU both stay up. On a GPU each wants `gpu_memory_utilization` of the card, so starting
    one stops the other: do the sampling of a stage first, then the scoring.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        generator: Generator | None = None,
        scorer: Scorer | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.config = config
        self._generator = generator
        self._scorer = scorer
        self._embedders: dict[EmbedderConfig, Embedder] = {}
        if embedder is not None:
            self._embedders[EmbedderConfig()] = embedder

    def generator(self, model_dir: Path) -> Generator:
        """The generator, serving `model_dir`; it stays so until the next call of this method."""
        if self._generator is None:
            prepare_environment(self.config)
            from flywheel_core.engines.vllm_generator import VllmGenerator

            self._generator = VllmGenerator(self.config)
        self._make_room(self._scorer)
        self._generator.load(model_dir)
        return self._generator

    def scorer(self) -> Scorer:
        """The scorer; each call of `score` names its model."""
        if self._scorer is None:
            prepare_environment(self.config)
            from flywheel_core.engines.vllm_scorer import VllmScorer

            self._scorer = VllmScorer(self.config)
        self._make_room(self._generator)
        return self._scorer

    def embedder(self, config: EmbedderConfig | None = None) -> Embedder:
        """Sentence embeddings, by default MiniLM's."""
        config = config or EmbedderConfig()
        if config not in self._embedders:
            self._embedders[config] = self._new_embedder(config)
        return self._embedders[config]

    def close(self) -> None:
        """Stop what was started, and give the memory back."""
        for engine in (self._generator, self._scorer):
            _stop(engine)

    def _make_room(self, other: object) -> None:
        if self.config.device == "cuda":
            _stop(other)

    def _new_embedder(self, config: EmbedderConfig) -> Embedder:
        if config.model == "hash":
            return HashEmbedder()
        prepare_environment(self.config)
        from flywheel_core.engines.embedder import SentenceEmbedder

        return SentenceEmbedder(config, self.config)


def _stop(engine: object) -> None:
    """Stop an engine that can be stopped; it starts again when it is next loaded."""
    close = getattr(engine, "close", None)
    if close is not None:
        close()
