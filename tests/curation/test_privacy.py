"""Privacy rules: check digits against python-stdnum, planted truths in real text, linear time."""

import logging
import random
import re
import re._parser as sre_parser  # type: ignore[import-not-found]
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import iban, luhn, numdb, verhoeff
from stdnum.es import dni, nie
from stdnum.in_ import aadhaar
from stdnum.in_ import pan as indian_pan

from flywheel_core.curation import checksums, privacy
from flywheel_core.curation.privacy import (
    RULES,
    PresidioNames,
    count_street_addresses,
    scan,
)
from tests.bench.pii import REAL_FILE, measure_privacy
from tests.curation.pii_samples import MAKERS, digits


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"the data set is not here: {REAL_FILE}")
def test_planted_identifiers_are_found_and_clean_rows_pass() -> None:
    found = measure_privacy()
    print(f"\n{found}")
    assert found.num_planted >= 500
    assert found.recall >= 0.99
    assert found.false_alarm_rate <= 0.005
    assert found.near_misses.total() / found.num_near_misses <= 0.005


@pytest.mark.parametrize("kind", list(MAKERS))
def test_every_kind_is_found_alone_between_brackets_and_before_words(kind: str) -> None:
    rng = random.Random(5)
    for _ in range(200):
        identifier = MAKERS[kind](rng)
        for text in (identifier, f"({identifier}), ok?", f"it is {identifier} thanks", identifier):
            assert scan(text)[kind] == 1 or kind == "phone", kind
            assert scan(text)[kind] >= 1, kind


def test_the_rules_are_the_kinds_that_are_planted() -> None:
    assert set(RULES) == set(MAKERS)


@settings(max_examples=300, deadline=None)
@given(st.from_regex(r"[0-9]{12,19}", fullmatch=True))
def test_luhn_and_verhoeff_agree_with_stdnum(number: str) -> None:
    number = number.translate({ord(c): str(int(c)) for c in number})
    assert checksums.luhn_holds(number) == luhn.is_valid(number)
    assert checksums.verhoeff_holds(number) == verhoeff.is_valid(number)
    repaired = number[:11] + verhoeff.calc_check_digit(number[:11])
    for one in (number[:12], repaired):
        assert checksums.is_aadhaar(one) == aadhaar.is_valid(one)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 99_999_999), st.sampled_from(checksums.DNI_LETTERS))
def test_dni_and_nie_agree_with_stdnum(number: int, letter: str) -> None:
    text = f"{number:08}{letter}"
    assert checksums.is_dni(text) == dni.is_valid(text)
    foreign = "XYZ"[number % 3] + text[1:]
    assert checksums.is_nie(foreign) == nie.is_valid(foreign)


def test_iban_lengths_are_those_of_the_registry() -> None:
    def length(country: str) -> int | None:
        found = dict(numdb.get("iban").info(f"{country}00")[0][1] or {}).get("bban")
        return found and 4 + sum(int(part.split("!")[0]) for part in _pieces(found))

    letters = [chr(code) for code in range(65, 91)]
    countries = [first + second for first in letters for second in letters]
    registry = {country: length(country) for country in countries if length(country)}
    assert dict(checksums.IBAN_LENGTHS) == registry
    rng = random.Random(6)
    for country, size in registry.items():
        body = digits(rng, size - 4)
        number = country + iban.calc_check_digits(f"{country}00{body}") + body
        assert checksums.is_iban(number)
        assert not checksums.is_iban(number + "0")


def _pieces(structure: str) -> list[str]:
    """`4!n12!c` as [`4!`, `12!`]."""
    return [piece for piece in structure.replace("!n", "! ").replace("!a", "! ")
            .replace("!c", "! ").split() if piece]  # fmt: skip


