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


DEPTHS = {"first turn": range(1), "short": range(1, 3), "medium": range(3, 10)}


def table_one_excess(
    rows: Sequence[Mapping[str, Any]],
    traffic: Sequence[Mapping[str, Any]],
    *,
    first_turn_share_min: float,
    character_share_max: float,
    tolerance: float,
    targets: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """By how much (in shares) these rows break each constraint of Table 1, counted anew."""
    total = len(rows)
    excess = {
        "first_turn_share_min": first_turn_share_min - sum(r["depth"] == 0 for r in rows) / total
    }
    characters = Counter(row["character_id"] for row in rows if row["character_id"] is not None)
    if characters:
        excess["character_share_max"] = max(characters.values()) / total - character_share_max
    for stratum in ("locale", "language", "jtbd", "depth"):
        wanted = targets.get(stratum) or wanted_shares(traffic, stratum, first_turn_share_min)
        for value, share in wanted.items():
            found = sum(stratum_of(row, stratum) == value for row in rows) / total
            excess[f"{stratum} {value!r}"] = abs(found - share) - tolerance
    return {name: over for name, over in excess.items() if over > 1e-9}


def stratum_of(row: Mapping[str, Any], stratum: str) -> Any:
    if stratum != "depth":
        return row[stratum]
    return next(name for name, depths in DEPTHS.items() if row["depth"] in depths)


def wanted_shares(
    traffic: Sequence[Mapping[str, Any]], stratum: str, first_turn_share_min: float
) -> dict[str, float]:
    """The traffic's shares; first turns lifted to their minimum, the other depths scaled down."""
    values = [stratum_of(row, stratum) for row in traffic]
    known = sorted({value for value in values if value is not None})
    if len(known) < 2:
        return {}
    shares = {value: values.count(value) / len(values) for value in known}
    first = shares.get("first turn", 0.0)
    if stratum == "depth" and 0 < first < first_turn_share_min:
        rest = (1 - first_turn_share_min) / (1 - first)
        shares = {value: share * rest for value, share in shares.items()}
        shares["first turn"] = first_turn_share_min
    return shares
