"""The deployed release policy: who may release, how, and at which thresholds.

It is a file that is deployed with the DAGs (`dags/policy/*.yaml`), never a run parameter and
never part of a recipe, so whoever starts a climb cannot loosen what judges it.

Units: a field ending in `_rate` or `_share` is a fraction in 0..1; one ending in `_points` is a
difference in percentage points (5.0 means 60 % against 55 %).
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from flywheel_core.artifacts import Record, digest_of
from flywheel_core.errors import ConfigError
from flywheel_core.experiments.config import RAMP_SHARES, ExperimentRule

EvidencePhase = Literal["pre_launch", "post_launch"]
Rate = Annotated[float, Field(ge=0, le=1)]
Points = Annotated[float, Field(gt=0, le=100)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

HIGHEST_WAIVABLE_RATE = 0.70  # paper, section 3.5.5; nothing above is ever waived


class PolicyRecord(Record):
    """Base of the policy's parts: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(allow_inf_nan=False)


class WinRateRule(PolicyRecord):
    """How far a reward model may prefer the candidate before we suspect the reward model.

    Section 3.1.2: stay below 65 %, aim at 60 %. The warning at 62 %, the least numbers of
    prompts and comparisons, and the share that may lack a score are ours.
    """

    block_above_rate: float = Field(default=0.65, ge=0.5, le=HIGHEST_WAIVABLE_RATE)
    warn_from_rate: float = Field(default=0.62, ge=0.5, le=HIGHEST_WAIVABLE_RATE)
    target_rate: float = Field(default=0.60, ge=0.5, le=HIGHEST_WAIVABLE_RATE)
    min_effective_prompts: int = Field(default=1000, ge=1)
    min_human_comparisons: int = Field(default=200, ge=1)
    max_unscored_share: Rate = 0.01
    pairwise_gap_warn_points: Points = 10.0

    @model_validator(mode="after")
    def _in_order(self) -> "WinRateRule":
        if not self.target_rate <= self.warn_from_rate <= self.block_above_rate:
            raise ValueError(
                f"target_rate {self.target_rate}, warn_from_rate {self.warn_from_rate}, "
                f"block_above_rate {self.block_above_rate}: must not decrease in this order"
            )
        return self


class DivergenceRule(PolicyRecord):
    """How far two reward signals may disagree (section 3.1.2 names the sign; numbers are ours)."""

    block_above_points: Points = 15.0
    warn_above_points: Points = 10.0

    @model_validator(mode="after")
    def _in_order(self) -> "DivergenceRule":
        if self.warn_above_points > self.block_above_points:
            raise ValueError(
                f"warn_above_points {self.warn_above_points}: must be at most "
                f"block_above_points {self.block_above_points}"
            )
        return self


class SafetyRule(PolicyRecord):
    """How much the violation rate's upper bound may lie above production's, per suite (ours)."""

    max_worse_points: Points = 1.0
    min_responses: int = Field(default=500, ge=1)
    required_suites: tuple[Name, ...] = ()


class BenchmarkRule(PolicyRecord):
    """How far a benchmark may fall below production, not below the base model (ours).

    `tolerance_points` holds for every benchmark that `tolerances_points` does not name.
    """

    tolerance_points: Points = 2.0
    tolerances_points: dict[Name, Points] = Field(default_factory=dict)
    required: tuple[Name, ...] = ()

    def tolerance_of(self, name: str) -> float:
        """Allowed fall of one benchmark, in percentage points."""
        return self.tolerances_points.get(name, self.tolerance_points)


class ArtifactBand(PolicyRecord):
    """Where one style feature of the candidate may lie, relative to production.

    `max_rise` is in the feature's own unit (tokens, emoji, or a share in 0..1); the ratios are
    candidate over production. A required feature that was not measured is missing evidence.
    """

    max_rise: float | None = Field(default=None, gt=0)
    min_ratio: float | None = Field(default=None, gt=0, le=1)
    max_ratio: float | None = Field(default=None, ge=1)
    required: bool = True

    @model_validator(mode="after")
    def _limits_something(self) -> "ArtifactBand":
        if self.max_rise is None and self.min_ratio is None and self.max_ratio is None:
            raise ValueError("a band needs one of max_rise, min_ratio, max_ratio; add one")
        return self


def _default_bands() -> dict[str, ArtifactBand]:
    return {
        "length_tokens": ArtifactBand(min_ratio=0.67, max_ratio=1.5),
        "list_share": ArtifactBand(max_rise=0.10),
        "emoji_count": ArtifactBand(max_rise=0.5),
        "templated_share": ArtifactBand(max_rise=0.05),
        "emoji_share": ArtifactBand(max_rise=0.15, required=False),
        "wall_of_text_share": ArtifactBand(max_rise=0.05, required=False),
    }


