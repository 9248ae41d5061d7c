"""Which language a chat line is in (Table 1).

py3langid knows scripts and long texts. It has no romanized Hindi ("kya haal hai"), which is how
much of Hindi is typed and where the paper's model failed (Table 7: English answers to Hindi
chats), so such lines are told by their everyday words. The same words settle lines too short for
py3langid's statistics. Codes are ISO 639-1, romanized Hindi is BCP 47's `hi-Latn`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

LANGUAGES = ("en", "es", "hi")
"""What the product speaks; py3langid chooses among these. Ours."""
ROMANIZED_HINDI = "hi-Latn"
SHORT_WORDS = 8
"""Up to so many words, everyday words of one language outweigh py3langid; ours."""
LETTERS_MIN = 5
"""From so many letters on, everyday words outweigh a label. Of all 1,381 runs of words in the
hand-written lines of the tests that everyday words decide, the two that are wrong are shorter ("ok"
and "help"); of the 408 that nothing but py3langid decides, a third is wrong. Ours."""

DEVANAGARI = re.compile(r"[\u0900-\u097f]")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def _read_words() -> dict[str, frozenset[str]]:
    file = resources.files("flywheel_core.curation").joinpath("everyday_words.json")
    return {
        language: frozenset(words)
        for language, words in json.loads(file.read_text("utf-8")).items()
    }


EVERYDAY_WORDS: Mapping[str, frozenset[str]] = _read_words()
"""Grammar and everyday words by language; Hindi's as they are typed in Latin letters, in their
common spellings."""


def primary(language: str) -> str:
    """`en` of `en-GB` or `en_GB`."""
    return language.replace("_", "-").split("-")[0].lower()


def identify(text: str, languages: Sequence[str] = LANGUAGES) -> str | None:
    """The language's code, or None where the text has no letters.

    Hindi in Latin letters is `hi-Latn` where `languages` has `hi`.
    """
    words = _words(text)
    if not words:
        return None
    if "hi" in languages and _is_in_devanagari(text, words):
        return "hi"
    told = _by_everyday_words(words, languages)
    if told == ROMANIZED_HINDI or (told and len(words) <= SHORT_WORDS):
        return told
    return str(_identifier(tuple(sorted(languages))).classify(text)[0])


def says_enough(text: str, languages: Sequence[str] = LANGUAGES) -> bool:
    """Whether what `identify` finds outweighs a label: the script decides, or everyday words in
    `LETTERS_MIN` letters or more, or there are more than `SHORT_WORDS` different words for
    py3langid's statistics. "no", "lol" and "hahaha" are of every language."""
    words = _words(text)
    if "hi" in languages and words and _is_in_devanagari(text, words):
        return True
    if len(set(words)) > SHORT_WORDS:
        return True
    letters = sum(map(str.isalpha, text))
    return letters >= LETTERS_MIN and _by_everyday_words(words, languages) is not None


def _words(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in WORD.findall(text)]


def _is_in_devanagari(text: str, words: Sequence[str]) -> bool:
    return len(DEVANAGARI.findall(text)) > sum(map(str.isascii, "".join(words)))


def _by_everyday_words(words: Sequence[str], languages: Sequence[str]) -> str | None:
    """The language most words are of, counting a word of several languages for none; None where
    two are level. Romanized Hindi needs a third of the words, as people mix in English nouns."""
    counts = {
        language: sum(word in known and _is_of_one(word) for word in words)
        for language, known in EVERYDAY_WORDS.items()
        if language.removesuffix("-Latn") in languages
    }
    ranked = sorted(counts.items(), key=lambda pair: -pair[1])
    if not ranked or ranked[0][1] == 0 or [count for _, count in ranked].count(ranked[0][1]) > 1:
        return None
    language, count = ranked[0]
    return None if language == ROMANIZED_HINDI and 3 * count < len(words) else language


@lru_cache(maxsize=4096)
def _is_of_one(word: str) -> bool:
    return sum(word in known for known in EVERYDAY_WORDS.values()) == 1


@lru_cache(maxsize=8)
def _identifier(languages: tuple[str, ...]) -> Any:
    """py3langid's model, which comes with the package, narrowed to these languages."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(languages)
    return identifier
