"""What a recipe says of annotation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flywheel_core.engines.config import SamplingConfig
from flywheel_core.sections import Section, Share

AnnotationSourceName = Literal["world", "signals", "files", "label_studio"]
AdjudicationRule = Literal["none", "no_majority", "split"]


class PrevalenceSection(Section):
    """When an artifact feature is flagged (§2.4.4): the false discovery rate over all features, and
    the least effect (Cohen 1988 calls 0.2 small, for h and for d). Both are ours."""

    false_discovery_rate: float = Field(0.05, gt=0, lt=1)
    effect_size_min: float = Field(0.2, ge=0)


class AnnotationSection(Section):
    """Pairs of responses, each judged by `num_annotators` (§2.2.2, §3.4.1).

    `source`: the simulated annotators (`world`), readers' ratings (`signals`), or people, through
    JSONL (`files`) or Label Studio in `execution.annotation_exchange`. A batch is at most
    `prompts_per_surface_max` prompts (null: all); up to `targeted_share` of it is drawn from
    failures that the last generation's evaluation measured (§3.3.4) and `judge`, or rules alone,
    find in the logged answers. `rewrite_share` of the alternatives are rewrites by a prompt.

    Chats are held by one annotator each, on the internal surface, and reviewed by the others;
    those of steerability challenge the character. Pairs that differ more than the limits in length,
    emoji or `feature_difference_max` (any registered artifact feature, in its own unit) are
    filtered out. Splits go to an adjudicator by the rule `adjudicate`. Up to `patch_pairs_max`
    pairs go to DPO (§2.4.2). Shares and sizes are ours.
    """

    source: AnnotationSourceName
    num_annotators: int = Field(3, ge=1)
    question_set: str = "1"
    held_out_share: Share = 0.2
    prompts_per_surface_max: int | None = Field(None, ge=1)
    targeted_share: Share = 0.0
    judge: Literal["world", "rules"] = "rules"
    interactive_chats: int = Field(0, ge=0)
    steerability_chats: int = Field(0, ge=0)
    turns_per_chat: int = Field(3, ge=1)
    rewrite_share: Share = 0.0
    rewriting_prompt: str = "1"
    length_difference_words_max: int = Field(40, ge=1)
    emoji_difference_max: int = Field(5, ge=1)
    feature_difference_max: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    adjudicate: AdjudicationRule = "none"
    prevalence: PrevalenceSection = PrevalenceSection()
    sampling: SamplingConfig
    patch_pairs_max: int = Field(200, ge=0)

    @property
    def votes_asked(self) -> int:
        """How many people are asked about a pair: readers' ratings have the one reader."""
        return 1 if self.source == "signals" else self.num_annotators

    @property
    def difference_max(self) -> dict[str, float]:
        """Every limit on how far a pair may differ, by artifact feature."""
        return {
            "length_words": self.length_difference_words_max,
            "emoji_count": self.emoji_difference_max,
            **self.feature_difference_max,
        }

    @model_validator(mode="after")
    def _known_names(self) -> "AnnotationSection":
        from flywheel_core.annotation.alternatives import REWRITING_PROMPTS
        from flywheel_core.annotation.questions import QUESTION_SETS

        for field, value, known in (
            ("question_set", self.question_set, QUESTION_SETS),
            ("rewriting_prompt", self.rewriting_prompt, REWRITING_PROMPTS),
        ):
            if value not in known:
                raise ValueError(f"{field}: no version {value!r}; one of {', '.join(known)}")
        if self.feature_difference_max:
            from flywheel_core.evaluation.features import FEATURES

            unknown = sorted(set(self.feature_difference_max) - set(FEATURES))
            if unknown:
                raise ValueError(
                    f"feature_difference_max: {', '.join(unknown)} is no artifact feature; "
                    f"one of {', '.join(sorted(FEATURES))}"
                )
        return self

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "AnnotationSection":
        if not 0 < self.held_out_share < 1:
            raise ValueError(
                f"held_out_share: got {self.held_out_share}, must lie between 0 and 1: reward "
                "models are trained on the rest and measured on this share"
            )
        if self.adjudicate != "none" and self.num_annotators == 1:
            raise ValueError(
                f"adjudicate: {self.adjudicate!r} settles splits, and num_annotators: 1 leaves "
                "none; ask for more annotators, or set adjudicate to none"
            )
        if self.targeted_share and self.prompts_per_surface_max is None:
            raise ValueError(
                f"targeted_share: {self.targeted_share} of a batch is chosen by failure, but "
                "prompts_per_surface_max: null takes every prompt; set it, or targeted_share to 0"
            )
        return self

    @model_validator(mode="after")
    def _source_can_do_it(self) -> "AnnotationSection":
        chats = self.interactive_chats + self.steerability_chats
        if chats and self.source != "world":
            raise ValueError(
                f"source {self.source!r} labels finished tasks and does not chat: set "
                "interactive_chats and steerability_chats to 0 (people's own chats with the model "
                "come in as internal traffic)"
            )
        if self.source == "signals" and (self.adjudicate != "none" or self.targeted_share):
            raise ValueError(
                "source 'signals' takes every turn that its reader rated up: leave adjudicate at "
                "'none' and targeted_share at 0"
            )
        return self
