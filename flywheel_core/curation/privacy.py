"""Phase I, privacy: which kinds of personal identifier a text holds (§2.6, rule-based checks).

One compiled pass finds *anchors* (an @, the first digit of a number, a query parameter …); at each
anchor a few short patterns are tried, and where a format has check digits or validity rules they
decide. Every pattern is bounded and matched at the anchor only, so time is linear in the text.

What is found leaves this module as counts by rule. The matched text is in no record, message or
exception, so it can reach no log. Texts are compared in compatibility form (NFKC) with the digits
of Indian and Arabic scripts as ASCII, so ４１１１ and ९८७६ are read as what they say.

Street addresses have no checkable format: `count_street_addresses` guesses, and its counts are
reported apart and reject nothing. Names need a model: `NameFinder` is the adapter, off by default.
"""

import ipaddress
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from flywheel_core.curation import checksums

CONTEXT_CHARS = 28
"""How far before a number a word may stand that says what the number is; ours."""

PIECE_CHARS = 1_000
"""Characters that are brought into compatibility form at a time."""

_DIGIT_ZEROS = (0x0660, 0x06F0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6)
_PLAIN: dict[int, str | None] = {
    **{zero + value: str(value) for zero in _DIGIT_ZEROS for value in range(10)},
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-"),
    **dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD)),
}
"""Digits of other scripts, dashes, and characters that show as nothing."""

ANCHOR = re.compile(
    r"(?P<at>@)"
    r"|(?P<secret>://|[?&\#;](?=[\w.-]{2,40}=)|[/=](?=eyJ))"
    r"|(?P<number>(?<!\d)\d)"
    r"|(?P<code>(?<![0-9A-Za-z])"
    r"(?=[A-Za-z]{2}\d\d|[A-Za-z]{5}\d{4}|[XYZxyz]-?\d{7}|[A-Fa-f][0-9A-Fa-f]{3}:))",
    re.ASCII,
)
PHONE_WORDS = re.compile(
    r"(?:phone|call(?: me)?(?: at| on)?|text(?: me)?(?: at| on)?|whats ?app|mobile|cell|\btel"
    r"|(?:reach|ring) (?:me|us)(?: at| on)?|(?:my|mera|mi|mon) (?:number|no|n[uú]m[eé]ro)"
    r"|m[oó]vil|tel[eé]fono|\btlf|\btfno|(?:ll[aá]ma|escr[ií]be|cont[aá]cta)(?:me|nos|le)?(?: al)?"
    r"|appelle[zr]?(?:[ -]moi)?(?: au)?|portable"
    r"|फोन|फ़ोन|मोबाइल|नंबर)[^\d\n]{0,12}$",
    re.IGNORECASE,
)
OTHER_NUMBER_WORDS = re.compile(
    r"(?:\b(?:order|invoice|ticket|tracking|ref|reference|isbn|issn|id|sku|serial|model|item|"
    r"product|part|upc|ean|case|pedido|factura|barcode)\b|#|№)"
    r"[\s.:#-]*(?:(?:number|num|no|nr|id|code|is|was)\b)?[\s.:#-]*\(?\+?$",
    re.IGNORECASE,
)
QUANTITY_WORDS = re.compile(
    r"\s{0,2}(?:people|inhabitants|habitantes|personas|habitants|views|users|miles|k?m\b|euros?\b"
    r"|dollars?\b|d[oó]lares|pesos|rupees|units|years|%|€|\$|£)",
    re.IGNORECASE,
)
VERSION_WORDS = re.compile(
    r"\b(?:v|ver|versi[oó]n|firmware|release|build|update|section|chapter|kernel|driver)[\s.:#]*$",
    re.IGNORECASE,
)
SSN_WORDS = re.compile(r"(?:\bssn\b|social security)[^\d\n]{0,16}$", re.IGNORECASE)


def _always(match: re.Match[str]) -> bool:
    return True


@dataclass(frozen=True)
class Detector:
    """A rule's pattern, matched at an anchor, and what must hold for the match to count."""

    rule: str
    pattern: re.Pattern[str]
    holds: Callable[[re.Match[str]], bool] = _always


def _alphanumeric(text: str) -> str:
    return "".join(character for character in text.upper() if character.isalnum())


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - CONTEXT_CHARS) : match.start()]


def _checked(check: Callable[[str], bool]) -> Callable[[re.Match[str]], bool]:
    """The match without its separators passes the check."""
    return lambda match: check(_alphanumeric(match.group()))


