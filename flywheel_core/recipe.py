"""The recipe: one YAML file that says what a climbing step is, at either end of the scale.

Every stage has its own section. A section's fields are *semantic*: they change the result and
so are part of the stage's key. `execution` says where and how wide the same work runs, and is
part of no key. Who may release, and at which thresholds, is in the deployed policy, never here.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flywheel_core.curation.config import (
    JobsConfig,
    LanguageConfig,
    LintRule,
    NamesConfig,
    RowRules,
    SafetyConfig,
)
from flywheel_core.engines.config import (
    EmbedderConfig,
    EngineConfig,
    ExecutorConfig,
    SamplingConfig,
)
from flywheel_core.errors import ConfigError
from flywheel_core.sizing import LlamaShape
from flywheel_core.studies import StudySection, check_rl_rewards
from flywheel_core.training.config import DpoConfig, LaunchConfig, RewardModelConfig, SftConfig
from flywheel_core.training.grpo_config import GrpoConfig

Signal = Literal["continue_10min", "love", "thumb_up", "thumb_down", "feedback"]
Stratum = Literal["locale", "language", "jtbd", "depth"]
RANKING_SIGNALS: tuple[Signal, ...] = ("continue_10min", "thumb_up")
"""What the paper kept of Table 2 for rejection sampling (§2.3.2)."""

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]

RECIPE_FOLDER = Path(__file__).resolve().parent.parent / "dags" / "recipes"


class Section(BaseModel):
    """Base of every section: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(Section):
    """The policy, and what stands beside it in the rejection-sampling pool (§2.4.1).

    `base` is a checkpoint folder, or `builtin:tiny` for the one that ships. SFT starts from it
    every time (§2.4.2) unless `sft_starts_from` says otherwise. Signal models start from
    `signal_base` (the paper's are mostly of 8B), or from `base` where there is none. `shape`
    repeats the sizes of its `config.json`, so that `flywheel plan` can do its sums where the
    checkpoint is not at hand.
    """

    base: str
    shape: LlamaShape | None = None
    pool: dict[Name, str] = {}
    signal_base: str | None = None
    sft_starts_from: Literal["base", "production"] = "base"


class TrafficSection(Section):
    """A week of logged traffic (§2.2): from the simulated world, or ingested day partitions.

    `near_policy_share_min` is reported on by the data gate: below it the evidence is
    insufficient (§3.5.2).
    """

    source: Literal["world", "ingested"]
    num_days: int = Field(7, ge=1)
    internal_rows_per_day: int = Field(0, ge=0)
    user_rows_per_day: int = Field(0, ge=0)
    sampling: SamplingConfig
    signal_bias: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _world_makes_rows(self) -> "TrafficSection":
        if self.source == "world" and not (self.internal_rows_per_day and self.user_rows_per_day):
            raise ValueError(
                "source 'world' needs internal_rows_per_day and user_rows_per_day above 0"
            )
        return self


class CurationSection(Section):
    """Phases I–III of §2.2.1 and Table 1's caps.

    `keep_share` is the paper's *p* (unpublished; ours), of the rows that are nobody's duplicate.
    They are clustered by the embedding of the turn to be answered, at most `cluster_rows_max` in
    a cluster, and pruned within it: larger clusters miss fewer neighbours, and cost more.

    Split sizes are per surface; `stop`, `select` and `gate` are disjoint from training by
    conversation and, where known, by user.

    Each stratum of Table 1 (locale, language, jtbd, depth) keeps its share of the traffic, or the
    share `strata_targets` gives it (stratum → value → share), within `strata_tolerance` (ours).

    RL prompts are near-policy: turns that the production model served (§3.5.2). Where there are too
    few, turns of older models fill up to `rl_older_share_max` of them; the default admits none.

    `safety`, `names`, `language` and `jobs` say who judges and labels a row in Phase I; by default
    rules and the log's own fields do, and no model is asked. `lint` names the rules of the linter
    that clean supervised rows and RL prompts (Table 7, §3.5.6). Off by default: it changes what a
    model is trained on, so a recipe says it, and the simulated world's language is closed.
    """

    keep_share: Share = 0.9
    embedder: EmbedderConfig = EmbedderConfig()
    cluster_rows_max: int = Field(1024, ge=2, le=8192)
    first_turn_share_min: Share = 0.10
    character_share_max: Share = 0.03
    rl_older_share_max: Share = 0.0
    strata_tolerance: Share = 0.02
    strata_targets: dict[Stratum, dict[str, Share]] = {}
    prompts_per_surface: dict[str, int]
    safety: SafetyConfig = SafetyConfig()
    names: NamesConfig = NamesConfig()
    language: LanguageConfig = LanguageConfig()
    jobs: JobsConfig = JobsConfig()
    lint: tuple[LintRule, ...] = ()

    @property
    def row_rules(self) -> RowRules:
        """What Phase I does with a row by itself."""
        return RowRules(names=self.names, language=self.language, jobs=self.jobs)

    @model_validator(mode="after")
    def _targets_are_shares_of_one_set(self) -> "CurationSection":
        for stratum, shares in self.strata_targets.items():
            if sum(shares.values()) > 1 + 1e-9:
                raise ValueError(
                    f"strata_targets.{stratum}: the shares add up to {sum(shares.values()):.3f}; "
                    "they may add up to 1 at most"
                )
        return self

    @model_validator(mode="after")
    def _a_character_may_have_a_prompt(self) -> "CurationSection":
        total = sum(self.prompts_per_surface.values())
        if total and total * self.character_share_max < 1:
            raise ValueError(
                f"character_share_max {self.character_share_max}: of the {total} prompts of "
                "prompts_per_surface that is less than one a character, so none could be taken; "
                "ask for more prompts, or raise it"
            )
        return self

    @model_validator(mode="after")
    def _known_splits(self) -> "CurationSection":
        from flywheel_core.records import SPLITS

        unknown = set(self.prompts_per_surface) ^ set(SPLITS)
        if unknown:
            raise ValueError(
                f"prompts_per_surface must name exactly {', '.join(SPLITS)}; "
                f"differs in {', '.join(sorted(unknown))}"
            )
        return self


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
    feature_difference_max: dict[str, Annotated[float, Field(ge=0)]] = {}
    adjudicate: AdjudicationRule = "none"
    prevalence: PrevalenceSection = PrevalenceSection()
    sampling: SamplingConfig
    patch_pairs_max: int = Field(200, ge=0)

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