def test_pan_agrees_with_stdnum_on_the_holder_and_the_serial() -> None:
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        for serial in ("0000", "0001", "9999"):
            text = f"AAA{letter}K{serial}Q"
            assert checksums.is_pan(text) == indian_pan.is_valid(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("मेरा नंबर ९८७६५४३२१० है", "phone"),
        ("card ４１１１ １１１１ １１１１ １１１１", "card"),
        ("4111\u00a01111\u00a01111\u00a01111", "card"),
        ("4111–1111–1111–1111", "card"),
        ("jane\u200b@example.com", "email"),
        ("नाम: रवि@example.com", "email"),
        ("mobile no: 9876543210", "phone"),
        ("what is your phone?\n555-0187", "phone"),
        ("my ssn is 219099999", "ssn"),
        ("::ffff:10.1.2.3", "ipv4"),
        ("6 2345 6789 0124"[2:], "aadhaar"),
    ],
)
def test_other_scripts_and_invisible_characters_hide_nothing(text: str, rule: str) -> None:
    assert scan(text)[rule] == 1


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("https://x.example/r?resetToken=AbC123def456", "token_url"),
        ("https://x.example/r?userToken=AbC123def456", "token_url"),
        ("https://x.example/r?oauth2_token=AbC123def456", "token_url"),
        ("https://x.example/cb?code=4/0AX4XfWhabcdefgh&scope=email", "token_url"),
        ("https://x.example/cb?state=xyz&code=SplxlOBeZQQYbYS6WxSbIA", "token_url"),
        ("escribeme al 612345678", "phone"),
        ("llama al 912 345 678", "phone"),
        ("0034 612 345 678", "phone"),
        ("0044 20 7946 0958", "phone"),
        ("06 12 34 56 78", "phone"),
        ("https://shop.example/?code=SAVE20", ""),
        ("https://x.example/?monkey=abcdef", ""),
        ("912 345 678 habitantes", ""),
        ("01 02 03 04 05", ""),
        ("612345678", ""),
    ],
)
def test_secret_parameters_and_numbers_as_europeans_write_them(text: str, rule: str) -> None:
    assert set(scan(text)) == ({rule} if rule else set())


def test_a_part_of_a_longer_number_is_no_identifier() -> None:
    for text in ("1234 2345 6789 0124", "2345 6789 0124 99", "23456789012401", "1.2.3.4.5"):
        assert not scan(text), text


HOSTILE = (
    "1", "a", "1 ", "1.", "1-", "@", "a@", "@a.", "a.", "://", "://a:", "?token=", "aa11 ", "+1 ",
    "(", "2001:", "aaaaa1111", "=eyJ", "4111 1111 1111 1111 ", "x1234567", "é1", "１", " ", "1,",
    "12 Main ", "Calle ", "call me ", "order number ", "?resetToken=aB1", "00 1", "01 ",
    "\ud800", "\x00", "\u0301\u0316",
)  # fmt: skip


def test_every_pattern_is_bounded_so_time_is_linear_in_the_text() -> None:
    """A match has a longest length, so an anchor costs a constant whatever the text's length, and
    `finditer` meets each anchor once. Words before a number are looked for in a bounded slice."""
    patterns = [one.pattern for several in privacy.DETECTORS.values() for one in several]
    for pattern in (privacy.ANCHOR, privacy.STREET, *patterns):
        longest = sre_parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG).getwidth()[1]
        assert longest <= 700, pattern.pattern
    unbounded = sre_parser.parse(r"\d+").getwidth()[1]
    assert unbounded > 700
    assert privacy.CONTEXT_CHARS <= 64


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_with_the_length_and_not_with_its_square(unit: str) -> None:
    """A hostile text against an eighth of it: 8 times is linear, 64 quadratic. In CPU time of this
    process, the least of a few tries, so that what else the machine does hardly shows."""

    def cpu_s(size: int, tries: int) -> float:
        text = (unit * (size // len(unit) + 1))[:size]
        return min(_scan_cpu_s(text) for _ in range(tries))

    assert cpu_s(64_000, 2) / max(cpu_s(8_000, 3), 0.0005) < 28


def _scan_cpu_s(text: str) -> float:
    start = time.process_time()
    scan(text)
    count_street_addresses(text)
    return time.process_time() - start


def test_street_addresses_are_guessed_apart() -> None:
    found = ["12 Baker Street", "Calle Mayor, 15", "Flat No 3, MG Road", "221B Baker St"]
    assert [count_street_addresses(f"I live at {text}.") for text in found] == [1, 1, 1, 1]
    assert count_street_addresses("In 1984 Big Brother came. 7 Wonders exist.") == 0
    assert not scan("12 Baker Street")


def test_no_match_leaves_in_results_logs_or_errors(caplog: pytest.LogCaptureFixture) -> None:
    secret = "jane@example.com 4111 1111 1111 1111 999.1.1.1 2001:zz::1"
    with caplog.at_level(logging.DEBUG):
        found = scan(secret)
    assert found == {"email": 1, "card": 1}
    assert not {part for part in secret.split() if part in repr(found) + caplog.text}


def test_presidio_is_asked_for_people_and_its_scores_are_used() -> None:
    asked = []

    def analyze(**arguments: object) -> list[SimpleNamespace]:
        asked.append(arguments)
        return [SimpleNamespace(score=score) for score in (0.2, 0.5, 0.9)]

    finder = PresidioNames(SimpleNamespace(analyze=analyze), language="es")
    assert finder.count_names("Ana y Luis") == 2
    assert asked == [{"text": "Ana y Luis", "language": "es", "entities": ["PERSON"]}]
