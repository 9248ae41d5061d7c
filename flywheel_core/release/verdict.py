"""What a gate says: an outcome, one sentence, and the numbers it rests on."""

from collections.abc import Sequence
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from flywheel_core.artifacts import Record, digest_of

Outcome = Literal["pass", "warn", "block", "insufficient"]
Evidence = dict[str, int | float | str | bool | None]

# A proven fault outranks missing evidence: it is what the release manager must read first.
SEVERITY: dict[Outcome, int] = {"pass": 0, "warn": 1, "insufficient": 2, "block": 3}
BLOCKING: frozenset[Outcome] = frozenset({"insufficient", "block"})


class Finding(Record):
    """An outcome before it is bound to a candidate: what a rule makes of its numbers."""

    model_config = ConfigDict(allow_inf_nan=False)

    outcome: Outcome
    reason: str = Field(min_length=1)
    evidence: Evidence = Field(default_factory=dict)


class Verdict(Finding):
    """A finding bound to its gate, candidate, parent, metrics document and policy by digest.

    `digest` is worked out when left empty, and checked when given, so an edited file is refused.
    """

    gate: str
    candidate: str
    parent: str
    metrics_digest: str
    policy_digest: str
    digest: str = ""

    @model_validator(mode="after")
    def _sealed(self) -> "Verdict":
        content = digest_of(self.model_dump(mode="json", exclude={"digest"}))
        if not self.digest:
            object.__setattr__(self, "digest", content)  # the one write to a frozen record
        elif self.digest != content:
            raise ValueError(
                f"digest {self.digest!r}: the verdict of {self.gate} hashes to {content}; "
                "it was edited, run the gate again"
            )
        return self


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The gravest of the outcomes; none at all is missing evidence."""
    return max(outcomes, key=SEVERITY.__getitem__, default="insufficient")


def combine(findings: Sequence[Finding], pass_reason: str, evidence: Evidence) -> Finding:
    """One finding from several: the worst outcome, with every sentence of that outcome.

    `pass_reason` is the sentence where nothing was found. Evidence is merged.
    """
    outcome: Outcome = worst([f.outcome for f in findings]) if findings else "pass"
    reasons = [f.reason for f in findings if f.outcome == outcome]
    merged = dict(evidence)
    for finding in findings:
        merged.update(finding.evidence)
    reason = pass_reason if outcome == "pass" else " ".join(reasons)
    return Finding(outcome=outcome, reason=reason, evidence=merged)


def percent(rate: float) -> str:
    """A fraction as people read it: `0.707` is `70.7 %`, with two decimals at most."""
    return f"{_short(100 * rate)} %"


def points(difference: float) -> str:
    """A difference in percentage points as people read it."""
    text = _short(difference)
    return f"{text} point" if text in ("1", "-1") else f"{text} points"


def _short(value: float) -> str:
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
