"""The linter of Table 7 and §3.5.6: stock phrases, broken Markdown, emoji and list carry-over.

A policy copies the style of the turns before it: emoji rose from 0.2 to 0.48 in 120 RL steps with
a reward that could not see them (§3.5.6). So supervised rows and RL prompts are cleaned. Each
rule has a name and only ever makes edits that are recorded, so `revert` restores a row exactly.

What the assistant said is changed, never what the user wrote. Phrases and Markdown are mended in
every assistant turn and in the response; emoji and lists only in the history, where they carry
over. A rule that would leave a turn empty leaves it as it is.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel_core.evaluation.features import EMOJI

RESPONSE = -1
"""The turn number that stands for a row's response."""

PHRASE = re.compile(
    r"(?:(?<=^)|(?<=[.!?…\n]))[ \t]*(?:(?:omg|lol|mind blown)\b[!.,…]*[ \t]*)+", re.IGNORECASE
)
"""A stock phrase that is a sentence, or opens one (Table 7: OMG, LOL, "mind blown")."""
REPEATED_SENTENCE = re.compile(r"(?P<said>[^.!?\n]{8,200}[.!?]+)(?:[ \t]+(?P=said))+")
FENCE = re.compile(r"(?m)^[ \t]*```")
MARKER = re.compile(r"\*\*|\*|`")
HEADING = re.compile(r"(?m)^(#{2,6})(?=[^#\s])")
BULLET = re.compile(r"(?m)^([ \t]*)([*•+])(?=[ \t])")
# A run of spaces or newlines is looked at from its start only: from each of its places, the time
# would grow with its square.
EMOJI_RUN = re.compile(rf"(?<![ \t])[ \t]*(?:{EMOJI.pattern}[\ufe0f\u200d]*)+")
LIST_MARK = re.compile(r"(?:\A|(?<!\n)\n+)[ \t]*(?:[-*•]|\d+[.)])[ \t]+")


@dataclass(frozen=True)
class Edit:
    """At `start` of the text as it was, `removed` became `inserted`."""

    start: int
    removed: str
    inserted: str


@dataclass(frozen=True)
class Change:
    """What one rule did to one turn (`RESPONSE`, or its place in `messages`)."""

    turn: int
    rule: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class LintedRow:
    """The row after the rules, and what they did, in order."""

    row: dict[str, Any]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Linted:
    """Rows after the rules; how many turns each rule would change before, and would still after."""

    rows: list[LintedRow]
    before: dict[str, int]
    after: dict[str, int]


def apply(text: str, edits: Sequence[Edit]) -> str:
    """The text with all edits made; they are in order and do not overlap."""
    parts, position = [], 0
    for edit in edits:
        parts += [text[position : edit.start], edit.inserted]
        position = edit.start + len(edit.removed)
    return "".join([*parts, text[position:]])


def undo(text: str, edits: Sequence[Edit]) -> str:
    """The text before `edits`; `ValueError` where it is not what they made."""
    inverse, shift = [], 0
    for edit in edits:
        start = edit.start + shift
        if text[start : start + len(edit.inserted)] != edit.inserted:
            raise ValueError(
                f"the text was changed after the linter at character {start}; "
                "revert the row as the linter wrote it"
            )
        inverse.append(Edit(start, edit.inserted, edit.removed))
        shift += len(edit.inserted) - len(edit.removed)
    return apply(text, inverse)


def phrase_edits(text: str) -> Iterator[Edit]:
    """Drops stock phrases, and a sentence that is said again right away."""
    spans = [(match.start(), match.end(), _gap(text, match)) for match in PHRASE.finditer(text)]
    spans += [(match.end("said"), match.end(), "") for match in REPEATED_SENTENCE.finditer(text)]
    position = 0
    for start, end, gap in sorted(spans):
        if start >= position:
            yield Edit(start, text[start:end], gap)
            position = end


def _gap(text: str, match: re.Match[str]) -> str:
    """A space where the match stood between two sentences of one line."""
    start, end = match.span()
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return " " if before not in ("", "\n") and after not in ("", "\n") else ""


def markdown_edits(text: str) -> Iterator[Edit]:
    """Closes what is open, sets a space after heading marks, and writes bullets as `-`."""
    found = [
        *(Edit(match.end(), "", " ") for match in HEADING.finditer(text)),
        *(Edit(match.start(2), match[2], "-") for match in BULLET.finditer(text)),
        *_unclosed(text),
    ]
    yield from sorted(found, key=lambda edit: edit.start)


def _unclosed(text: str) -> Iterator[Edit]:
    """Emphasis and code that a line opens are closed at its end; code blocks at the text's end."""
    fences = {match.start() for match in FENCE.finditer(text)}
    position = 0
    inside = False
    for line in text.splitlines(keepends=True):
        if position in fences or FENCE.match(line):
            inside = not inside
        elif not inside:
            yield from _unclosed_on(line.rstrip("\r\n"), position)
        position += len(line)
    if inside:
        yield Edit(len(text), "", "```" if text.endswith("\n") else "\n```")


