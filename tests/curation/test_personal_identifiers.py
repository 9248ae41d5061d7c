"""Identifiers and labels: the quick look before the privacy rules hides none of what they find."""

import random
import uuid

import pytest
from pii_samples import MAKERS

from flywheel_core.curation.privacy import RULES, scan
from flywheel_core.ingest.personal import privacy_rule_of


@pytest.mark.parametrize("kind", list(MAKERS))
def test_whatever_the_rules_find_is_found(kind: str) -> None:
    rng = random.Random(kind)
    for number in range(100):
        text = f"{('', 'u ', 'kunde-', 'é ')[number % 4]}{MAKERS[kind](rng)}"
        found = scan(text)
        expected = next((rule for rule in RULES if found[rule]), None)
        assert privacy_rule_of(text) == ("email" if "@" in text else expected)


def test_drawn_and_hashed_identifiers_are_nobodys() -> None:
    rng = random.Random(7)
    drawn = [uuid.UUID(int=rng.getrandbits(128), version=4) for _ in range(3000)]
    assert any(scan(str(one)) for one in drawn), "the mask is needed"
    assert not any(privacy_rule_of(f"t_{one}-3") for one in drawn)
    assert not any(privacy_rule_of(one.hex) for one in drawn if not one.hex.isdigit())
