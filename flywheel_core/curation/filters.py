"""Phase I: privacy and safety, by rules, fail-closed (§2.6).

A row is kept only if every check ran and found nothing. What a rule matched is never stored:
reports hold counts by rule.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flywheel_core.curation.privacy import (
    PRIVACY_RULES,
    RULES,
    NameFinder,
    count_street_addresses,
    scan,
)
from flywheel_core.curation.safety import (
    ConversationClassifier,
    Outcome,
    RuleSafetyClassifier,
    SafetyClassifier,
    SafetyVerdict,
    judge_rows,
    row_text,
)

__all__ = [
    "PRIVACY_RULES",
    "Filtered",
    "RuleSafetyClassifier",
    "SafetyClassifier",
    "filter_rows",
    "take_or_reject",
    "told",
]


@dataclass
class Filtered:
    """What Phase I kept, and counts of why it did not keep the rest.

    `rejected` has one reason a row; `found` counts rows by privacy rule (a row may break several);
    `num_suspected_addresses` counts rows, kept or not, that may hold a street address.
    `safety_failures` counts rows without a verdict by cause, `unsafe_categories` unsafe rows by
    category where the classifier names them.
    """

    kept: list[int] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    num_suspected_addresses: int = 0
    safety_failures: Counter[str] = field(default_factory=Counter)
    unsafe_categories: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """All counts in one mapping, so that those of many batches add up; `told` undoes it."""
        named = {"rejected": self.rejected, "found": self.found}
        named |= {"failure": self.safety_failures, "category": self.unsafe_categories}
        flat = {f"{kind}:{name}": n for kind, one in named.items() for name, n in one.items()}
        return {**flat, "suspected_street_addresses": self.num_suspected_addresses}


def told(counts: Mapping[str, int]) -> dict[str, Any]:
    """Added-up `Filtered.counts` as the report shows them."""

    def named(kind: str) -> dict[str, int]:
        prefix = f"{kind}:"
        return {
            name.removeprefix(prefix): count
            for name, count in sorted(counts.items())
            if name.startswith(prefix)
        }

    return {
        "rejected": named("rejected"),
        "privacy": {
            "rows_by_rule": named("found"),
            "suspected_street_addresses": counts.get("suspected_street_addresses", 0),
        },
        "safety": {"failures": named("failure"), "rows_by_category": named("category")},
    }


def filter_rows(
    rows: Sequence[Mapping[str, Any]],
    classifier: SafetyClassifier | ConversationClassifier,
    names: NameFinder | None = None,
    safety_timeout_s: float | None = None,
) -> Filtered:
    """Rows by index: those that pass every check, and counts of the others. No text is kept.

    The safety classifier sees only what privacy let through; `safety_timeout_s` is for one call.
    """
    filtered = Filtered()
    passed = []
    for index, row in enumerate(rows):
        text = row_text(row)
        filtered.num_suspected_addresses += bool(count_street_addresses(text))
        reason = _privacy_reason(text, filtered.found, names)
        if reason:
            filtered.rejected[reason] += 1
        else:
            passed.append(index)
    outcomes = judge_rows([rows[index] for index in passed], classifier, safety_timeout_s)
    for index, outcome in zip(passed, outcomes, strict=True):
        take_or_reject(index, outcome, filtered)
    return filtered


def take_or_reject(index: int, outcome: Outcome, filtered: Filtered) -> None:
    """Keep the row if it has a verdict of safe; else count why not."""
    if not isinstance(outcome, SafetyVerdict):
        filtered.rejected["safety_classifier_failed"] += 1
        filtered.safety_failures[outcome] += 1
    elif outcome.safe:
        filtered.kept.append(index)
    else:
        filtered.rejected["safety_unsafe"] += 1
        filtered.unsafe_categories.update(outcome.categories)


def _privacy_reason(text: str, found: Counter[str], names: NameFinder | None) -> str:
    rules = scan(text)
    found.update(rules.keys())
    if rules:
        return f"privacy_{next(rule for rule in RULES if rule in rules)}"
    return _name_reason(text, names) if names else ""


def _name_reason(text: str, names: NameFinder) -> str:
    try:
        count = names.count_names(text)
    except Exception:  # a model may fail in any way, and its message may repeat the text
        return "privacy_name_finder_failed"
    if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
        return "privacy_name" if count else ""
    return "privacy_name_finder_failed"
