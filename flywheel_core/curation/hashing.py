"""Chance that does not change: numbers in [0, 1) drawn from texts by a hash."""

import hashlib


def hash_share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
