"""Identifiers and labels that say who somebody is.

Phase I looks for personal data in what was said (paper §2.6). Identifiers and labels are not seen
there, but reports print them and prompts carry them; so the contract refuses such ones at the door.
"""

import re
import unicodedata
from functools import lru_cache

from flywheel_core.curation.privacy import RULES, scan

VALUES_CACHED = 65_536
LABEL_CHARS_MAX = 64
LABEL_SIGNS = " _-.,/&+:()\u2013"
"""Enough for the paper's own, such as "Role-playing \u2013 Romantic"."""

_OPAQUE = re.compile(
    r"(?<![0-9A-Za-z])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|(?=\d*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}))(?![0-9A-Za-z])",
    re.IGNORECASE,
)
"""UUIDs and digests: drawn or hashed, but 0.3 % of them hold what reads as a phone number."""
_MAY_BE_PERSONAL = re.compile(
    r"[=:]|eyJ|[^\x00-\x7f]|(?:\d[^\d]{0,3}){7}|\d\.\d|[A-Za-z]{5}\d{4}", re.ASCII
)
"""Whatever a privacy rule can match holds one of these; few identifiers do."""


@lru_cache(maxsize=VALUES_CACHED)
def privacy_rule_of(value: str) -> str | None:
    """The first privacy rule that finds something in an identifier or a label, by its name.

    A number is what it reads as: one of ten digits may be a phone number, one of sixteen a card's.
    Sources whose identifiers are plain numbers hash them first. An `@` is enough for an address or
    a handle: what follows it is often glued to more (`jane@example.com-3`).
    """
    if "@" in value:
        return "email"
    masked = _OPAQUE.sub("", value)
    if _MAY_BE_PERSONAL.search(masked) is None:
        return None
    found = scan(masked)
    return next((rule for rule in RULES if found[rule]), None)


@lru_cache(maxsize=VALUES_CACHED)
def is_label(value: str) -> bool:
    """Whether a text is a short label of letters (of any script), digits and a few signs."""
    return (
        len(value) <= LABEL_CHARS_MAX
        and value[0].isalnum()
        and all(
            one.isalnum() or one in LABEL_SIGNS or unicodedata.category(one)[0] == "M"
            for one in value
        )
    )
