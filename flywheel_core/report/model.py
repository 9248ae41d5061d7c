"""What a generation's report shows, as one document.

Everything is optional but the identity, the gates' metrics and their verdicts: an early stop still
gets a page. Units: `_rate` and `_share` are fractions, a feature is in its own unit, `_s` seconds.
"""

from typing import Literal

from pydantic import AwareDatetime, ConfigDict, Field

from flywheel_core.artifacts import Record
from flywheel_core.evaluation.statistics import Interval
from flywheel_core.provenance import CodeVersion
from flywheel_core.release.metrics import GateMetrics
from flywheel_core.release.policy import ReleasePolicy
from flywheel_core.release.verdict import Verdict
from flywheel_core.rewards.ledger import Ledger

REPORT_SCHEMA_VERSION: Literal[1] = 1
MAX_CONVERSATIONS = 8

TrainingStage = Literal["production", "sft", "dpo", "rl"]


class ReportRecord(Record):
    """Base of the report's parts: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(allow_inf_nan=False)


class StageMean(ReportRecord):
    """A style feature's mean after one training stage, in the feature's unit."""

    stage: TrainingStage
    mean: float
    lower: float | None = None
    upper: float | None = None


class FeatureShift(ReportRecord):
    """How one style feature moved from production through SFT, DPO and RL (Figure 10)."""

    feature: str
    label: str
    unit: Literal["share", "count", "tokens"]
    stages: tuple[StageMean, ...] = Field(min_length=1)


class Turn(ReportRecord):
    """One turn of the conversation that both models were given."""

    role: Literal["user", "character"]
    text: str


class SideBySide(ReportRecord):
    """One conversation with production's and the candidate's next turn, chosen at random.

    Rewards are those of the pointwise internal model, in its own logit unit.
    """

    character: str
    instructions: str = ""
    job: str = ""
    language: str = ""
    history: tuple[Turn, ...]
    production: str
    candidate: str
    production_reward: float | None = None
    candidate_reward: float | None = None


class AgreementRow(ReportRecord):
    """How far annotators agree on one question of one workflow; null where it cannot be told."""

    workflow: str
    question: str
    num_tasks: int = Field(ge=0)
    alpha: float | None
    kappa: float | None
    share_unanimous: float | None


class FeatureContrast(ReportRecord):
    """A flagged artifact feature: its mean on both sides, as `evaluation.prevalence` has it."""

    feature: str
    sides: str
    first_mean: float
    second_mean: float
    effect_size: float | None
    q_value: float
    num_prompts: int = Field(ge=0)


class AnnotationSummary(ReportRecord):
    """The labels behind the reward models: agreement, who drifts, what was dropped by reason."""

    agreement: tuple[AgreementRow, ...]
    drifting: tuple[str, ...] = ()
    dropped: dict[str, int] = Field(default_factory=dict)
    remarks: dict[str, int] = Field(default_factory=dict)
    targeted: dict[str, int] = Field(default_factory=dict)
    contrasts: tuple[FeatureContrast, ...] = ()


class HiddenEffect(ReportRecord):
    """The true effect, known only in the simulated world and never shown to a gate."""

    metric: str = "hidden utility"
    production: Interval
    candidate: Interval
    difference: Interval
    win_rate: Interval | None = None


class Decision(ReportRecord):
    """What the release manager answered, as the audit record has it."""

    answer: Literal["approved", "rejected", "expired"]
    responded_by: str | None = None
    responded_at: AwareDatetime | None = None
    automated: bool = False
    decision_digest: str


class LineageRow(ReportRecord):
    """One artifact that this generation made or used."""

    stage: str
    kind: str
    key: str
    digest: str
    num_rows: int | None = Field(default=None, ge=0)
    model: str | None = Field(default=None, description="the model it was made from or with")
    reused: bool = False


class DataCount(ReportRecord):
    """How many of something went into the generation, for example annotated pairs."""

    label: str
    count: int = Field(ge=0)


class StageTiming(ReportRecord):
    """Wall time of one stage."""

    stage: str
    wall_s: float = Field(ge=0)
    reused: bool = False


class SignalSummary(ReportRecord):
    """One user-signal model on held-out turns; `biases` are phrases by the name of the bias."""

    name: str
    auc: float | None
    ece: float | None
    base_rate: float | None
    biases: dict[str, str]


class GenerationReport(ReportRecord):
    """One generation, from its verdict down to its timings."""

    schema_version: Literal[1] = REPORT_SCHEMA_VERSION
    flywheel: str
    generation: int = Field(ge=0)
    recipe: str
    created_at: AwareDatetime
    code: CodeVersion | None = None
    policy: ReleasePolicy
    metrics: GateMetrics
    verdicts: tuple[Verdict, ...]
    decision: Decision | None = None
    feature_shifts: tuple[FeatureShift, ...] = ()
    features_not_measured: tuple[str, ...] = ()
    annotation: AnnotationSummary | None = None
    conversations: tuple[SideBySide, ...] = Field(default=(), max_length=MAX_CONVERSATIONS)
    hidden_effect: HiddenEffect | None = None
    ledger: Ledger | None = None
    signals: tuple[SignalSummary, ...] = ()
    data_counts: tuple[DataCount, ...] = ()
    lineage: tuple[LineageRow, ...] = ()
    timings: tuple[StageTiming, ...] = ()