class RewardModelsSection(Section):
    """The preference and signal models (§2.3), each its own training configuration.

    `signals` are rows of Table 2; the paper tried all and kept the default two. A signal model
    takes at most `signal_rows_max` logged turns, evenly spread over the week.

    Preference models learn from every batch so far (§3.4), or from this one and the newest
    `earlier_batches_max` before it. `reviews` is §3.4.1's choice of training labels: the share of
    `all` votes, one `single` vote a pair, or only `unanimous` pairs. Evaluation is always on
    pairs on which three annotators agree.
    """

    preference: RewardModelConfig
    pairwise: RewardModelConfig
    signal: RewardModelConfig
    signals: tuple[Signal, ...] = RANKING_SIGNALS
    signal_rows_max: int = Field(100_000, ge=1)
    earlier_batches_max: int | None = Field(None, ge=0)
    reviews: Literal["all", "single", "unanimous"] = "all"


class RejectionSection(Section):
    """Algorithm 1. Router, k and τ are not published: ours.

    The score is composite (§2.3): the mean of the preference scores plus `signal_weight` times
    p(continue) and p(thumb up), as logits, each standardised over production's answers.
    `signal_weights` sets a signal's own weight (negative for bad news; a signal of neither list
    does not count), `preference_weights` a preference model's (default 1 each).
    `threshold_sd` is τ in standard deviations above production's mean score. At most
    `unscored_share_max` of the candidates may come back without a score; they never win.
    `base_share` of the supervised rows is the base model's own data (§2.4.2, source 6).
    """

    num_candidates: int = Field(4, ge=1)
    sampling: SamplingConfig
    signal_weight: float = Field(0.15, ge=0)
    signal_weights: dict[Signal, float] = {}
    preference_weights: dict[
        Literal["pointwise_internal", "pointwise_user"], Annotated[float, Field(ge=0)]
    ] = {}
    threshold_sd: float = 0.0
    unscored_share_max: Share = 0.01
    base_share: Share = 0.3
    pool_share: Share = 0.15

    def weight_of(self, model: str) -> float:
        """A reward model's weight in the composite score, by its name."""
        signal = model.removeprefix("signal_")
        if signal == model:
            return {str(name): one for name, one in self.preference_weights.items()}.get(model, 1.0)
        default = self.signal_weight if signal in RANKING_SIGNALS else 0.0
        return {str(name): one for name, one in self.signal_weights.items()}.get(signal, default)


class EvaluationSection(Section):
    """Offline evaluation (§2.5.1) and the control of a step's size (§3.1.2).

    SFT stops at `sft_stop_win_rate` so that DPO and RL have room below the 60 % target.
    Selection takes the candidate with the highest mean gated win rate that is at most
    `select_win_rate_max` on the selection prompts.
    """

    sampling: SamplingConfig
    sft_stop_win_rate: Share = 0.57
    select_win_rate_max: Share = 0.60
    judge: Literal["world", "rules"]
    num_side_by_side: int = Field(8, ge=1)
    phase: Literal["pre_launch", "post_launch"] = "post_launch"


