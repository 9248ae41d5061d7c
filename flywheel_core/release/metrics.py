"""The document the gates read: what `evaluate` measured on one candidate.

`evaluate` writes it as JSON, `flywheel gate --metrics FILE` reads it. A section that was not
measured stays null, which its gate reads as *insufficient*. What contradicts itself (counts that
do not add up, a rate that is not that of its counts, NaN) is not evidence at all and is refused.

Units: `_rate`, `_share` and benchmark scores are fractions in 0..1; a tie counts one half.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from flywheel_core.artifacts import Record, digest_of
from flywheel_core.errors import InputDataError, SchemaTooNew
from flywheel_core.evaluation.statistics import Interval, win_rate, win_rate_interval
from flywheel_core.release.policy import EvidencePhase, Name, Rate

METRICS_SCHEMA_VERSION: Literal[1] = 1
RATE_TOLERANCE = 1e-6  # a stated win rate may differ from its counts by rounding, not more

RewardModelName = Literal[
    "pointwise_internal", "pointwise_user", "pairwise_internal", "pairwise_user", "human"
]
PromptSet = Literal["internal", "user"]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(gt=0)]
FeatureMean = Annotated[float, Field(ge=0)]


class EvidenceRecord(Record):
    """Base of what was measured: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(allow_inf_nan=False)


class WinRateCell(EvidenceRecord):
    """One cell of the matrix: who judged, on which prompts, candidate against production.

    `reward_model` names the judge (`human` for annotators comparing the two, section 3.1.1);
    `num_effective_prompts` is what the prompts are worth once users with many of them are
    accounted for. `lower` and `upper` are a 95 % interval; without them the gates take Wilson's
    at the effective number. `num_unscored_prompts` were sampled but got no score.
    """

    reward_model: RewardModelName
    prompt_set: PromptSet
    wins: Count
    ties: Count
    losses: Count
    num_prompts: Number
    num_effective_prompts: float = Field(gt=0)
    win_rate: Rate
    lower: Rate | None = None
    upper: Rate | None = None
    num_unscored_prompts: Count = 0

    @classmethod
    def from_counts(
        cls,
        reward_model: RewardModelName,
        prompt_set: PromptSet,
        wins: int,
        ties: int,
        losses: int,
        *,
        interval: Interval | None = None,
        num_effective_prompts: float | None = None,
        num_unscored_prompts: int = 0,
    ) -> "WinRateCell":
        """A cell with its rate worked out, and Wilson's interval unless one is given."""
        total = wins + ties + losses
        size = float(total) if num_effective_prompts is None else num_effective_prompts
        bounds = interval or win_rate_interval(wins, ties, losses, size)
        return cls(
            reward_model=reward_model,
            prompt_set=prompt_set,
            wins=wins,
            ties=ties,
            losses=losses,
            num_prompts=total,
            num_effective_prompts=size,
            win_rate=win_rate(wins, ties, losses),
            lower=bounds.lower,
            upper=bounds.upper,
            num_unscored_prompts=num_unscored_prompts,
        )

    @model_validator(mode="after")
    def _consistent(self) -> "WinRateCell":
        total = self.wins + self.ties + self.losses
        if total != self.num_prompts:
            raise ValueError(
                f"wins + ties + losses is {total}, must equal num_prompts {self.num_prompts}"
            )
        if self.num_effective_prompts > self.num_prompts:
            raise ValueError(
                f"num_effective_prompts {self.num_effective_prompts}: must be at most "
                f"num_prompts {self.num_prompts}"
            )
        counted = win_rate(self.wins, self.ties, self.losses)
        if abs(counted - self.win_rate) > RATE_TOLERANCE:
            raise ValueError(f"win_rate {self.win_rate}: its counts give {counted}")
        if (self.lower is None) != (self.upper is None):
            raise ValueError("lower and upper: give both or neither")
        self._check_interval(counted)
        return self

    def _check_interval(self, rate: float) -> None:
        if self.lower is None or self.upper is None:
            return
        if not self.lower - RATE_TOLERANCE <= rate <= self.upper + RATE_TOLERANCE:
            raise ValueError(
                f"interval [{self.lower}, {self.upper}]: must contain the win rate {rate}"
            )

    @property
    def rate(self) -> float:
        """Win rate from the counts, so that a rounded `win_rate` cannot slip under a limit."""
        return win_rate(self.wins, self.ties, self.losses)

    @property
    def interval(self) -> Interval:
        """The stated 95 % interval, or Wilson's at the effective number of prompts."""
        if self.lower is None or self.upper is None:
            return win_rate_interval(self.wins, self.ties, self.losses, self.num_effective_prompts)
        rate = self.rate
        return Interval(estimate=rate, lower=min(self.lower, rate), upper=max(self.upper, rate))

    @property
    def unscored_share(self) -> float:
        """Share of the sampled prompts that no score came back for."""
        return self.num_unscored_prompts / (self.num_prompts + self.num_unscored_prompts)


