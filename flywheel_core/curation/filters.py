"""Phase I: privacy and safety, by rules, fail-closed (§2.6).

A row is kept only if every check ran and found nothing. What a rule matched is never stored:
reports hold counts by rule.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flywheel_core.curation.config import NamesConfig
from flywheel_core.curation.language import primary
from flywheel_core.curation.privacy import (
    RULES,
    NameFinder,
    count_street_addresses,
    scan,
)
from flywheel_core.curation.safety import (
    ConversationClassifier,
    Failed,
    Outcome,
    RuleSafetyClassifier,
    SafetyClassifier,
    SafetyVerdict,
    judge_rows,
    row_text,
    within,
)

__all__ = [
    "Filtered",
    "RuleSafetyClassifier",
    "SafetyClassifier",
    "filter_rows",
    "take_or_reject",
    "told",
]


NO_NAMES = NamesConfig()


@dataclass
class Filtered:
    """What Phase I kept, and counts of why it did not keep the rest.

    `rejected` has one reason a row; `found` counts rows by privacy rule (a row may break several);
    `num_suspected_addresses` counts rows, kept or not, that may hold a street address.
    `safety_failures` counts rows without a verdict by cause, `unsafe_categories` unsafe rows by
    category where the classifier names them. `name_failures` counts rows without an answer of the
    name finder by cause, `names_not_checked` rows it let pass in a language it does not read.
    """

    kept: list[int] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    num_suspected_addresses: int = 0
    safety_failures: Counter[str] = field(default_factory=Counter)
    unsafe_categories: Counter[str] = field(default_factory=Counter)
    name_failures: Counter[str] = field(default_factory=Counter)
    names_not_checked: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """All counts in one mapping, so that those of many batches add up; `told` undoes it."""
        named = {"rejected": self.rejected, "found": self.found}
        named |= {"failure": self.safety_failures, "category": self.unsafe_categories}
        named |= {"name_failure": self.name_failures, "no_names": self.names_not_checked}
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
            "name_finder_failures": named("name_failure"),
            "rows_not_checked_for_names_by_language": named("no_names"),
        },
        "safety": {"failures": named("failure"), "rows_by_category": named("category")},
    }


def filter_rows(
    rows: Sequence[Mapping[str, Any]],
    classifier: SafetyClassifier | ConversationClassifier,
    names: NameFinder | None = None,
    safety_timeout_s: float | None = None,
    names_config: NamesConfig = NO_NAMES,
) -> Filtered:
    """Rows by index: those that pass every check, and counts of the others. No text is kept.

    The safety classifier sees only what privacy let through; `safety_timeout_s` is for one call.
    `names_config` says how long `names` may take for a row, and which language it reads.
    """
    filtered = Filtered()
    passed = []
    for index, row in enumerate(rows):
        text = row_text(row)
        filtered.num_suspected_addresses += bool(count_street_addresses(text))
        reason = _privacy_reason(text, filtered.found)
        if names and not reason:
            reason = _name_reason(text, row.get("language"), names, names_config, filtered)
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


def _privacy_reason(text: str, found: Counter[str]) -> str:
    rules = scan(text)
    found.update(rules.keys())
    return f"privacy_{next(rule for rule in RULES if rule in rules)}" if rules else ""


def _name_reason(
    text: str, language: str | None, names: NameFinder, config: NamesConfig, filtered: Filtered
) -> str:
    """A language that no row names is counted as `unknown`."""
    count = within(config.timeout_s, partial(names.count_names, text))
    if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
        if not count and primary(language or "") != primary(config.language):
            filtered.names_not_checked[language or "unknown"] += 1
        return "privacy_name" if count else ""
    filtered.name_failures[count.cause if isinstance(count, Failed) else "nonsense"] += 1
    return "privacy_name_finder_failed"
