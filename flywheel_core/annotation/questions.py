"""What annotators are asked, in versions (§2.2.2).

The questions have changed with online feedback, new capabilities and observed failures; two are
always among them: is the response a false refusal, and is it templated? A version's wording never
changes: labels say which version they answer, and labels of another are refused, because answers
to other questions are other data (§3.4 credits the guidelines' constancy for Table 8).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flywheel_core.artifacts import digest_of
from flywheel_core.errors import ConfigError

ALWAYS_ASKED = ("false_refusal", "templated")
"""The two core questions, which address the most frequent failures."""

TAGS = (*ALWAYS_ASKED, "violates_character")
"""The answers that travel with a pair: the core questions', and steerability's."""

Workflow = Literal["static", "interactive", "steerability"]
WORKFLOWS: tuple[Workflow, ...] = ("static", "interactive", "steerability")


class Question(BaseModel):
    """A yes-or-no question about one response. `guideline` is what annotators read beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    text: str = Field(min_length=1)
    guideline: str = ""
    workflows: tuple[Workflow, ...] = WORKFLOWS


class QuestionSet(BaseModel):
    """One version of what is asked: about each response, about the pair, and for a rewrite."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    preference: str = Field(min_length=1)
    rewrite: str = Field(min_length=1)
    questions: tuple[Question, ...]

    @model_validator(mode="after")
    def _core_is_there(self) -> "QuestionSet":
        ids = [question.id for question in self.questions]
        missing = [name for name in ALWAYS_ASKED if name not in ids]
        if missing:
            raise ValueError(f"questions lack {', '.join(missing)}, which are always asked")
        for question in self.questions:
            if question.id in ALWAYS_ASKED and set(question.workflows) != set(WORKFLOWS):
                raise ValueError(f"{question.id} is always asked; leave its workflows out")
        if len(set(ids)) != len(ids):
            raise ValueError(f"questions {', '.join(ids)}: each id once")
        return self

    def asked_in(self, workflow: Workflow) -> tuple[Question, ...]:
        """The questions of one workflow, in order."""
        return tuple(one for one in self.questions if workflow in one.workflows)

    @property
    def digest(self) -> str:
        """Digest of every word of the set."""
        return digest_of(self.model_dump(mode="json"))


FALSE_REFUSAL = Question(
    id="false_refusal",
    text="Is this a false refusal?",
    guideline="It declines something harmless, or talks around it.",
)
TEMPLATED = Question(
    id="templated",
    text="Is this a templated response?",
    guideline="A pattern or phrase that comes back across responses or conversations.",
)
VIOLATES_CHARACTER = Question(
    id="violates_character",
    text="Does this violate the character description?",
    guideline="It breaks a highlighted instruction, drops a trait, or takes the wrong tone.",
)

QUESTION_SETS: dict[str, QuestionSet] = {
    one.version: one
    for one in (
        QuestionSet(
            version="1",
            preference="Which reply is more engaging?",
            rewrite="Both replies fail: write the reply this character should have given.",
            questions=(FALSE_REFUSAL, TEMPLATED, VIOLATES_CHARACTER),
        ),
    )
}
"""By version. Never edit one that has been used: add the next."""


def question_set(version: str) -> QuestionSet:
    """The set, or an error that lists the versions there are."""
    try:
        return QUESTION_SETS[version]
    except KeyError as error:
        raise ConfigError(
            f"annotation.question_set: version {version!r} is unknown; one of: "
            f"{', '.join(QUESTION_SETS)} (flywheel_core/annotation/questions.py)"
        ) from error
