"""What a recipe says about curation's classifiers. Light.

The defaults ask no model: rules for safety, no search for names, the log's own labels, no linter.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flywheel_core.engines.config import EmbedderConfig

LintRule = Literal["stock_phrases", "markdown", "list_carry_over", "emoji_carry_over"]
"""`linter.RULES` by name."""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SafetyConfig(_Config):
    """Who judges safety in Phase I (§2.6). The rules that ship always do.

    With `llama_guard`, the guard in the folder `model` judges what the rules kept, `batch_rows`
    conversations a call. A call that takes longer than `timeout_s` rejects its rows, like any
    other that ends without a verdict.
    """

    classifier: Literal["rules", "llama_guard"] = "rules"
    model: str | None = None
    timeout_s: float = Field(600.0, gt=0)
    batch_rows: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _a_guard_is_a_model(self) -> "SafetyConfig":
        if (self.classifier == "llama_guard") != (self.model is not None):
            raise ValueError(
                f"classifier {self.classifier!r} with model {self.model!r}: 'llama_guard' needs "
                "the folder of a guard model, and 'rules' takes none"
            )
        return self


class NamesConfig(_Config):
    """Whether Phase I rejects rows that name a person (§2.6, model-based checks).

    `presidio` needs the packages presidio-analyzer and the spaCy model `model`, whose language is
    `language`; neither is a dependency, and nothing is downloaded. It rejects famous names too.
    A row on which it fails, or takes longer than `timeout_s`, is rejected. It looks at rows of
    other languages too, where it knows few names: those it lets pass are counted as not checked.
    """

    finder: Literal["none", "presidio"] = "none"
    language: str = "en"
    model: str = "en_core_web_lg"
    score_min: float = Field(0.5, ge=0, le=1)
    timeout_s: float = Field(30.0, gt=0)


class LanguageConfig(_Config):
    """Where a row's language comes from (Table 1): the log's `field`, or `identify`.

    Identification tells `languages` apart (ISO 639-1), and Hindi in Latin letters from both. Where
    the log names one of them, the identified one is taken and the difference counted; a label
    outside of them stays, because it could not be found.
    """

    source: Literal["field", "identify"] = "field"
    languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{2}$")], ...] = ("en", "es", "hi")


class JobsConfig(_Config):
    """Where a row's job-to-be-done comes from (Table 1): the log's `field`, or for rows without
    one, the job of the most similar of `examples` (job → what users say; by default those in
    `job_examples.json`).

    A last turn less similar to every example than `similarity_min` (cosine) has no job, and
    neither has one in a language that is not among `languages`: MiniLM knows English. It embeds on
    the CPUs of Phase I, whatever `curation.embedder` is.
    """

    source: Literal["field", "examples"] = "field"
    examples: dict[str, tuple[str, ...]] | None = None
    similarity_min: float = Field(0.4, ge=-1, le=1)
    languages: tuple[str, ...] = ("en",)
    embedder: EmbedderConfig = EmbedderConfig()


class RowRules(_Config):
    """What Phase I does with a row by itself, and so what a half-done one is recognised by."""

    names: NamesConfig = NamesConfig()
    language: LanguageConfig = LanguageConfig()
    jobs: JobsConfig = JobsConfig()
