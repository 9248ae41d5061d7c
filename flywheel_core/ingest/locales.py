"""Which locales there are: `en`, `en_US`, `hi-Latn-IN`, `es-419`, or a region alone (`US`); and
which languages: BCP 47 tags such as `en`, `hi-Latn`, `es-419`.

ISO 639-1 languages and ISO 3166-1 regions lie beside this file, so nothing is looked up elsewhere.
Three-letter languages (ISO 639-3) and numbered regions (UN M.49) are taken by their form: there
are too many to list, and few in use.
"""

import json
import re
from importlib import resources

LOCALE = re.compile(
    r"(?P<language>[a-z]{2,3})(?:[_-][A-Z][a-z]{3})?(?:[_-](?P<region>[A-Z]{2}|[0-9]{3}))?"
    r"|(?P<alone>[A-Z]{2})"
)
CODES = json.loads(resources.files("flywheel_core.ingest").joinpath("iso_codes.json").read_text())
LANGUAGES, REGIONS = frozenset(CODES["languages"]), frozenset(CODES["regions"])


def is_known_locale(text: str) -> bool:
    """Whether the text has a locale's form, and its two-letter codes are in the ISO's lists."""
    match = LOCALE.fullmatch(text)
    if match is None:
        return False
    language, region = match["language"], match["region"] or match["alone"]
    known_language = language is None or len(language) == 3 or language in LANGUAGES
    return known_language and (region is None or region.isdigit() or region in REGIONS)


def is_language_tag(text: str) -> bool:
    """Whether the text is a BCP 47 tag (RFC 5646) of language, script and region, in the usual
    case. Variants and private subtags are not taken: they are free text, and no stratum."""
    return "_" not in text and text[:2].islower() and is_known_locale(text)
