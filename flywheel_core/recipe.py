"""The recipe: one YAML file that says what a climbing step is, at either end of the scale.

Every stage has its own section. A section's fields are *semantic*: they change the result and
so are part of the stage's key. `execution` says where and how wide the same work runs, and is
part of no key. Who may release, and at which thresholds, is in the deployed policy, never here.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flywheel_core.engines.config import EngineConfig, ExecutorConfig, SamplingConfig
from flywheel_core.errors import ConfigError
from flywheel_core.sizing import LlamaShape
from flywheel_core.training.config import DpoConfig, LaunchConfig, RewardModelConfig, SftConfig
from flywheel_core.training.grpo_config import GrpoConfig

Stratum = Literal["locale", "language", "jtbd", "depth"]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]

RECIPE_FOLDER = Path(__file__).resolve().parent.parent / "dags" / "recipes"


class Section(BaseModel):
    """Base of every section: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(Section):
    """The policy, and what stands beside it in the rejection-sampling pool (§2.4.1).

    `base` is a checkpoint folder, or `builtin:tiny` for the one that ships. SFT starts from it
    every time (§2.4.2) unless `sft_starts_from` says otherwise. `shape` repeats the sizes of its
    `config.json`, so that `flywheel plan` can do its sums where the checkpoint is not at hand.
    """

    base: str
    shape: LlamaShape | None = None
    pool: dict[Name, str] = {}
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
    """

    keep_share: Share = 0.9
    embedder: Literal["minilm", "hash"] = "minilm"
    cluster_rows_max: int = Field(1024, ge=2)
    first_turn_share_min: Share = 0.10
    character_share_max: Share = 0.03
    rl_older_share_max: Share = 0.0
    strata_tolerance: Share = 0.02
    strata_targets: dict[Stratum, dict[str, Share]] = {}
    prompts_per_surface: dict[str, int]

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
    def _known_splits(self) -> "CurationSection":
        from flywheel_core.records import SPLITS

        unknown = set(self.prompts_per_surface) ^ set(SPLITS)
        if unknown:
            raise ValueError(
                f"prompts_per_surface must name exactly {', '.join(SPLITS)}; "
                f"differs in {', '.join(sorted(unknown))}"
            )
        return self


class AnnotationSection(Section):
    """Pairs of responses, each judged by `num_annotators` (§2.2.2, §3.4.1).

    `source` `world` asks the simulated annotators. Pairs that differ more than the two limits
    in length or emoji are filtered out (§2.2.2). Up to `patch_pairs_max` pairs go to DPO (§2.4.2).
    """

    source: Literal["world", "signals"]
    num_annotators: int = Field(3, ge=1)
    held_out_share: Share = 0.2
    length_difference_words_max: int = Field(40, ge=1)
    emoji_difference_max: int = Field(5, ge=1)
    sampling: SamplingConfig
    patch_pairs_max: int = Field(200, ge=0)


class RewardModelsSection(Section):
    """The preference and signal models (§2.3), each its own training configuration.

    A signal model takes at most `signal_rows_max` logged turns, evenly spread over the week.
    """

    preference: RewardModelConfig
    pairwise: RewardModelConfig
    signal: RewardModelConfig
    signals: tuple[Literal["continue_10min", "thumb_up"], ...] = ("continue_10min", "thumb_up")
    signal_rows_max: int = Field(100_000, ge=1)


class RejectionSection(Section):
    """Algorithm 1. Router, k and τ are not published: ours.

    The score is the preference score plus the weighted signal logits, each standardised over
    the batch; `threshold_sd` is τ in standard deviations above production's mean score.
    `base_share` of the supervised rows is the base model's own data (§2.4.2, source 6).
    """

    num_candidates: int = Field(4, ge=1)
    sampling: SamplingConfig
    signal_weight: float = Field(0.15, ge=0)
    threshold_sd: float = 0.0
    base_share: Share = 0.3
    pool_share: Share = 0.15


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
    environment variables of each stage's job.
    """

    launch: LaunchConfig
    engine: EngineConfig
    executor: ExecutorConfig = ExecutorConfig()
    resources: dict[str, StageResources] = {}
    default_resources: StageResources = StageResources()
    env: dict[str, str] = {}
    runtime_env: dict[str, Any] = {}
    costs: CostSection = CostSection()

    def resources_of(self, stage: str) -> StageResources:
        """What this stage's job asks for."""
        return self.resources.get(stage, self.default_resources)


class Recipe(Section):
    """One climbing step, whole."""

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
