"""Interactive-chat annotation (§2.2.2): the annotator talks, two replies come, one is chosen.

At each turn the annotator answers the questions and chooses; the chat goes on with the choice, or
with the rewrite where both replies failed. A steerability chat is the same with mild challenges to
highlighted instructions. One annotator holds a chat to its end; the others of the source review
each turn as it comes, so that agreement can be measured here too (ours; §3.4.1 reviews thrice only
a subset of user traffic).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel_core.annotation.pairs import PairDraft
from flywheel_core.annotation.questions import QuestionSet, Workflow
from flywheel_core.annotation.reviews import Review
from flywheel_core.annotation.sources import AnnotationSource, ChatPartner
from flywheel_core.annotation.tasks import AnnotationTask, make_tasks
from flywheel_core.artifacts import digest_of
from flywheel_core.records import Message

CHAT_ID_HEX_DIGITS = 12

Replies = Callable[[Sequence[list[Message]], int], tuple[list[tuple[str, str]], list[str]]]
"""Two replies to each conversation, and the alternative's policy, given conversations and turn."""


@dataclass(frozen=True)
class ChatLabels:
    """Every turn of every chat: the pair, its task, and what was said of it. In order of turns."""

    pairs: list[PairDraft]
    tasks: list[AnnotationTask]
    reviews: list[Review]


def hold_chats(
    rows: Sequence[Mapping[str, Any]],
    workflow: Workflow,
    num_turns: int,
    replies: Replies,
    source: AnnotationSource,
    partner: ChatPartner,
    questions: QuestionSet,
    seed: int,
) -> ChatLabels:
    """One chat a row, with that row's character, all in step; each starts from the system turn.
    `seed` should differ from one generation to the next, or their chats open alike.

    A task's first reviewer holds its chat: a source gives the n-th task of every turn, asked with
    one seed, to the same people in the same order.
    """
    chats = [[turn for turn in row["messages"] if turn["role"] == "system"] for row in rows]
    found = ChatLabels([], [], [])
    for turn in range(num_turns):
        for chat, row in zip(chats, rows, strict=True):
            said = partner.next_turn(chat, row, workflow, seed)
            chat.append(Message(role="user", content=said))
        both, policies = replies([list(chat) for chat in chats], turn)
        pairs = [
            PairDraft(_context(row, chat, workflow, turn), first, second, "production", policy)
            for row, chat, (first, second), policy in zip(rows, chats, both, policies, strict=True)
        ]
        tasks = make_tasks(pairs, workflow, questions, seed)
        reviews = source.label(tasks, seed)
        by_task = {review.task_id: review for review in reversed(reviews)}
        for chat, task in zip(chats, tasks, strict=True):
            chat.append(Message(role="assistant", content=goes_on_with(task, by_task)))
        found.pairs.extend(pairs)
        found.tasks.extend(tasks)
        found.reviews.extend(reviews)
    return found


def goes_on_with(task: AnnotationTask, by_task: Mapping[str, Review]) -> str:
    """The reply that the chat keeps: the rewrite, the choice, or the first on a tie."""
    review = by_task.get(task.task_id)
    if review is None:
        return task.response(0)
    if review.rewrite and review.both_fail:
        return review.rewrite
    return task.response(1 if review.vote == 0 else 0)


def _context(
    row: Mapping[str, Any], chat: Sequence[Message], workflow: Workflow, turn: int
) -> dict[str, Any]:
    """The turn's record fields. Only the character is the row's: the chat is a conversation of its
    own, held out as a whole; its annotator is no user, and nobody has said what job a turn is."""
    chat_id = f"{workflow}-{digest_of(row['prompt_id'])[:CHAT_ID_HEX_DIGITS]}"
    return {
        "prompt_id": f"{chat_id}-{turn}",
        "messages": list(chat),
        "surface": "internal",
        "conversation_id": chat_id,
        "turn_index": turn,
        "user_id": None,
        "character_id": row["character_id"],
        "locale": row["locale"],
        "language": row["language"],
        "jtbd": None,
        "depth": turn,
    }
