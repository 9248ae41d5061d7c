"""Phase I: what is private or unsafe goes, near misses stay, and doubt rejects."""

import threading
from typing import Any

import pytest
from curation_samples import traffic_rows

from flywheel_core.curation.config import NamesConfig
from flywheel_core.curation.filters import RuleSafetyClassifier, filter_rows, told
from flywheel_core.curation.privacy import scan

PRIVATE = {
    "email": ["write to jane.doe+chat@mail.example.co.uk please", "a@b.io"],
    "card": [
        "it is 4111 1111 1111 1111",
        "4111111111111111.",
        "3782-822463-10005",
        "my card is 4111 1111 1111 1111 12/26",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "GB82WEST12345698765432",
        "send it to BE68 5390 0754 7034 that is mine",
        "NL91 ABNA 0417 1643 00 thanks",
    ],
    "ssn": ["my number is 219-09-9999"],
    "ipv4": ["try 192.168.17.4 first"],
    "ipv6": ["it was 2001:db8:85a3::8a2e:370:7334", "fe80::1 works"],
    "phone": ["call +44 20 7946 0958", "(212) 555-0187", "212-555-0187 at night"],
    "token_url": ["see https://x.example/a?user=1&access_token=abc123"],
}
HARMLESS = [
    "",
    "They won 222-0 in 1916, then 7-3 in 2018-2019.",
    "It was 12:30:45, I swear :: really.",
    "Version 1.2.3 came before 10.11.12.",
    "4111 1111 1111 1112 has a wrong check digit",
    "DE89 3704 0044 0532 0130 01 does too",
    "000-12-3456 is no SSN, nor is 666-12-3456, nor 900-12-3456",
    "300.300.300.300 is no address",
    "mail me @home or at example dot com",
    "https://example.com/page?id=7 has no secret",
    "pi is 3.14159265358979",
    "in 2001 2002 2003 2004 we met",
]


@pytest.mark.parametrize(
    ("rule", "text"), [(rule, text) for rule, texts in PRIVATE.items() for text in texts]
)
def test_private_text_is_caught_by_its_rule(rule: str, text: str) -> None:
    assert scan(text)[rule]


@pytest.mark.parametrize("text", HARMLESS)
def test_near_misses_are_not_private(text: str) -> None:
    assert not scan(text)


def test_every_turn_and_the_response_are_looked_at() -> None:
    rows = traffic_rows(4)
    rows[1]["response"] = "I am jane@example.com"
    rows[2]["messages"] = [{"role": "system", "content": "call 212-555-0187"}]
    rows[3]["messages"] = [{"role": "user", "content": "how to make a bomb"}]
    filtered = filter_rows(rows, RuleSafetyClassifier())
    rejected = filtered.rejected
    assert filtered.kept == [0]
    assert rejected == {"privacy_email": 1, "privacy_phone": 1, "safety_unsafe": 1}
    assert "jane" not in str(rejected)


def test_a_row_that_breaks_several_rules_counts_once_and_each_rule_counts_it() -> None:
    rows = traffic_rows(3)
    rows[1]["response"] = "jane@example.com, 4111 1111 1111 1111, 12 Baker Street"
    rows[2]["response"] = "I grew up at 12 Baker Street"
    filtered = filter_rows(rows, RuleSafetyClassifier())
    assert filtered.kept == [0, 2]
    assert filtered.rejected == {"privacy_email": 1}
    assert filtered.found == {"email": 1, "card": 1}
    assert filtered.num_suspected_addresses == 2


class Names:
    """A name finder that answers something, or fails with the text in its message."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def count_names(self, text: str) -> int:
        if self.answer == "raise":
            raise ValueError(text)
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "rejected"),
    [
        (0, {}),
        (2, {"privacy_name": 3}),
        ("raise", {"privacy_name_finder_failed": 3}),
        (None, {"privacy_name_finder_failed": 3}),
        (True, {"privacy_name_finder_failed": 3}),
        (-1, {"privacy_name_finder_failed": 3}),
    ],
)
def test_names_are_looked_for_only_with_a_finder_and_doubt_rejects(
    answer: Any, rejected: dict[str, int]
) -> None:
    assert filter_rows(traffic_rows(3), RuleSafetyClassifier(), Names(answer)).rejected == rejected
    assert not filter_rows(traffic_rows(3), RuleSafetyClassifier()).rejected


@pytest.mark.parametrize(("answer", "cause"), [("raise", "raised"), (None, "nonsense")])
def test_why_the_name_finder_gave_no_answer_is_counted(answer: Any, cause: str) -> None:
    counts = filter_rows(traffic_rows(3), RuleSafetyClassifier(), Names(answer)).counts()
    assert told(counts)["privacy"]["name_finder_failures"] == {cause: 3}


class Hangs:
    """A name finder that never answers about one row."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def count_names(self, text: str) -> int:
        if "hang" in text:
            self.released.wait()
        return 0


def test_a_name_finder_that_hangs_rejects_its_row_and_no_other() -> None:
    rows = traffic_rows(3)
    rows[1]["response"] = "hang"
    finder = Hangs()
    config = NamesConfig(timeout_s=0.2)
    filtered = filter_rows(rows, RuleSafetyClassifier(), finder, names_config=config)
    finder.released.set()
    assert filtered.kept == [0, 2]
    assert filtered.rejected == {"privacy_name_finder_failed": 1}
    assert filtered.name_failures == {"timed_out": 1}


def test_rows_in_a_language_the_name_finder_does_not_read_are_counted_as_not_checked() -> None:
    rows = traffic_rows(5)
    for row, language in zip(rows, ("en", "en-GB", "es", None, "hi"), strict=True):
        row["language"] = language
    rows[4]["response"] = "jane@example.com"
    filtered = filter_rows(rows, RuleSafetyClassifier(), Names(0))
    assert filtered.kept == [0, 1, 2, 3]
    shown = told(filtered.counts())["privacy"]["rows_not_checked_for_names_by_language"]
    assert shown == {"es": 1, "unknown": 1}
    found = filter_rows(rows, RuleSafetyClassifier(), Names(1))
    assert found.rejected["privacy_name"] == 4
    assert not found.names_not_checked
    assert not filter_rows(rows, RuleSafetyClassifier()).names_not_checked


class Odd:
    """A classifier that answers something else."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def is_safe(self, text: str) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "answer",
    [None, 1, "safe", float("nan"), [], RuntimeError("down"), TimeoutError(), ValueError()],
)
def test_a_classifier_that_fails_or_talks_nonsense_rejects_the_row(answer: Any) -> None:
    filtered = filter_rows(traffic_rows(3), Odd(answer))
    assert filtered.kept == []
    assert filtered.rejected == {"safety_classifier_failed": 3}


def test_a_plain_verdict_counts() -> None:
    assert filter_rows(traffic_rows(3), Odd(True)).kept == [0, 1, 2]
    assert filter_rows(traffic_rows(3), Odd(False)).rejected == {"safety_unsafe": 3}
