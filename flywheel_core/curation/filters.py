"""Phase I: privacy and safety, by rules, fail-closed (§2.6).

A row is kept only if every check ran and found nothing. What a rule matched is never stored:
reports hold counts by rule.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
PHONE = re.compile(r"(?<![\w.+-])(?:\+\d[\d ().-]{7,}\d|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?![\w-])")
CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")
CARD_ISSUER = re.compile(r"[3-6]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)")
"""First digits of the payment networks; rows of years and the like start otherwise."""
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.IGNORECASE)
SSN = re.compile(r"(?<!\d)(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?!\d)")
IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
TOKEN_URL = re.compile(
    r"https?://\S*[?&#](?:token|key|auth|sig|session|access_token|password)=\S+", re.IGNORECASE
)


def luhn_holds(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_holds(text: str) -> bool:
    """The check digits of an IBAN (ISO 13616): mod 97 is 1."""
    compact = text.replace(" ", "")
    rearranged = compact[4:] + compact[:4]
    return int("".join(str(int(letter, 36)) for letter in rearranged)) % 97 == 1


def _has_card(text: str) -> bool:
    """A number of 13 to 19 digits, or its first 15 or 16 where more digits follow (an expiry)."""
    return any(
        13 <= len(digits) <= 19
        and CARD_ISSUER.match(digits)
        and any(map(luhn_holds, {digits, digits[:16], digits[:15]}))
        for digits in (re.sub(r"\D", "", match.group()) for match in CARD.finditer(text))
    )


def _has_iban(text: str) -> bool:
    """The pattern takes short words that follow along, so every ending between words is tried."""
    for match in IBAN.finditer(text):
        parts = match.group().split(" ")
        candidates = ("".join(parts[:count]) for count in range(1, len(parts) + 1))
        if any(15 <= len(one) <= 34 and iban_holds(one) for one in candidates):
            return True
    return False


def _has_address(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    def found(text: str) -> bool:
        return any(_is_ip(match.group()) for match in pattern.finditer(text))

    return found


def _is_ip(text: str) -> bool:
    try:
        return not ipaddress.ip_address(text).is_unspecified  # "::" is punctuation in a chat
    except ValueError:
        return False


PRIVACY_RULES: Mapping[str, Callable[[str], bool]] = {
    "email": lambda text: bool(EMAIL.search(text)),
    "card": _has_card,
    "iban": _has_iban,
    "ssn": lambda text: bool(SSN.search(text)),
    "ipv4": _has_address(IPV4),
    "ipv6": _has_address(IPV6),
    "phone": lambda text: bool(PHONE.search(text)),
    "token_url": lambda text: bool(TOKEN_URL.search(text)),
}
"""Each says whether a text holds that kind of identifier."""

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


def filter_rows(
    rows: Sequence[Mapping[str, Any]], classifier: SafetyClassifier
) -> tuple[list[int], Counter[str]]:
    """Indices of the rows that pass, and counts of the others by the rule that caught them."""
    kept: list[int] = []
    rejected: Counter[str] = Counter()
    for index, row in enumerate(rows):
        reason = _rejection(row_text(row), classifier)
        if reason:
            rejected[reason] += 1
        else:
            kept.append(index)
    return kept, rejected


def _rejection(text: str, classifier: SafetyClassifier) -> str:
    for name, holds in PRIVACY_RULES.items():
        if holds(text):
            return f"privacy_{name}"
    try:
        verdict = classifier.is_safe(text)
    except Exception:  # a classifier may fail in any way; each of them rejects the row
        return "safety_classifier_failed"
    if verdict is True:
        return ""
    return "safety_unsafe" if verdict is False else "safety_classifier_failed"
