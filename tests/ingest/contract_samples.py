"""A good row of the traffic contract, and files of rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def good_row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A row that follows the contract in every field."""
    row: dict[str, Any] = {
        "row_id": f"c{number}-1",
        "day": "2026-01-05",
        "messages": [
            {"role": "system", "content": "You are Ada."},
            {"role": "user", "content": f"Hello number {number}!"},
            {"role": "assistant", "content": "Hi! How are you?"},
            {"role": "user", "content": "Fine, and you?"},
        ],
        "surface": "user",
        "conversation_id": f"c{number}",
        "turn_index": 1,
        "user_id": f"u{number % 7}",
        "character_id": "ada",
        "locale": "en_US",
        "language": "en",
        "jtbd": "chat",
        "depth": 1,
        "response": "Very well, thank you.",
        "model_digest": "0" * 64,
        "continue_10min": True,
        "love": False,
        "thumb_up": None,
        "thumb_down": None,
        "feedback": None,
    }
    return row | changes


def write_lines(path: Path, rows: Sequence[dict[str, Any] | bytes]) -> Path:
    """JSON lines; bytes go in as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path