def _unclosed_on(line: str, start: int) -> Iterator[Edit]:
    last: dict[str, int] = {}
    indent = len(line) - len(line.lstrip())
    for match in MARKER.finditer(line):
        if _is_marker(line, indent, match):
            marker = match.group()
            if marker in last:
                del last[marker]
            else:
                last[marker] = match.start()
    closing = ""
    for marker, place in sorted(last.items(), key=lambda pair: -pair[1]):
        if line[place + len(marker) :].strip():
            closing += marker
        else:
            yield Edit(start + place, marker, "")
    if closing:
        yield Edit(start + len(line), "", closing)


def _is_marker(line: str, indent: int, match: re.Match[str]) -> bool:
    """A star between spaces or digits multiplies; one that opens a line before a space lists."""
    start, end = match.span()
    before, after = line[max(0, start - 1) : start], line[end : end + 1]
    if match.group() != "*":
        return True
    spaced = (start <= indent or before.isspace()) and after.isspace()
    return not spaced and not (before.isdigit() and after.isdigit())


def emoji_edits(text: str) -> Iterator[Edit]:
    """Drops emoji, and the space before them."""
    for match in EMOJI_RUN.finditer(text):
        yield Edit(match.start(), match.group(), "")


def list_edits(text: str) -> Iterator[Edit]:
    """Writes a list as prose: its marks go, and its lines are joined by semicolons."""
    for match in LIST_MARK.finditer(text):
        before = _last_said(text, match.start())
        gap = "" if not before else " " if before in ".:;!?," else "; "
        yield Edit(match.start(), match.group(), gap)


def _last_said(text: str, end: int) -> str:
    """The last character before `end` that is no space."""
    while end and text[end - 1].isspace():
        end -= 1
    return text[max(0, end - 1) : end]


Rule = Callable[[str], Iterator[Edit]]
RULES: Mapping[str, Rule] = {
    "stock_phrases": phrase_edits,
    "markdown": markdown_edits,
    "list_carry_over": list_edits,
    "emoji_carry_over": emoji_edits,
}
"""By name, in the order in which they run."""
HISTORY_ONLY = frozenset({"list_carry_over", "emoji_carry_over"})


def lint_rows(rows: Sequence[Mapping[str, Any]], rules: Mapping[str, Rule] = RULES) -> Linted:
    """Every row through every rule, with counts of turns by rule before and after."""
    linted = [lint_row(row, rules) for row in rows]
    return Linted(
        linted,
        _firing(rows, rules),
        _firing([one.row for one in linted], rules),
    )


def lint_row(row: Mapping[str, Any], rules: Mapping[str, Rule] = RULES) -> LintedRow:
    """One row (`messages` and `response`) through every rule."""
    texts = dict(_assistant_texts(row))
    changes = []
    for name, rule in rules.items():
        for turn, text in texts.items():
            edits = tuple(_edits(name, rule, turn, text))
            if edits:
                texts[turn] = apply(text, edits)
                changes.append(Change(turn, name, edits))
    return LintedRow(_with_texts(row, texts), tuple(changes))


def revert(linted: LintedRow) -> dict[str, Any]:
    """The row as it was before `lint_row`."""
    texts = dict(_assistant_texts(linted.row))
    for change in reversed(linted.changes):
        texts[change.turn] = undo(texts[change.turn], change.edits)
    return _with_texts(linted.row, texts)


def _edits(name: str, rule: Rule, turn: int, text: str) -> list[Edit]:
    """The rule's edits of one turn; none where it does not apply or would leave nothing."""
    if turn == RESPONSE and name in HISTORY_ONLY:
        return []
    edits = [edit for edit in rule(text) if edit.removed != edit.inserted]
    return edits if apply(text, edits).strip() else []


def _assistant_texts(row: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for place, turn in enumerate(row["messages"]):
        if turn["role"] == "assistant":
            yield place, turn["content"]
    yield RESPONSE, row["response"]


def _with_texts(row: Mapping[str, Any], texts: Mapping[int, str]) -> dict[str, Any]:
    messages = [
        {"role": turn["role"], "content": texts.get(place, turn["content"])}
        for place, turn in enumerate(row["messages"])
    ]
    return {**row, "messages": messages, "response": texts[RESPONSE]}


def _firing(rows: Sequence[Mapping[str, Any]], rules: Mapping[str, Rule]) -> dict[str, int]:
    """Turns each rule would change."""
    counts = Counter(
        name
        for row in rows
        for turn, text in _assistant_texts(row)
        for name, rule in rules.items()
        if _edits(name, rule, turn, text)
    )
    return {name: counts[name] for name in rules}
