"""The check digits and validity rules of the identifiers that have them.

Each function takes an identifier in compact form (no separators, upper case) and says whether it
could be one. They are written out here rather than taken from python-stdnum: they are the inner
loop of Phase I, sixty lines in all, and an Apache-2.0 project is easier to take in without an
LGPL run-time dependency. python-stdnum is the independent reference the tests hold them against.
"""

from collections.abc import Mapping

VERHOEFF_TIMES = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
"""Multiplication in the dihedral group D5."""
VERHOEFF_PERMUTE = (
    "0123456789", "1576283094", "5803796142", "8916043527",
    "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip
"""What happens to a digit by its place from the right, modulo 8."""

IBAN_LENGTHS: Mapping[str, int] = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
"""Characters of an IBAN by country (SWIFT's IBAN registry)."""

CARD_LENGTHS: tuple[tuple[range, frozenset[int]], ...] = (
    (range(400000, 500000), frozenset({13, 16, 19})),  # Visa
    (range(510000, 560000), frozenset({16})),  # Mastercard
    (range(222100, 272100), frozenset({16})),  # Mastercard, since 2017
    (range(340000, 350000), frozenset({15})),  # American Express
    (range(370000, 380000), frozenset({15})),
    (range(300000, 306000), frozenset({14, 16, 19})),  # Diners Club
    (range(360000, 370000), frozenset({14, 16, 19})),
    (range(380000, 400000), frozenset({14, 16, 19})),
    (range(352800, 359000), frozenset({16, 19})),  # JCB
    (range(600000, 660000), frozenset({16, 19})),  # Discover, UnionPay, RuPay, Maestro
    (range(500000, 510000), frozenset({16, 19})),  # Maestro, RuPay
    (range(560000, 600000), frozenset({16, 19})),  # Maestro
    (range(670000, 680000), frozenset({16, 19})),
    (range(810000, 830000), frozenset({16})),  # RuPay
)
"""First six digits of the payment networks, and how many digits their numbers have."""

DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
PAN_HOLDERS = "ABCFGHJKLPT"
"""The fourth letter of an Indian PAN: what kind of taxpayer holds it (P is a person)."""


def luhn_holds(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_card(digits: str) -> bool:
    """A network's prefix, that network's length, and the Luhn digit."""
    if len(digits) < 13 or len(set(digits)) == 1:
        return False
    prefix = int(digits[:6])
    known = any(prefix in prefixes and len(digits) in sizes for prefixes, sizes in CARD_LENGTHS)
    return known and luhn_holds(digits)


def iban_holds(compact: str) -> bool:
    """The check digits of an IBAN (ISO 13616): mod 97 is 1."""
    rearranged = compact[4:] + compact[:4]
    return int("".join(str(int(letter, 36)) for letter in rearranged)) % 97 == 1


def is_iban(compact: str) -> bool:
    """A country of the registry, its length, and the check digits."""
    return IBAN_LENGTHS.get(compact[:2]) == len(compact) and iban_holds(compact)


def is_ssn(digits: str) -> bool:
    """A US Social Security number the administration could have issued (nine digits).

    Area 000, 666 and 900–999, group 00 and serial 0000 were never given out; there is no check
    digit. The numbers voided because they stood in advertisements count: a reader cannot tell.
    """
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def verhoeff_holds(digits: str) -> bool:
    """Verhoeff's check digit (1969): catches every single error and transposition."""
    state = 0
    for place, digit in enumerate(reversed(digits)):
        permuted = VERHOEFF_PERMUTE[place % 8][int(digit)]
        state = int(VERHOEFF_TIMES[state][int(permuted)])
    return state == 0


def is_aadhaar(digits: str) -> bool:
    """An Indian Aadhaar number: 12 digits, not from 0 or 1, no palindrome, Verhoeff's digit."""
    plausible = len(digits) == 12 and digits[0] not in "01" and digits != digits[::-1]
    return plausible and verhoeff_holds(digits)


def is_pan(compact: str) -> bool:
    """An Indian PAN: `AAAPA9999A`. Its check letter's rule is secret, so the holder's type and a
    serial above 0000 are all there is to check."""
    return compact[3] in PAN_HOLDERS and compact[5:9] != "0000"


def is_dni(compact: str) -> bool:
    """A Spanish DNI, eight digits and the letter of their remainder by 23."""
    return DNI_LETTERS[int(compact[:8]) % 23] == compact[8]


def is_nie(compact: str) -> bool:
    """A Spanish NIE: as a DNI whose first digit is written X (0), Y (1) or Z (2)."""
    return is_dni(str("XYZ".index(compact[0])) + compact[1:])
