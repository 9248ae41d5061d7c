"""The characters: eight traits by five rules, with skewed popularity.

The paper caps a character at 3 % of a curated set (Table 1), so at least 34 are needed; there
are 48, and the most popular holds about 15 % of the traffic, so that the cap has work to do.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from flywheel_core.world.phrases import TRAITS, Trait

Rule = Literal["none", "no_emoji", "no_lists", "brief", "ask_questions"]
RULES: tuple[Rule, ...] = ("none", "no_emoji", "no_lists", "brief", "ask_questions")

RULE_TEXT: dict[Rule, str] = {
    "none": "",
    "no_emoji": "No emoji.",
    "no_lists": "No lists.",
    "brief": "Be brief.",
    "ask_questions": "Ask questions.",
}

BRIEF_MAX_SENTENCES = 2
"""A character told to be brief breaks its rule with more sentences than this."""

POPULARITY_EXPONENT = 0.8
"""Zipf exponent of user traffic over characters; ours (the paper publishes no distribution)."""

NAMES = (
    "Luna", "Rex", "Maya", "Otto", "Zara", "Finn", "Ivy", "Hugo",
    "Nila", "Axel", "Rosa", "Kai", "Vera", "Leo", "Mina", "Theo",
    "Asha", "Bruno", "Cleo", "Dev", "Elsa", "Faye", "Gus", "Hana",
    "Igor", "Juno", "Kira", "Lars", "Mila", "Nico", "Olga", "Pia",
    "Quin", "Ravi", "Sara", "Tara", "Ugo", "Vik", "Wren", "Xena",
    "Yara", "Zeno", "Anya", "Boris", "Cora", "Dina", "Emil", "Flor",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Character:
    """A persona users talk to: one trait it shows, one rule it keeps."""

    character_id: str
    name: str
    trait: Trait
    rule: Rule

    @property
    def instructions(self) -> str:
        """The system turn's text: name, trait, and the rule if there is one."""
        return f"{self.name}, {self.trait}. {RULE_TEXT[self.rule]}".strip()


def _make_characters() -> tuple[Character, ...]:
    """Each trait with each rule once, then each trait a second time with no rule.

    The shuffle is fixed so that popularity, which follows the order, is not tied to a trait.
    """
    combinations = [(trait, rule) for trait in TRAITS for rule in RULES]
    combinations += [(trait, "none") for trait in TRAITS]
    order = np.random.default_rng(20260301973).permutation(len(combinations))
    return tuple(
        Character(name.lower(), name, *combinations[index])
        for name, index in zip(NAMES, order, strict=True)
    )


CHARACTERS: tuple[Character, ...] = _make_characters()
"""From the most to the least popular on the user surface."""

CHARACTER_BY_ID: dict[str, Character] = {one.character_id: one for one in CHARACTERS}


@cache
def popularity() -> npt.NDArray[np.float64]:
    """Each character's share of user traffic, in the order of `CHARACTERS`; sums to 1."""
    ranks = np.arange(1, len(CHARACTERS) + 1, dtype=np.float64)
    weights = ranks**-POPULARITY_EXPONENT
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    shares.setflags(write=False)
    return shares
