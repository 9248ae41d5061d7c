"""Judges: who says whether a response refuses, preaches or breaks its character (Table 4).

Where there is no judge for a metric it is absent, never zero: the gates read an absent safety
count as missing evidence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from flywheel_core.errors import ConfigError

JudgeName = Literal["world", "rules"]


@dataclass(frozen=True)
class Judged:
    """Answers of a judge, one column a metric: booleans, in the order of the responses."""

    metrics: Mapping[str, Sequence[bool]]

    def share(self, metric: str) -> float | None:
        values = self.metrics.get(metric)
        return sum(values) / len(values) if values else None

    def count(self, metric: str) -> int | None:
        values = self.metrics.get(metric)
        return sum(values) if values is not None else None


class Judge(Protocol):
    """Answers the questions of Table 4 about responses."""

    def judge(self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> Judged:
        """`rows` are prompts with their context fields; one answer a response and metric."""


class RulesJudge:
    """No judge at all: only the rule-based features, which need none, are measured."""

    def judge(self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> Judged:
        return Judged({})


def judge_named(name: JudgeName) -> Judge:
    """The judge a recipe asks for."""
    if name == "rules":
        return RulesJudge()
    if name == "world":
        from flywheel_core.world.evaluation import WorldEvaluationJudge

        return WorldEvaluationJudge()
    raise ConfigError(f"evaluation.judge: {name!r} is unknown; use world or rules")


def summarise(judged: Judged) -> dict[str, float]:
    """Share of responses by metric."""
    shares = {name: judged.share(name) for name in sorted(judged.metrics)}
    return {name: share for name, share in shares.items() if share is not None}