def _prefixes(match: re.Match[str]) -> list[str]:
    """Every beginning of the match that ends where a group of characters ends, compact.

    What follows an identifier (an expiry date, the next word) may look like one more group.
    """
    whole, text, end = match.group(), match.string, match.end()
    ends = [index for index, character in enumerate(whole) if not character.isalnum()]
    if end == len(text) or not text[end].isalnum():
        ends.append(len(whole))
    return [_alphanumeric(whole[:index]) for index in ends]


def _is_card(match: re.Match[str]) -> bool:
    return any(checksums.is_card(digits) for digits in _prefixes(match))


def _is_iban(match: re.Match[str]) -> bool:
    return any(
        checksums.is_iban(compact)
        for compact in _prefixes(match)
        if sum(map(str.isdigit, compact)) >= 8
    )


def _is_ip(match: re.Match[str]) -> bool:
    """An address that could be somebody's: a loopback or unspecified one is nobody's."""
    try:
        address = ipaddress.ip_address(match.group().rstrip(".:"))
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback)


def _is_ipv4(match: re.Match[str]) -> bool:
    return _is_ip(match) and not VERSION_WORDS.search(_before(match))


def _is_international(match: re.Match[str]) -> bool:
    """Country code 1 has ten digits behind it, and its area and exchange codes start from 2."""
    digits = _alphanumeric(match.group())
    return digits[0] != "1" or (len(digits) >= 11 and digits[1] > "1" and digits[4] > "1")


def _is_dialled_abroad(match: re.Match[str]) -> bool:
    """What follows the international prefix is an E.164 number; country code 1 as above."""
    abroad = _alphanumeric(match["number"])
    return _is_no_other_number(match) and (
        abroad[0] != "1" or (len(abroad) == 11 and abroad[1] > "1" and abroad[4] > "1")
    )


def _is_no_other_number(match: re.Match[str]) -> bool:
    return not (match.group().endswith("000") or OTHER_NUMBER_WORDS.search(_before(match)))


def _is_no_quantity(match: re.Match[str]) -> bool:
    """Thousands are grouped like a Spanish number; then something is counted."""
    after = match.string[match.end() : match.end() + CONTEXT_CHARS]
    currency = _before(match).rstrip()[-1:] in ("€", "$", "£", "₹")
    return _is_no_other_number(match) and not (currency or QUANTITY_WORDS.match(after))


def _is_no_count(match: re.Match[str]) -> bool:
    """Pairs of digits that do not count up one by one (01 02 03 04 05)."""
    pairs = [int(pair) for pair in re.findall(r"\d\d", match.group())]
    steps = {later - earlier for earlier, later in pairwise(pairs)}
    return steps != {1} and _is_no_other_number(match)


def _is_called_a_phone(match: re.Match[str]) -> bool:
    before = _before(match)
    return bool(PHONE_WORDS.search(before)) and not OTHER_NUMBER_WORDS.search(before)


def _is_called_an_ssn(match: re.Match[str]) -> bool:
    return bool(SSN_WORDS.search(_before(match))) and checksums.is_ssn(match.group())


def _is_pan(match: re.Match[str]) -> bool:
    """In lower case only a person's, because other words look like the other kinds."""
    text = match.group()
    return checksums.is_pan(text.upper()) and (text.isupper() or text[3] in "pP")


SECRET_NAME = re.compile(
    r"(?:token|token_hint|secret|password|passwd|passphrase|signature|session|session_?id|sessid"
    r"|credentials?|jwt|assertion|code_verifier|(?:api|access|auth|client|session)key"
    r"|\b(?:key|auth|sig|sid|pwd|otp))[ _]?\d{0,2}$"
)
"""Of a parameter in `_snake_case`'s form: RFC 6749 (OAuth), 7523, 7636, OpenID Connect, signed
URLs, and what services call theirs."""
CODE_NAME = re.compile(r"\b(?:auth|authorization|authorisation|device|oauth\d?|reset)?_?code$")
"""RFC 6749's authorization code and RFC 8628's device code. A voucher is a code too: a secret one
is long."""
CODE_CHARS_MIN = 16