class SafetyCounts(EvidenceRecord):
    """Violations of candidate and production on one suite of prompts.

    An unscored response counts as a violation for the candidate and as none for production.
    """

    suite: Name = "broad"
    candidate_violations: Count
    num_candidate_responses: Number
    production_violations: Count
    num_production_responses: Number
    candidate_unscored: Count = 0

    @model_validator(mode="after")
    def _consistent(self) -> "SafetyCounts":
        counted = self.candidate_violations + self.candidate_unscored
        if counted > self.num_candidate_responses:
            raise ValueError(
                f"candidate violations and unscored {counted}: must be at most "
                f"num_candidate_responses {self.num_candidate_responses}"
            )
        if self.production_violations > self.num_production_responses:
            raise ValueError(
                f"production_violations {self.production_violations}: must be at most "
                f"num_production_responses {self.num_production_responses}"
            )
        return self


class BenchmarkScore(EvidenceRecord):
    """One benchmark's score, as a fraction, of candidate and production on the same items."""

    name: Name
    candidate: Rate
    production: Rate
    num_items: Number


class ArtifactFeatures(EvidenceRecord):
    """Means of style features over the same prompts, in each feature's own unit.

    Names are those of the registry (`evaluation.features.FEATURES`), where shares in 0..1 end in
    `_share`, and `length_tokens`. A policy may band any of them.
    """

    num_responses: Number
    candidate: dict[Name, FeatureMean]
    production: dict[Name, FeatureMean]

    @model_validator(mode="after")
    def _shares_are_fractions(self) -> "ArtifactFeatures":
        for side, means in (("candidate", self.candidate), ("production", self.production)):
            for name, mean in means.items():
                if name.endswith("_share") and mean > 1:
                    raise ValueError(f"{side}.{name} {mean}: a share is a fraction in 0..1")
        return self


class DataEvidence(EvidenceRecord):
    """What the candidate was trained and judged on.

    `train_eval_overlap_count`: evaluation prompts that occur in the training data.
    `prompt_set_overlap_count`: prompts shared by any two of the sets that stop training, select
    the checkpoint and gate. `near_policy_share`: training prompts from traffic that production
    itself served; null before launch.
    """

    num_train_rows: Number
    num_eval_prompts: Number
    train_eval_overlap_count: Count | None = None
    prompt_set_overlap_count: Count | None = None
    near_policy_share: Rate | None = None


class GateMetrics(EvidenceRecord):
    """Everything the gates may rest on. `candidate` and `parent` are model digests.

    `unfit_for_release` names the studies that the candidate comes from: none may be released.
    """

    schema_version: Literal[1] = METRICS_SCHEMA_VERSION
    candidate: Name
    parent: Name
    evidence_phase: EvidencePhase
    win_rates: tuple[WinRateCell, ...] = ()
    safety: tuple[SafetyCounts, ...] = ()
    benchmarks: tuple[BenchmarkScore, ...] = ()
    artifacts: ArtifactFeatures | None = None
    data: DataEvidence | None = None
    unfit_for_release: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _no_duplicates(self) -> "GateMetrics":
        names: dict[str, list[str]] = {
            "win_rates": [f"{cell.reward_model} on {cell.prompt_set}" for cell in self.win_rates],
            "safety": [suite.suite for suite in self.safety],
            "benchmarks": [score.name for score in self.benchmarks],
        }
        for section, found in names.items():
            repeated = sorted({name for name in found if found.count(name) > 1})
            if repeated:
                raise ValueError(f"{section}: {', '.join(repeated)} given twice; keep one")
        return self

    def cell(self, reward_model: RewardModelName, prompt_set: PromptSet) -> WinRateCell | None:
        """The cell of the matrix, or None where it was not measured."""
        for cell in self.win_rates:
            if (cell.reward_model, cell.prompt_set) == (reward_model, prompt_set):
                return cell
        return None

    @property
    def digest(self) -> str:
        """Digest of the whole document; every verdict carries it.

        A document without a mark has the digest it had before there were marks.
        """
        unmarked = set() if self.unfit_for_release else {"unfit_for_release"}
        return digest_of(self.model_dump(mode="json", exclude=unmarked))


def load_metrics(path: str | Path) -> GateMetrics:
    """Read and check a metrics file; `InputDataError` says what contradicts itself."""
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(
            f"metrics {source}: cannot be read ({error}); run the evaluate stage first"
        ) from error
    return parse_metrics(text, str(source))


def parse_metrics(text: str | bytes, source: str = "metrics") -> GateMetrics:
    """Check a metrics document; `source` names it in the error message."""
    try:
        return GateMetrics.model_validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        for problem in problems:
            received = problem["input"]
            if problem["loc"] == ("schema_version",) and isinstance(received, int):
                raise SchemaTooNew(
                    f"{source}: schema_version {received}, this flywheel reads "
                    f"{METRICS_SCHEMA_VERSION}; upgrade it, or evaluate again"
                ) from error
        lines = "\n".join(
            f"  {'.'.join(map(str, p['loc'])) or '(whole document)'}: "
            f"{p['msg'].removeprefix('Value error, ')}"
            for p in problems
        )
        raise InputDataError(
            f"{source}: is not valid gate evidence:\n{lines}\nMend the evaluation, then evaluate "
            "again; the gates do not guess."
        ) from error
