"""Where labels come from: the simulated annotators, or the logged readers' own ratings."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from flywheel_core.annotation.pairs import TAGS, AnnotationSource, Judgement, PairDraft
from flywheel_core.errors import ConfigError

SourceName = Literal["world", "signals"]


class WorldAnnotators:
    """The simulated product's annotators: they answer on its hidden utility, with human noise."""

    def __init__(self, num_annotators: int) -> None:
        self.num_annotators = num_annotators

    def judge(self, pairs: Sequence[PairDraft], seed: int) -> list[Judgement]:
        from flywheel_core.world.contexts import context_of
        from flywheel_core.world.people import Annotators, annotate_pairs

        contexts = [context_of(pair.messages, pair.context["character_id"]) for pair in pairs]
        annotations = annotate_pairs(
            contexts,
            [pair.response_0 for pair in pairs],
            [pair.response_1 for pair in pairs],
            np.random.default_rng(seed),
            Annotators(votes_per_pair=self.num_annotators),
        )
        columns = {
            f"{tag}_{side}": annotations.tags[f"{tag}_{side}"] for tag in TAGS for side in (0, 1)
        }
        return [
            Judgement(
                votes=tuple(int(vote) for vote in annotations.votes[row]),
                tags={name: bool(column[row]) for name, column in columns.items()},
            )
            for row in range(len(pairs))
        ]


class RatedTurns:
    """Logged turns that their reader rated up, against the production model's answer.

    The one label is the reader's: this turn was liked. That the model's answer would have been
    liked less is an assumption (that of self-play fine-tuning, Chen et al. 2024), good while the
    model is far below the logged speakers, and said here so that nobody takes it for annotation.
    """

    def judge(self, pairs: Sequence[PairDraft], seed: int) -> list[Judgement]:
        return [Judgement(votes=(1,)) for _ in pairs]


def annotation_source(name: SourceName, num_annotators: int) -> AnnotationSource:
    """The source a recipe asks for."""
    if name == "world":
        return WorldAnnotators(num_annotators)
    if name == "signals":
        return RatedTurns()
    raise ConfigError(f"annotation.source: {name!r} is unknown; use world or signals")
