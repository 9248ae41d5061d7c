"""Phase I: privacy and safety, by rules, fail-closed (§2.6).

A row is kept only if every check ran and found nothing. What a rule matched is never stored:
reports hold counts by rule.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flywheel_core.curation.privacy import (
    PRIVACY_RULES,
    RULES,
    NameFinder,
    count_street_addresses,
    scan,
)

__all__ = ["PRIVACY_RULES", "Filtered", "RuleSafetyClassifier", "SafetyClassifier", "filter_rows"]

UNSAFE_PHRASES = re.compile(
    r"\b(?:kill yourself|end your life|how to make a bomb|hurt yourself|poison (?:him|her|them))\b",
    re.IGNORECASE,
)


class SafetyClassifier(Protocol):
    """Says whether a text is safe; whatever is not a plain True rejects the row."""

    def is_safe(self, text: str) -> bool: ...


class RuleSafetyClassifier:
    """The default that ships: a short list of phrases no reply may hold. A floor, not a ceiling."""

    def is_safe(self, text: str) -> bool:
        return not UNSAFE_PHRASES.search(text)


def row_text(row: Mapping[str, Any]) -> str:
    """Everything a row would carry onward: every turn, and the response."""
    return "\n".join([*(turn["content"] for turn in row["messages"]), row["response"]])


@dataclass
class Filtered:
    """What Phase I kept, and counts of why it did not keep the rest.

    `rejected` has one reason a row; `found` counts rows by privacy rule (a row may break several);
    `num_suspected_addresses` counts rows, kept or not, that may hold a street address.
    """

    kept: list[int] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    num_suspected_addresses: int = 0


def filter_rows(
    rows: Sequence[Mapping[str, Any]],
    classifier: SafetyClassifier,
    names: NameFinder | None = None,
) -> Filtered:
    """Rows by index: those that pass every check, and counts of the others. No text is kept."""
    filtered = Filtered()
    for index, row in enumerate(rows):
        text = row_text(row)
        filtered.num_suspected_addresses += bool(count_street_addresses(text))
        reason = _privacy_reason(text, filtered.found, names) or _safety_reason(text, classifier)
        if reason:
            filtered.rejected[reason] += 1
        else:
            filtered.kept.append(index)
    return filtered


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


def _safety_reason(text: str, classifier: SafetyClassifier) -> str:
    try:
        verdict = classifier.is_safe(text)
    except Exception:  # a classifier may fail in any way; each of them rejects the row
        return "safety_classifier_failed"
    if verdict is True:
        return ""
    return "safety_unsafe" if verdict is False else "safety_classifier_failed"
