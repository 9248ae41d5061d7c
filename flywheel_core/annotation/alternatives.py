"""Alternatives from a rewriting prompt (§2.2.2): a policy reworks a reply step by step.

The paper's prompts are not published; these are ours, in versions. A policy of the pool is asked
to find what is dull in a reply before it writes another, and only what follows the marker is used.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from flywheel_core.errors import ConfigError
from flywheel_core.records import Message

MARKER = "Rewritten reply:"


class RewritingPrompt(BaseModel):
    """A chain-of-thought prompt; `template` takes `{reply}` and ends at the marker's use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    template: str = Field(pattern=r"(?s).*\{reply\}.*")

    @property
    def policy(self) -> str:
        """What a pair's `policy_1` says where this prompt made the alternative."""
        return f"rewrite-{self.version}"


REWRITING_PROMPTS: dict[str, RewritingPrompt] = {
    one.version: one
    for one in (
        RewritingPrompt(
            version="1",
            template=(
                "Below is a draft of your next reply in the chat above. Improve it.\n\n"
                "Draft: {reply}\n\n"
                "Think step by step, in short notes:\n"
                "1. What did the user just say, and what would they enjoy hearing back?\n"
                "2. What in the draft is dull, generic, preachy, evasive or out of character?\n"
                "3. What one concrete thing would make the user want to answer?\n"
                "Keep the draft's language and about its length; add no emoji and no list that "
                "the draft does not have.\n"
                f"Then write a line '{MARKER}' and after it only the new reply."
            ),
        ),
    )
}
"""By version. Never edit one that has been used: add the next."""


def rewriting_prompt(version: str) -> RewritingPrompt:
    """The prompt, or an error that lists the versions there are."""
    try:
        return REWRITING_PROMPTS[version]
    except KeyError as error:
        raise ConfigError(
            f"annotation.rewriting_prompt: version {version!r} is unknown; one of: "
            f"{', '.join(REWRITING_PROMPTS)} (flywheel_core/annotation/alternatives.py)"
        ) from error


def alternatives_in_turn(
    count: int, pool: Sequence[str], rewrite_share: float, prompt: RewritingPrompt
) -> list[str]:
    """Who makes each of `count` alternatives: rewrites evenly spread over them in their share, the
    pool's policies in turn over the rest, so that neither hides a policy behind the other."""
    found: list[str] = []
    for index in range(count):
        rewritten = int((index + 1) * rewrite_share) - int(index * rewrite_share)
        sampled = index - int(index * rewrite_share)
        found.append(prompt.policy if rewritten else pool[sampled % len(pool)])
    return found


def asking_to_rewrite(
    messages: Sequence[Message], reply: str, prompt: RewritingPrompt
) -> list[Message]:
    """The conversation with a last user turn that asks for the rewrite: roles still alternate,
    because the reply is quoted and not said."""
    *before, last = messages
    asked = f"{last['content']}\n\n[{prompt.template.format(reply=reply)}]"
    return [*before, Message(role="user", content=asked)]


def rewritten_reply(completion: str) -> str:
    """What follows the last marker; empty where there is none, and the pair filter drops it."""
    _, marker, reply = completion.rpartition(MARKER)
    return reply.strip() if marker else ""
