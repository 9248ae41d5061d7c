"""Topical-Chat (Gopalakrishnan et al. 2019) as traffic: two people who chat about what they read.

Each turn after a conversation's first becomes one row: its speaker is the assistant, the partner
is the user, and the turns before are the history. Where the response's speaker also opened the
conversation, the history starts with an assistant turn, as it does after a welcome message.

What the file has, and what becomes of it:

- `turn_rating` is the partner's rating of the message (the data set's README): the user's thumbs.
  `thumb_up` is Excellent, `thumb_down` is Poor or Not Good, and both are null where the turn was
  not rated. (In `test_freq` the ratings of a speaker's turns go with that same speaker's
  conversation rating, correlation 0.84, and not with the partner's, -0.03; so who rated whom
  cannot be settled from the file, and the README is followed.)
- Two crowd workers without characters talk: every row is of surface `user`, the system turn
  is a neutral one, and no conversation is called internal, because none is.

What it does not have is null: user, character, locale, language, job, the serving model, love,
feedback, and continuing (workers had to reach twenty turns, so a next turn says nothing). It has
no dates: rows lie on `UNDATED_DAY` unless a day is given. A history is whole unless
`max_history_turns` or `max_words` asks for a shorter one.
"""

import gzip
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel_core.errors import InputDataError
from flywheel_core.ingest.contract import GZIP_MAGIC, BadRow, RowFault, check_row

UNDATED_DAY = "1970-01-01"
SYSTEM_TURN = "You are having a friendly conversation."
AGENTS = ("agent_1", "agent_2")
THUMBS: Mapping[str, tuple[bool | None, bool | None]] = {
    "Excellent": (True, False),
    "Good": (False, False),
    "Passable": (False, False),
    "Not Good": (False, True),
    "Poor": (False, True),
    "": (None, None),
}
"""Turn rating -> (thumb up, thumb down)."""


@dataclass(frozen=True)
class HistoryLimits:
    """How much of a conversation a row may carry, for models with a short context.

    `max_history_turns` keeps the last turns before a response. `max_words` drops whole turns
    from the front until system turn, history and response together fit; a row whose last user
    turn and response alone are longer is quarantined. `depth` and `turn_index` always count from
    the start of the conversation.
    """

    max_history_turns: int | None = None
    max_words: int | None = None


def read_topical_chat(
    path: Path, day: str | None = None, limits: HistoryLimits | None = None
) -> Iterator[dict[str, Any] | BadRow]:
    """Every response of every conversation, checked like any row of the contract."""
    limits = limits or HistoryLimits()
    for conversation_id, conversation in _conversations(path).items():
        try:
            turns = _turns(conversation)
        except RowFault as fault:
            yield BadRow(f"conversation {conversation_id}", str(fault), conversation, day)
            continue
        if len(turns) == 1:
            reason = "content: one turn, which nobody answered"
            yield BadRow(f"conversation {conversation_id}", reason, conversation, day)
        for index in range(1, len(turns)):
            where = f"conversation {conversation_id}, turn {index}"
            try:
                row = _row(conversation_id, turns, index, limits)
                yield check_row(row, day or UNDATED_DAY)
            except RowFault as fault:
                yield BadRow(where, str(fault), turns[index], day or UNDATED_DAY)


def _conversations(path: Path) -> Mapping[str, Any]:
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data).decode()
        conversations = json.loads(text)
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise InputDataError(
            f"{path}: not a Topical-Chat file: it cannot be read as JSON ({error}); give a file "
            "of the data set's conversations/ folder, plain or gzipped"
        ) from error
    has_content = isinstance(conversations, dict) and any(
        isinstance(value, dict) and "content" in value for value in conversations.values()
    )
    if not has_content:
        raise InputDataError(
            f"{path}: not a Topical-Chat file: found {type(conversations).__name__}, expected an "
            "object of conversations, each with a 'content' list of turns; for the flywheel's own "
            "columns use --format flywheel"
        )
    return dict(conversations)


def _turns(conversation: Any) -> list[Mapping[str, Any]]:
    content = conversation.get("content") if isinstance(conversation, dict) else None
    if not isinstance(content, list) or not content:
        raise RowFault("content: must be a list of turns")
    for turn in content:
        if not isinstance(turn, dict) or not isinstance(turn.get("message"), str):
            raise RowFault("content: each turn must have a message")
        if turn.get("agent") not in AGENTS:
            raise RowFault(f"agent: must be one of {', '.join(AGENTS)}")
    agents = [turn["agent"] for turn in content]
    if any(one == other for one, other in itertools.pairwise(agents)):
        raise RowFault("content: the two agents must alternate")
    return content


def _num_words(text: str) -> int:
    return len(text.split())


def _first_turn_kept(turns: list[Mapping[str, Any]], index: int, limits: HistoryLimits) -> int:
    """Where the history of response `index` begins."""
    first = 0
    if limits.max_history_turns is not None:
        first = max(0, index - limits.max_history_turns)
    if limits.max_words is None:
        return first
    room = limits.max_words - _num_words(SYSTEM_TURN) - _num_words(turns[index]["message"])
    kept = index
    while kept > first and (room := room - _num_words(turns[kept - 1]["message"])) >= 0:
        kept -= 1
    if kept == index:
        raise RowFault(f"length: last turn and response are longer than {limits.max_words} words")
    return kept


def _row(
    conversation_id: str, turns: list[Mapping[str, Any]], index: int, limits: HistoryLimits
) -> dict[str, Any]:
    response = turns[index]
    rating = response.get("turn_rating")
    if not isinstance(rating, str) or rating not in THUMBS:
        raise RowFault(f"turn_rating: must be one of {', '.join(filter(None, THUMBS))} or empty")
    speaker = response["agent"]
    first = _first_turn_kept(turns, index, limits)
    history = [
        {
            "role": "assistant" if turn["agent"] == speaker else "user",
            "content": turn["message"].strip(),
        }
        for turn in turns[first:index]
    ]
    thumb_up, thumb_down = THUMBS[rating]
    return {
        "row_id": f"{conversation_id}-{index}",
        "messages": [{"role": "system", "content": SYSTEM_TURN}, *history],
        "surface": "user",
        "conversation_id": conversation_id,
        "turn_index": index,
        "depth": (index + 1) // 2 - 1,
        "response": response["message"].strip(),
        "thumb_up": thumb_up,
        "thumb_down": thumb_down,
    }