class ArtifactRule(PolicyRecord):
    """Bands for the style features that reward hacking moves first (Table 4, Table 7; ours)."""

    min_responses: int = Field(default=200, ge=1)
    bands: dict[Name, ArtifactBand] = Field(default_factory=_default_bands)


class DataRule(PolicyRecord):
    """Least share of training prompts that production itself served (near-policy, section 3.5.2).

    The paper publishes no minimum: one half is ours.
    """

    min_near_policy_share: Rate = 0.5


class Thresholds(PolicyRecord):
    """One rule a gate. `improvement` has none: its line is 50 %."""

    rm_win_rate: WinRateRule = WinRateRule()
    rm_divergence: DivergenceRule = DivergenceRule()
    safety: SafetyRule = SafetyRule()
    benchmarks: BenchmarkRule = BenchmarkRule()
    artifacts: ArtifactRule = Field(default_factory=ArtifactRule)
    data: DataRule = DataRule()


class WaiverRule(PolicyRecord):
    """What a release manager may waive: the win rate, up to this rate; null means nothing."""

    rm_win_rate_up_to_rate: float | None = Field(default=None, ge=0.5, le=HIGHEST_WAIVABLE_RATE)


class ReleasePolicy(PolicyRecord):
    """Who may release and what must hold first.

    `release_managers` are user ids as the auth manager writes them into Airflow's record (with
    the simple auth manager, the user name). `release: direct` moves `production` on approval;
    `release: ab` opens an experiment, which alone moves it. `self_approval_allowed` lets whoever
    triggered a run approve its candidate; off, every release takes two people (four eyes). A climb
    that has used `gpu_hours_per_climb_max` is stopped, running job included; null means no limit.
    `experiment` is how A/B tests are read and decided under `release: ab`.
    """

    schema_version: Literal[1] = 1
    release_managers: tuple[Name, ...] = Field(min_length=1)
    response_timeout_h: float = Field(default=120, gt=0, le=120)
    self_approval_allowed: bool = False
    automated_approval_allowed: bool = False
    release: Literal["direct", "ab"] = "ab"
    allowed_evidence_phases: tuple[EvidencePhase, ...] = Field(
        default=("pre_launch", "post_launch"), min_length=1
    )
    gpu_hours_per_climb_max: float | None = Field(default=None, gt=0)
    thresholds: Thresholds = Field(default_factory=Thresholds)
    experiment: ExperimentRule = Field(default_factory=ExperimentRule)
    waivers: WaiverRule = WaiverRule()

    @model_validator(mode="after")
    def _consistent(self) -> "ReleasePolicy":
        if len(set(self.release_managers)) != len(self.release_managers):
            raise ValueError(f"release_managers {list(self.release_managers)}: name each once")
        waivable = self.waivers.rm_win_rate_up_to_rate
        limit = self.thresholds.rm_win_rate.block_above_rate
        if waivable is not None and waivable <= limit:
            raise ValueError(
                f"waivers.rm_win_rate_up_to_rate {waivable}: must be above the blocking rate "
                f"{limit}, or null to switch waivers off"
            )
        if self.release == "ab" and self.experiment.test_share >= RAMP_SHARES[0]:
            raise ValueError(
                f"experiment.test_share {self.experiment.test_share}: must be below "
                f"{RAMP_SHARES[0]}, the first step of the ramp: an approval would expose everybody "
                "at once, with nobody left to compare with"
            )
        return self


def policy_digest(policy: ReleasePolicy) -> str:
    """Digest of what the policy says, defaults included; comments do not count."""
    return digest_of(policy.model_dump(mode="json"))


def load_policy(path: str | Path) -> ReleasePolicy:
    """Read and check a policy file; `ConfigError` names every field that is wrong."""
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"policy {source}: cannot be read ({error}); deploy one, for example a copy of "
            "dags/policy/production.yaml"
        ) from error
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"policy {source}: is not valid YAML: {error}; mend the file") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"policy {source}: holds {type(content).__name__}, must be a mapping; "
            "start from dags/policy/production.yaml"
        )
    try:
        return ReleasePolicy.model_validate(content)
    except ValidationError as error:
        problems = "\n".join(f"  {line}" for line in _problem_lines(error))
        raise ConfigError(
            f"policy {source} is refused:\n{problems}\n"
            "Mend these fields; dags/policy/production.yaml shows every one with its meaning."
        ) from error


def _problem_lines(error: ValidationError) -> list[str]:
    """One line a problem: field, the value received, what is allowed."""
    lines = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{field}: is not a field of the policy; remove it or mend its spelling")
        elif problem["type"] == "missing":
            lines.append(f"{field}: is missing and has no default; add it")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            received = "" if problem["loc"] == () else f"got {problem['input']!r}; "
            lines.append(f"{field}: {received}{message}")
    return lines


class _UniqueKeyLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice, where the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice; keep one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