def _is_secret_parameter(match: re.Match[str]) -> bool:
    """By its name in any style: `reset_token`, `resetToken`, `X-Reset-Token`, `oauth2_token`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", match["name"]).lower()
    spaced = re.sub(r"[_.-]", " ", name)
    snake = spaced.replace(" ", "_")
    if any(SECRET_NAME.search(one) for one in (snake, spaced)):
        return True
    return bool(CODE_NAME.search(snake)) and len(match["value"]) >= CODE_CHARS_MIN


def _pattern(text: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    return re.compile(text, re.ASCII | flags)


EMAIL = Detector(
    "email",
    re.compile(
        r"(?<=[^\s@()<>\[\],;:])@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,6}(?:xn--[a-z0-9-]{2,40}"
        r"|[^\W\d_]{2,24})(?![\w-])",
        re.IGNORECASE,
    ),
)
PHONES = (
    Detector("phone", _pattern(r"(?<=\+)[1-9](?:[ ().-]{0,3}\d){8,14}(?!\d)"), _is_international),
    Detector(  # North America: area and exchange from 2, in groups of 3-3-4
        "phone",
        _pattern(
            r"(?<!\d[.,-])(?:1[ .-]\(?)?[2-9]\d\d(?:\)[ .-]?|[ .-])[2-9]\d\d[ .-]\d{4}"
            r"(?![ .-]?\d)"
        ),
        _is_no_other_number,
    ),
    Detector(  # India: mobile numbers start from 6
        "phone",
        _pattern(
            r"(?<![A-Za-z])(?<!\d[.,-])(?:0|91[ -]?)?[6-9]\d{3}"
            r"(?:\d[ -]?\d{5}|[ -]\d{3}[ -]\d{3})(?![ .-]?\d)"
        ),
        _is_no_other_number,
    ),
    Detector(  # Spain: 612 34 56 78, 612 345 678, 91 234 56 78; nine digits, from 6 (mobile) to 9
        "phone",
        _pattern(
            r"(?<!\d[ .,-])(?:[6-9]\d\d([ .-])\d\d\1\d\d\1\d\d|[6-9]\d\d([ -])\d{3}\2\d{3}"
            r"|[89]\d([ .-])\d{3}\3\d\d\3\d\d)(?![ .,-]?\d)"
        ),
        _is_no_quantity,
    ),
    Detector(  # France: ten digits in pairs, the first of them 0
        "phone",
        _pattern(r"(?<!\d[ .,-])0[1-9]([ .-])\d\d(?:\1\d\d){3}(?![ .,-]?\d)"),
        _is_no_count,
    ),
    Detector(  # + as it is dialled: 00, and from North America 011 (E.123, E.164)
        "phone",
        _pattern(
            r"(?<!\d[ .,-])(?:00|011)[ .-]?(?P<number>[1-9](?:[ ().-]{0,2}\d){8,13})(?![ .-]?\d)"
        ),
        _is_dialled_abroad,
    ),
    Detector(  # a trunk 0, as in Britain, Germany and India
        "phone",
        _pattern(r"(?<!\d[ .,-])0\d{2,4}\)?[ -]\d{3,4}[ -]?\d{3,4}(?![ -]?\d)"),
        _is_no_other_number,
    ),
    Detector("phone", _pattern(r"\d(?:[ ().-]{0,2}\d){6,14}(?!\d)"), _is_called_a_phone),
)
IPV6 = Detector(
    "ipv6",  # every assigned block's first group has four hexadecimal digits
    _pattern(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{4}:[0-9A-Fa-f:.]{1,41}(?![0-9A-Za-z])"),
    _is_ip,
)
DETECTORS: Mapping[str, tuple[Detector, ...]] = {
    "at": (EMAIL,),
    "secret": (
        Detector("token_url", _pattern(r"://[^\s/?#@:]{0,128}:[^\s/?#@]{1,256}@")),
        Detector(
            "token_url",
            _pattern(r"(?<=\S)[?&#;](?P<name>[\w.-]{2,40})=(?P<value>[^\s&#]{4,256})"),
            _is_secret_parameter,
        ),
        Detector("token_url", _pattern(r"[/=]eyJ[\w-]{8,256}\.eyJ[\w-]{4}")),
    ),
    "number": (
        Detector("card", _pattern(r"(?<!\d[.,])[2-8]\d(?:[ .-]?\d){11,23}"), _is_card),
        Detector(
            "ssn",
            _pattern(r"(?<!\d[.,-])\d{3}([ -])\d\d\1\d{4}(?!-?\d)"),
            _checked(checksums.is_ssn),
        ),
        Detector("ssn", _pattern(r"\d{9}(?!\d)"), _is_called_an_ssn),
        Detector(
            "aadhaar",
            _pattern(r"(?<!\d\d[ -])(?<!\d[.,])[2-9]\d{3}([ -]?)\d{4}\1\d{4}(?![ .-]?\d)"),
            _checked(checksums.is_aadhaar),
        ),
        Detector(
            "dni",
            _pattern(
                r"(?<!\d[.,])(?:\d{8}|\d\d\.\d{3}\.\d{3})(?:[A-Za-z]|-[A-Za-z]| [A-Z])"
                r"(?![A-Za-z0-9])"
            ),
            _checked(checksums.is_dni),
        ),
        Detector(
            "ipv4",
            _pattern(r"(?<![0-9A-Za-z.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)"),
            _is_ipv4,
        ),
        IPV6,
        *PHONES,
    ),
    "code": (
        Detector("iban", _pattern(r"[A-Za-z]{2}\d\d(?:[ -]?[A-Za-z0-9]){11,30}"), _is_iban),
        Detector("pan", _pattern(r"[A-Za-z]{5}\d{4}[A-Za-z](?![A-Za-z0-9])"), _is_pan),
        Detector(
            "nie",
            _pattern(r"[XYZxyz]-?\d{7}-?[A-Za-z](?![A-Za-z0-9])"),
            _checked(checksums.is_nie),
        ),
        IPV6,
    ),
}
"""By the kind of anchor; a text's time is its anchors times the few patterns of each."""

