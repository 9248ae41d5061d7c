"""Traffic made up row by row, and a check of Table 1's caps that shares no code with curation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LANGUAGES = ("en", "es", "hi")
JOBS = ("chat", "advice", "info")
SYSTEM = {"role": "system", "content": "You are a character."}


def traffic_rows(count: int, seed: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """Rows of the internal surface with 50 characters, 200 users, one row a conversation."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        depth = int(rng.integers(0, 4))
        row = {
            "row_id": f"r{seed}-{number}",
            "day": "2026-01-05",
            "messages": [SYSTEM, {"role": "user", "content": f"Question {seed}-{number}?"}],
            "surface": "internal",
            "conversation_id": f"c{seed}-{number}",
            "turn_index": depth,
            "user_id": f"u{rng.integers(200)}",
            "character_id": f"k{rng.integers(50)}",
            "locale": None,
            "language": LANGUAGES[int(rng.integers(3))],
            "jtbd": JOBS[int(rng.integers(3))],
            "depth": depth,
            "response": "Fine.",
            "model_digest": "production",
        }
        rows.append(row | changes)
    return rows


def broken_caps(
    rows: Sequence[Mapping[str, Any]], *, first_turn_share_min: float, character_share_max: float
) -> list[str]:
    """Which caps these rows break, counted anew."""
    broken = []
    first_turns = sum(1 for row in rows if row["depth"] == 0)
    if first_turns < first_turn_share_min * len(rows) - 1e-9:
        broken.append(f"first turns {first_turns} of {len(rows)}")
    characters = Counter(row["character_id"] for row in rows if row["character_id"] is not None)
    broken += [
        f"character {name} {count} of {len(rows)}"
        for name, count in characters.items()
        if count > character_share_max * len(rows) + 1e-9
    ]
    return broken
