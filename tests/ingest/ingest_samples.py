"""Small files in both formats."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared/reference/topical_chat"
REAL_FILE = REFERENCE / "test_freq.json.gz"


def traffic_row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A row of the contract with every field; `changes` replace values."""
    row: dict[str, Any] = {
        "row_id": f"chat{number}-1",
        "day": "2026-01-05",
        "messages": [
            {"role": "system", "content": "You are Mina."},
            {"role": "user", "content": f"Hello, number {number}!"},
        ],
        "surface": "user",
        "conversation_id": f"chat{number}",
        "turn_index": 1,
        "user_id": f"user{number}",
        "character_id": "mina",
        "locale": "en_US",
        "language": "en",
        "jtbd": "chat",
        "depth": 0,
        "response": "Hi there.",
        "model_digest": "d" * 64,
        "continue_10min": True,
        "love": None,
        "thumb_up": True,
        "thumb_down": False,
        "feedback": None,
    }
    return row | changes


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    """One JSON value a line; text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def turn(message: str, agent: int, rating: str = "Good") -> dict[str, Any]:
    return {"message": message, "agent": f"agent_{agent}", "turn_rating": rating}


def conversation(num_turns: int = 6) -> dict[str, Any]:
    """Two people in turn: `turn 0`, `turn 1`, … all rated Good."""
    return {"content": [turn(f"turn {index}", index % 2 + 1) for index in range(num_turns)]}


def write_topical(path: Path, conversations: Any) -> Path:
    path.write_bytes(gzip.compress(json.dumps(conversations).encode()))
    return path
