"""Replay of the paper's launches through today's rules.

The paper publishes point estimates without sample sizes, so a replay takes the evidence as enough
(`num_prompts` null: not checked) and runs only the gates whose inputs exist: rm_win_rate and
rm_divergence. With no intervals the opposite-sides rule is not applied. Expected, and tested:
the win rate blocks V10, V11, V12 and V14; divergence blocks V12 alone, the one launch whose
engagement fell.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from flywheel_core.artifacts import Record
from flywheel_core.errors import InputDataError
from flywheel_core.release.metrics import PromptSet
from flywheel_core.release.policy import ReleasePolicy, Thresholds
from flywheel_core.release.verdict import Finding, Outcome, worst
from flywheel_core.release.win_rate_gates import (
    INTERNAL,
    USER,
    CellKey,
    Reading,
    divergence_finding,
    win_rate_finding,
)

RecordedCell = Literal["pointwise_internal", "pointwise_user", "pairwise_user"]


class Lift(Record):
    """A relative engagement lift in percent with the distances to its 95 % bounds."""

    model_config = ConfigDict(allow_inf_nan=False)

    estimate: float
    minus: float
    plus: float


class RecordedLaunch(Record):
    """One launch as the paper's Table 10 has it; win rates in percent."""

    version: str
    rm_win_rate: dict[RecordedCell, float]
    breadth_lift: Lift | None = None
    depth_lift: Lift | None = None
    num_prompts: int | None = Field(default=None, description="null: not published, not checked")


class ReplayedGate(Record):
    """What one gate would have said."""

    verdict: Outcome
    reason: str


class ReplayedLaunch(Record):
    """What the gates would have said of a launch, beside the lifts that it had."""

    version: str
    gates: dict[str, ReplayedGate]
    outcome: Outcome
    breadth_lift: Lift | None = None
    depth_lift: Lift | None = None


def replay(path: str | Path, policy: ReleasePolicy | None = None) -> list[ReplayedLaunch]:
    """Every recorded launch through the rules; the default thresholds unless a policy is given."""
    thresholds = policy.thresholds if policy is not None else Thresholds()
    return [_replay_one(launch, thresholds) for launch in _read(Path(path))]


def replay_json(launches: list[ReplayedLaunch]) -> list[dict[str, Any]]:
    """The launches as plain JSON values: `{version, gates: {name: {verdict, reason}}, outcome}`."""
    return [launch.model_dump(mode="json") for launch in launches]


def _replay_one(launch: RecordedLaunch, thresholds: Thresholds) -> ReplayedLaunch:
    readings: dict[CellKey, Reading] = {}
    for name, percent in launch.rm_win_rate.items():
        reading = _reading(launch.version, name, percent)
        readings[reading.key] = reading
    found: dict[str, Finding] = {
        "rm_win_rate": win_rate_finding(list(readings.values()), thresholds.rm_win_rate)
    }
    first, second = readings.get(INTERNAL), readings.get(USER)
    if first is not None and second is not None:
        found["rm_divergence"] = divergence_finding(first, second, thresholds.rm_divergence)
    return ReplayedLaunch(
        version=launch.version,
        gates={
            name: ReplayedGate(verdict=finding.outcome, reason=finding.reason)
            for name, finding in found.items()
        },
        outcome=worst([finding.outcome for finding in found.values()]),
        breadth_lift=launch.breadth_lift,
        depth_lift=launch.depth_lift,
    )


def _reading(version: str, name: RecordedCell, percent: float) -> Reading:
    """A published percentage as a rate, by division, so that 65.0 is exactly 0.65."""
    prompt_set: PromptSet = "internal" if name == "pointwise_internal" else "user"
    try:
        return Reading(reward_model=name, prompt_set=prompt_set, rate=percent / 100)
    except ValidationError as error:
        raise InputDataError(
            f"{version}: rm_win_rate.{name} {percent!r}: must lie in 0..100 percent; mend the table"
        ) from error


def _read(path: Path) -> list[RecordedLaunch]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(list[RecordedLaunch]).validate_python(content["launches"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputDataError(
            f"replay {path}: cannot be read as recorded launches ({error}); "
            "pass a file like shared/reference/paper_tables.json"
        ) from error
