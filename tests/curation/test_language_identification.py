"""Language id on hand-written chat lines, and the job-to-be-done from a label or a classifier."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from curation_samples import traffic_rows
from language_lines import LINES

from flywheel_core.curation.labels import jobs_of, languages_of
from flywheel_core.curation.language import identify
from flywheel_core.engines.base import Messages

CODES = ("en", "es", "hi", "hi-Latn")


def test_accuracy_by_language_with_the_confusion_table() -> None:
    table = Counter((language, identify(line)) for language, line in LINES)
    assert len(LINES) >= 200
    totals = Counter(language for language, _ in LINES)
    accuracy = {code: table[code, code] / totals[code] for code in CODES}
    print("\nrows are true, columns found:" + "".join(f"{code:>9}" for code in CODES))
    for code in CODES:
        cells = "".join(f"{table[code, found]:9}" for found in CODES)
        print(f"{code:>28} {cells}   accuracy {accuracy[code]:.3f}")
    assert min(accuracy.values()) >= 0.95


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", None),
        ("😂😂", None),
        ("12:30?", None),
        ("KYA HAAL HAI", "hi-Latn"),
        ("मेरा favourite color blue है", "hi"),
        ("I really think that the weather has been awful this week, don’t you?", "en"),
        ("\ud800 hola amigo", "es"),
        ("hai " * 20_000, "hi-Latn"),
    ],
)
def test_odd_lines(text: str, language: str | None) -> None:
    assert identify(text) == language


def test_other_languages_are_for_py3langid_and_only_those_asked_for() -> None:
    line = "Je ne sais pas pourquoi il est toujours en retard le matin"
    assert identify(line, ("en", "fr", "de")) == "fr"
    assert identify("kya haal hai", ("en", "es")) in ("en", "es")
    with pytest.raises(ValueError, match="Unknown language"):
        identify("xyzzy", ("en", "klingon"))


def test_a_logged_language_stays_and_a_missing_one_is_found() -> None:
    rows = traffic_rows(3, language=None)
    for row, text in zip(rows, ("kya haal hai", "hola amigo", "123"), strict=True):
        row["messages"] = [row["messages"][0], {"role": "user", "content": text}]
    rows[1]["language"] = "pt"
    labelled = languages_of(rows)
    assert labelled.values == ["hi-Latn", "pt", None]
    assert labelled.counts == {"found": 1, "logged": 1, "none": 1}
    assert rows[0]["language"] is None


class Jobs:
    """A classifier of jobs that answers as told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def jobs_of(self, conversations: Sequence[Messages]) -> Sequence[str]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer] * len(conversations)


@pytest.mark.parametrize(
    ("classifier", "jobs", "counts"),
    [
        (None, [None, "info"], {"none": 1, "logged": 1}),
        (Jobs("chat"), ["chat", "info"], {"found": 1, "logged": 1}),
        (Jobs(None), [None, "info"], {"none": 1, "logged": 1}),
        (Jobs("poetry"), [None, "info"], {"failed": 1, "logged": 1}),
        (Jobs(7), [None, "info"], {"failed": 1, "logged": 1}),
        (Jobs(TimeoutError()), [None, "info"], {"failed": 1, "logged": 1}),
    ],
)
def test_a_job_is_logged_or_classified_or_not_applicable(
    classifier: Jobs | None, jobs: list[str | None], counts: dict[str, int]
) -> None:
    rows = traffic_rows(2, jtbd=None)
    rows[1]["jtbd"] = "info"
    labelled = jobs_of(rows, classifier, ("chat", "info"))
    assert labelled.values == jobs
    assert labelled.counts == counts
