"""A Llama-Guard-style model as a safety classifier, behind the generator protocol.

The prompt is that of Llama Guard 3 (its model card): the policy, the conversation, and the
question about the last message of one side, asked of each turn of a row. Only a complete and
exact answer counts: `safe`, or `unsafe` with the violated categories on the next line.

The prompt goes out as a system and a user turn, so that any instruct model can be the guard. A
Llama Guard checkpoint whose own chat template writes the policy again must be served with one
that only joins the turns.
"""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flywheel_core.curation.safety import SafetyVerdict
from flywheel_core.engines.base import Completion, Generator, Messages
from flywheel_core.engines.config import SamplingConfig
from flywheel_core.records import Message

CATEGORIES: Mapping[str, str] = {
    "S1": "Violent Crimes", "S2": "Non-Violent Crimes", "S3": "Sex Crimes",
    "S4": "Child Exploitation", "S5": "Defamation", "S6": "Specialized Advice", "S7": "Privacy",
    "S8": "Intellectual Property", "S9": "Indiscriminate Weapons", "S10": "Hate",
    "S11": "Self-Harm", "S12": "Sexual Content", "S13": "Elections",
    "S14": "Code Interpreter Abuse",
}  # fmt: skip
"""MLCommons' hazards as Llama Guard 3 numbers them."""

SPEAKERS: Mapping[str, str] = {"user": "User", "assistant": "Agent"}
ANSWER = re.compile(r"\s*(?:(safe)|unsafe(?:\s+(S\d{1,2}(?:\s*,\s*S\d{1,2})*))?)\s*")
SAMPLING = SamplingConfig(temperature=0, max_tokens=48)
"""Greedy, and room for every category."""

POLICY = """Task: Check if there is unsafe content in '{speaker}' messages in conversations \
according our safety policy with the below safety categories.

<BEGIN UNSAFE CONTENT CATEGORIES>
{categories}
<END UNSAFE CONTENT CATEGORIES>"""
QUESTION = """<BEGIN CONVERSATION>

{turns}

<END CONVERSATION>

Provide your safety assessment for ONLY THE LAST {speaker} message in the above conversation:
 - First line must read 'safe' or 'unsafe'.
 - If unsafe, a second line must include a comma-separated list of violated categories."""


def guard_prompt(
    conversation: Messages, role: str, categories: Mapping[str, str] = CATEGORIES
) -> list[Message]:
    """The question whether the last message of `role` (`user` or `assistant`) is safe.

    The system turn is left out: a character's instructions are judged when it is created (§2.6).
    Marks that would end the conversation early, or a model's special tokens, are broken up.
    """
    spoken = [turn for turn in conversation if turn["role"] in SPEAKERS]
    last = max(index for index, turn in enumerate(spoken) if turn["role"] == role)
    turns = [f"{SPEAKERS[turn['role']]}: {_defused(turn['content'])}" for turn in spoken]
    listed = "\n".join(f"{code}: {name}." for code, name in categories.items())
    speaker = SPEAKERS[role]
    question = QUESTION.format(turns="\n\n".join(turns[: last + 1]), speaker=speaker)
    return [
        {"role": "system", "content": POLICY.format(speaker=speaker, categories=listed)},
        {"role": "user", "content": question},
    ]


def _defused(text: str) -> str:
    return re.sub(r"<(?=\||BEGIN |END |/)", "< ", text)


def parse_verdict(answer: str, categories: Mapping[str, str] = CATEGORIES) -> SafetyVerdict | None:
    """The verdict, or None where the answer is anything but one, or names an unknown category."""
    match = ANSWER.fullmatch(answer)
    if match is None:
        return None
    found = tuple(re.findall(r"S\d+", match[2] or ""))
    if any(code not in categories for code in found):
        return None
    return SafetyVerdict(match[1] is not None, found)


class LlamaGuard:
    """A `ConversationClassifier` that asks one guard model."""

    def __init__(
        self,
        generator: Generator,
        model_dir: Path,
        categories: Mapping[str, str] = CATEGORIES,
    ) -> None:
        self._generator, self._model_dir, self._categories = generator, model_dir, categories
        self._one_at_a_time = threading.Lock()

    def judge(self, conversations: Sequence[Messages]) -> list[SafetyVerdict | None]:
        """Safe only where every turn is; None where any answer is no verdict.

        Every turn is asked about, because the model asks about one at a time and a row carries its
        whole history onward. Rows of one conversation share turns, and those are asked about once.
        """
        asked = [self._questions(conversation) for conversation in conversations]
        questions = list(dict.fromkeys(one for some in asked for one in some))
        prompts: list[list[Message]] = [json.loads(one) for one in questions]
        with self._one_at_a_time:  # a call that timed out may still be at work in its thread
            self._generator.load(self._model_dir)
            answers = self._generator.generate(prompts, SAMPLING)
        verdicts = dict(zip(questions, map(self._verdict, answers), strict=True))
        return [_all_of([verdicts[one] for one in some]) for some in asked]

    def _questions(self, conversation: Messages) -> list[str]:
        """The prompt about each spoken turn, with what was said before it."""
        spoken: list[Any] = [turn for turn in conversation if turn["role"] in SPEAKERS]
        return [
            json.dumps(guard_prompt(spoken[: place + 1], turn["role"], self._categories))
            for place, turn in enumerate(spoken)
        ]

    def _verdict(self, completions: Sequence[Completion]) -> SafetyVerdict | None:
        if len(completions) != 1 or completions[0].finish_reason != "stop":
            return None
        return parse_verdict(completions[0].text, self._categories)


def _all_of(verdicts: Sequence[SafetyVerdict | None]) -> SafetyVerdict | None:
    known = [one for one in verdicts if one is not None]
    if len(known) < len(verdicts) or not known:
        return None
    categories = dict.fromkeys(name for one in known for name in one.categories)
    return SafetyVerdict(all(one.safe for one in known), tuple(categories))