class StageResources(Section):
    """What a stage's Ray job asks for, how long it may take, and after how long a silence
    somebody is told."""

    driver_cpus: float = Field(0, ge=0)
    driver_gpus: float = Field(0, ge=0)
    memory_gib: float = Field(0, ge=0)
    timeout_s: int = Field(3600, ge=1)
    stall_after_s: int = Field(1800, ge=1)


class CostSection(Section):
    """What `flywheel plan` multiplies: tokens a stage handles, and a GPU's peak and use."""

    peak_flops: float | None = Field(None, gt=0)
    training_utilisation: float = Field(0.4, gt=0, le=1)
    generation_utilisation: float = Field(0.05, gt=0, le=1)
    tokens_by_stage: dict[str, int] = {}


class ExecutionSection(Section):
    """Where and how wide it runs; changes no key.

    `runtime_env` goes to Ray as it is (`pip`, `py_modules`, `working_dir`, …); `env` are
    environment variables of each stage's job. `annotation_exchange` is the folder in which people's
    annotation tools find tasks and leave labels, a folder a batch below it.
    """

    launch: LaunchConfig
    engine: EngineConfig
    executor: ExecutorConfig = ExecutorConfig()
    resources: dict[str, StageResources] = {}
    default_resources: StageResources = StageResources()
    env: dict[str, str] = {}
    runtime_env: dict[str, Any] = {}
    annotation_exchange: str | None = None
    costs: CostSection = CostSection()

    def resources_of(self, stage: str) -> StageResources:
        """What this stage's job asks for."""
        return self.resources.get(stage, self.default_resources)


class Recipe(Section):
    """One climbing step, whole. A `study` marks what it makes as unfit for release."""

    name: Name
    flywheel: Name
    seed: int = 0
    model: ModelSection
    traffic: TrafficSection
    curation: CurationSection
    annotation: AnnotationSection
    reward_models: RewardModelsSection
    rejection_sampling: RejectionSection
    sft: SftConfig
    dpo: DpoConfig
    rl: GrpoConfig
    evaluation: EvaluationSection
    execution: ExecutionSection
    study: StudySection | None = None

    @model_validator(mode="after")
    def _rewards_of_rl_are_the_papers(self) -> "Recipe":
        check_rl_rewards(self.rl.reward_weights, self.study)
        return self

    @model_validator(mode="after")
    def _consensus_can_be_reached(self) -> "Recipe":
        if self.reward_models.reviews != "unanimous":
            return self
        from flywheel_core.annotation.adjudication import CONSENSUS_VOTES_MIN

        asked = 1 if self.annotation.source == "signals" else self.annotation.num_annotators
        if asked < CONSENSUS_VOTES_MIN:
            raise ValueError(
                f"reward_models.reviews: unanimous needs {CONSENSUS_VOTES_MIN} votes a pair, but "
                f"annotation (source {self.annotation.source!r}) gives {asked}, so no pair would "
                "be left to train on; raise annotation.num_annotators, or take all or single"
            )
        return self

    @model_validator(mode="after")
    def _weighed_signals_are_trained(self) -> "Recipe":
        weighed = set(self.rejection_sampling.signal_weights)
        missing = sorted(weighed - set(self.reward_models.signals))
        if missing:
            raise ValueError(
                f"rejection_sampling.signal_weights names {', '.join(missing)}, but "
                f"reward_models.signals trains {', '.join(self.reward_models.signals) or 'none'}; "
                "add it there"
            )
        return self


def recipe_path(name_or_path: str) -> Path:
    """A recipe by its name in `dags/recipes/`, or by its path."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPE_FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in RECIPE_FOLDER.glob("*.yaml")))
        raise ConfigError(
            f"recipe {name_or_path!r}: no file {path}; give a path to a YAML file, or one of: "
            f"{known}"
        )
    return path


def load_recipe(name_or_path: str, *, seed: int | None = None) -> Recipe:
    """Read and check a recipe; every fault in it is listed with its field and value."""
    path = recipe_path(name_or_path)
    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"recipe {path}: expected a mapping of sections, found {type(data).__name__}"
        )
    if seed is not None:
        data["seed"] = seed
    return parse_recipe(data, str(path))


def parse_recipe(data: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe that has been read; `origin` is named in errors."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"recipe {origin}:\n" + describe_faults(error)) from error


def describe_faults(error: ValidationError) -> str:
    """One line a fault: the field, the value received, what is allowed."""
    lines = []
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"])
        value = repr(fault["input"])
        if fault["type"] == "extra_forbidden":
            lines.append(
                f"  {field}: unknown key (value {value:.60}); remove it or fix its spelling"
            )
        elif fault["type"] == "missing":
            lines.append(f"  {field}: missing; add it")
        else:
            lines.append(f"  {field}: {fault['msg']} (received {value:.60})")
    return "\n".join(lines)