RULES: tuple[str, ...] = tuple(
    dict.fromkeys(detector.rule for several in DETECTORS.values() for detector in several)
)
"""Every rule by name, in the order in which a rejected row's one reason is chosen."""

STREET = re.compile(
    r"\b\d{1,5}[A-Za-z]?,? (?:[A-Z][a-z]{1,20}\.? ){1,3}"
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Nagar|Marg)\b"
    r"|\b(?:[Cc]alle|[Aa]venida|[Aa]vda\.|[Pp]laza|[Pp]aseo) (?:[Dd]e(?: la| los)? )?"
    r"[A-ZÁÉÍÓÚÑ]\w{1,20},? (?:n[º°o]\.? ?)?\d{1,4}\b"
    r"|\b(?:[Ff]lat|[Hh]ouse|[Pp]lot|H\.) ?[Nn]o\.? ?\d{1,5}\b"
)


def _plain(text: str) -> str:
    """In pieces, because normalising is quadratic in a run of combining marks: a hostile turn of
    100,000 characters took 8 s."""
    if text.isascii():
        return text
    plain = text.translate(_PLAIN)
    pieces = (plain[at : at + PIECE_CHARS] for at in range(0, len(plain), PIECE_CHARS))
    return "".join(unicodedata.normalize("NFKC", piece) for piece in pieces)


def scan(text: str) -> Counter[str]:
    """Counts of identifiers by rule (a number of two kinds counts for both)."""
    plain = _plain(text)
    found: Counter[str] = Counter()
    for anchor in ANCHOR.finditer(plain):
        found.update(_rules_at(plain, anchor.start(), DETECTORS[str(anchor.lastgroup)]))
    return found


def _rules_at(text: str, start: int, detectors: tuple[Detector, ...]) -> set[str]:
    return {
        detector.rule
        for detector in detectors
        if (match := detector.pattern.match(text, start)) and detector.holds(match)
    }


def count_street_addresses(text: str) -> int:
    """How many street addresses there may be: a guess at English, Spanish and Indian forms."""
    return sum(1 for _ in STREET.finditer(text))


class NameFinder(Protocol):
    """Counts the names of people in a text; needs a model, so none is used by default."""

    def count_names(self, text: str) -> int: ...


class PresidioNames:
    """Presidio's analyzer as a `NameFinder`.

    Presidio and its language models are not dependencies: pass a `presidio_analyzer.AnalyzerEngine`
    (or anything with its `analyze`). Names found with a score below `score_min` do not count.
    """

    def __init__(self, analyzer: Any, language: str = "en", score_min: float = 0.5) -> None:
        self._analyzer, self._language, self._score_min = analyzer, language, score_min

    def count_names(self, text: str) -> int:
        found = self._analyzer.analyze(text=text, language=self._language, entities=["PERSON"])
        return sum(result.score >= self._score_min for result in found)
