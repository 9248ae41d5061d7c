"""The recipe's sections, a stage each. `curation/section.py` and `annotation/section.py` hold the
two that have most to say.

A section's fields are *semantic*: they change the result and so are part of the stage's key, but
for `ExecutionSection`, which says where and how wide the same work runs, and is part of no key.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flywheel_core.engines.config import EngineConfig, ExecutorConfig, SamplingConfig
from flywheel_core.sizing import LlamaShape
from flywheel_core.training.config import LaunchConfig, RewardModelConfig

Signal = Literal["continue_10min", "love", "thumb_up", "thumb_down", "feedback"]
RANKING_SIGNALS: tuple[Signal, ...] = ("continue_10min", "thumb_up")
"""What the paper kept of Table 2 for rejection sampling (§2.3.2)."""

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


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
