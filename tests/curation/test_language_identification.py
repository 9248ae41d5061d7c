"""Language id on hand-written chat lines, and the job-to-be-done from a label or a classifier."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from curation_samples import traffic_rows
from language_lines import LINES, SHORT_TURNS

from flywheel_core.curation.labels import jobs_of, languages_of
from flywheel_core.curation.language import identify, says_enough
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


def test_a_short_turn_does_not_outweigh_the_logs_label_and_is_counted() -> None:
    rows = traffic_rows(len(SHORT_TURNS))
    for row, (language, text) in zip(rows, SHORT_TURNS, strict=True):
        row["language"] = language
        row["messages"] = [row["messages"][0], {"role": "user", "content": text}]
    assert sum(identify(text) != language for language, text in SHORT_TURNS) > 15
    labelled = languages_of(rows)
    assert labelled.values == [language for language, _ in SHORT_TURNS]
    assert not labelled.changed
    assert labelled.counts == {"undecided": len(SHORT_TURNS)}


def test_the_whole_talk_is_identified_and_not_its_last_turn() -> None:
    rows = traffic_rows(2, language="en")
    for row, last in zip(rows, ("ok thank you", "lol"), strict=True):
        row["messages"] = [
            row["messages"][0],
            {"role": "user", "content": "hola, ¿qué tal estás hoy?"},
            {"role": "assistant", "content": "I am fine, and how are you? What would you like?"},
            {"role": "user", "content": "cuéntame algo de tu vida, por favor"},
            {"role": "assistant", "content": "What would you like to know about me?"},
            {"role": "user", "content": last},
        ]
    labelled = languages_of(rows)
    assert labelled.values == ["es", "es"]
    assert labelled.changed == {"en → es": 2}


def test_from_how_many_letters_on_everyday_words_are_right() -> None:
    """On every run of words of the hand-written lines; see `LETTERS_MIN`."""
    runs = {
        (language, " ".join(words[first:stop]))
        for language, words in ((language, line.split()) for language, line in LINES)
        for first in range(len(words))
        for stop in range(first + 1, len(words) + 1)
    }
    decided = [(language, text) for language, text in runs if says_enough(text)]
    wrong = [(language, text) for language, text in decided if identify(text) != language]
    print(f"\n{len(decided)} of {len(runs)} runs of words outweigh a label: {len(wrong)} wrongly")
    assert len(decided) > 1500
    assert len(wrong) <= 0.002 * len(decided)


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
