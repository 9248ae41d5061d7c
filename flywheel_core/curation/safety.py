"""Phase I, safety: a verdict on every row, and no verdict rejects it (§2.6, fail-closed).

Two kinds of classifier fit: one that reads a text (`SafetyClassifier`; the rule-based default) and
one that judges whole conversations in batches (`ConversationClassifier`; `llama_guard.py`).
Whatever is not a plain verdict (an exception, a call that takes too long, an answer of another
kind or number) is a failure, counted by cause, and its row is not kept.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from flywheel_core.engines.base import Messages

UNSAFE_PHRASES = re.compile(
    r"\b(?:kill yourself|end your life|how to make a bomb|hurt yourself|poison (?:him|her|them))\b",
    re.IGNORECASE,
)
BATCH_ROWS = 256
"""Conversations a model judges in one call; ours."""


@dataclass(frozen=True)
class SafetyVerdict:
    """Safe or not, and where the classifier names them, the categories that are violated."""

    safe: bool
    categories: tuple[str, ...] = ()


Failure: TypeAlias = Literal["raised", "timed_out", "nonsense"]
Outcome: TypeAlias = SafetyVerdict | Failure


class SafetyClassifier(Protocol):
    """Says whether a text is safe; whatever is not a plain True or False is nonsense."""

    def is_safe(self, text: str) -> bool: ...


@runtime_checkable
class ConversationClassifier(Protocol):
    """Judges conversations that end with the assistant turn in question, in order.

    None stands for an answer that is no verdict.
    """

    def judge(self, conversations: Sequence[Messages]) -> Sequence[SafetyVerdict | None]: ...


class RuleSafetyClassifier:
    """The default that ships: a short list of phrases that no turn of a kept row may hold, the
    user's among them. A floor, not a ceiling."""

    def is_safe(self, text: str) -> bool:
        return not UNSAFE_PHRASES.search(text)


def row_text(row: Mapping[str, Any]) -> str:
    """Everything a row would carry onward: every turn, and the response."""
    return "\n".join([*(turn["content"] for turn in row["messages"]), row["response"]])


def judge_rows(
    rows: Sequence[Mapping[str, Any]],
    classifier: SafetyClassifier | ConversationClassifier,
    timeout_s: float | None = None,
    batch_rows: int = BATCH_ROWS,
) -> list[Outcome]:
    """One outcome a row, in order. `timeout_s` is for one call: a text, or a batch."""
    if isinstance(classifier, ConversationClassifier):
        batches = (rows[start : start + batch_rows] for start in range(0, len(rows), batch_rows))
        return [one for batch in batches for one in _judge_batch(batch, classifier, timeout_s)]
    return [_judge_text(row_text(row), classifier, timeout_s) for row in rows]


def _judge_text(text: str, classifier: SafetyClassifier, timeout_s: float | None) -> Outcome:
    answer = within(timeout_s, partial(classifier.is_safe, text))
    if isinstance(answer, Failed):
        return answer.cause
    return SafetyVerdict(answer) if isinstance(answer, bool) else "nonsense"


def _judge_batch(
    rows: Sequence[Mapping[str, Any]], classifier: ConversationClassifier, timeout_s: float | None
) -> list[Outcome]:
    """The batch's outcomes; where the call raised, each half by itself, so that one row (too long
    for the model, say) cannot take the others along."""
    conversations = [
        [*row["messages"], {"role": "assistant", "content": row["response"]}] for row in rows
    ]
    answers = within(timeout_s, partial(classifier.judge, conversations))
    if isinstance(answers, Failed):
        if answers.cause == "raised" and len(rows) > 1:
            halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
            return [one for half in halves for one in _judge_batch(half, classifier, timeout_s)]
        return [answers.cause] * len(rows)
    if not isinstance(answers, Sequence) or len(answers) != len(rows):
        return ["nonsense"] * len(rows)
    return [answer if _is_verdict(answer) else "nonsense" for answer in answers]


def _is_verdict(answer: object) -> bool:
    return isinstance(answer, SafetyVerdict) and isinstance(answer.safe, bool)


@dataclass(frozen=True)
class Failed:
    """A call that returned nothing, and why."""

    cause: Failure


def within(timeout_s: float | None, call: Callable[[], Any]) -> Any:
    """What `call` returns, or why it did not. One that hangs is left behind in its thread: a
    thread cannot be stopped, but its row can be rejected. No exception is kept: its message may
    repeat the text. `timeout_s` None waits for ever."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(call())
        except TimeoutError:
            answers.append(Failed("timed_out"))
        except Exception:  # a model may fail in any way; each of them rejects the row
            answers.append(Failed("raised"))

    if timeout_s is None:
        run()
    else:
        thread = threading.Thread(target=run, daemon=True, name="phase-one-model")
        thread.start()
        thread.join(timeout_s)
    return answers[0] if answers else Failed("timed_out")
