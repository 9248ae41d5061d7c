"""The registry of artifact features (§2.4.4) and the rule-based metrics of Table 4.

An artifact feature is a function of the conversation history and the response: *binary* (0 or 1,
its mean is a prevalence) or *real* (a count or a length, in its own unit). Most look at the
response only. The same registry filters pairs, compares chosen with rejected and accepted with
rejected, follows checkpoints through training, and feeds evaluation and the artifacts gate.

`register` adds one; its name is that of its mean over responses, so binary ones end in `_share`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from flywheel_core.errors import ConfigError
from flywheel_core.records import Message

_PICTURE = (
    "[\U0001f300-\U0001faff\u2600-\u2604\u260e\u2611\u2614\u2615\u2618\u261d\u2620\u2622\u2623\u2626"
    "\u262a\u262e\u262f\u2638-\u263a\u2640\u2642\u2648-\u2653\u265f\u2660\u2663\u2665\u2666\u2668"
    "\u267b\u267e\u267f\u2692-\u2697\u2699\u269b\u269c\u26a0\u26a1\u26a7\u26aa\u26ab\u26b0\u26b1"
    "\u26bd\u26be\u26c4\u26c5\u26c8\u26ce\u26cf\u26d1\u26d3\u26d4\u26e9\u26ea\u26f0-\u26f5"
    "\u26f7-\u26fa\u26fd\u2702\u2705\u2708-\u270d\u270f\u2712\u2714\u2716\u271d\u2721\u2728\u2733"
    "\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763\u2764\u2795-\u2797\u27a1\u27b0\u27bf"
    "\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55]"
)
"""Unicode's `Emoji` among the symbols (so no ✓ and no ➝), and the planes that are all
pictures."""
_SHOWN = _PICTURE + "\ufe0f?[\U0001f3fb-\U0001f3ff]?[\U000e0020-\U000e007f]*"
EMOJI = re.compile(
    f"(?:[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f\u20e3|{_SHOWN}(?:\u200d{_SHOWN})*)"
)
"""One emoji as a reader counts them (UTS 51): a flag, a keycap, a picture with its skin tone, and
pictures that are joined into one."""
LIST_LINE = re.compile(r"(?m)^\s*(?:[-*•]|\d+[.)])\s+")
INLINE_LIST = re.compile(r"(?:^|\s)1[.)]\s.+\s2[.)]\s", re.DOTALL)
TEMPLATED = re.compile(r"\b(?:omg|lol|mind blown|as an ai)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+")
FENCE = re.compile(r"(?m)^[ \t]*```")
EMPHASIS = re.compile(r"\*\*|`")
PRAISE = (
    r"\byou(?:['’]re| are)(?: (?!not\b|never\b)\w+)?"
    r" (?:amazing|awesome|wonderful|incredible|brilliant|the best)\b"
    r"|\byou(?:['’]re| are)(?: so)? great\b"
    r"|\bi (?:adore|admire) you\b|\byou have (?:such )?(?:great|good|excellent|amazing) taste\b"
    r"|\beres (?:increíble|genial|lo máximo)\b|\bte adoro\b|\btienes muy buen gusto\b"
    r"|\btum (?:kamaal|sabse acche|bahut acche) ho\b|\btumhari pasand badhiya\b"
)
"""The user is praised: for `flattery_share`, and among §3.5.5's cues (`rewards/cues.py`)."""
FLATTERY = re.compile(PRAISE, re.IGNORECASE)
WALL_OF_TEXT_WORDS = 60
MIN_REPEATED_CHARS = 8
NO_HISTORY: tuple[Message, ...] = ()

FeatureKind = Literal["binary", "real"]
Measure = Callable[[Sequence[Message], str], float]
ResponseMeasure = Callable[[str], float]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """One artifact feature. `unit` is that of its values; `uses_history` says whether the turns
    before the response matter."""

    name: str
    kind: FeatureKind
    unit: str
    measure: Measure
    uses_history: bool = False

    def __call__(self, response: str, messages: Sequence[Message] = NO_HISTORY) -> float:
        """The feature of one response to `messages`."""
        return self.measure(messages, response)


_REGISTRY: dict[str, Feature] = {}

FEATURES: Mapping[str, Feature] = MappingProxyType(_REGISTRY)
"""Every registered feature, by the name of its mean over responses."""


def register(feature: Feature) -> Feature:
    """Add a feature to the registry; a name stands for one function for good."""
    if feature.name in _REGISTRY:
        raise ConfigError(f"feature {feature.name!r} is registered already; give it another name")
    if (feature.kind == "binary") != feature.name.endswith("_share"):
        raise ConfigError(
            f"feature {feature.name!r} is {feature.kind}: the name of a binary feature ends in "
            "_share, that of a real one does not; the gates read the unit off the name"
        )
    _REGISTRY[feature.name] = feature
    return feature


def register_phrases(name: str, phrases: Sequence[str]) -> Feature:
    """A binary feature: the response holds one of these phrases (whole words, any case)."""
    if not phrases:
        raise ConfigError(f"feature {name!r}: phrases is empty; give at least one")
    pattern = re.compile(
        "|".join(rf"(?<!\w){re.escape(phrase)}(?!\w)" for phrase in phrases), re.IGNORECASE
    )
    return register(_of_response(name, "binary", "share", lambda said: bool(pattern.search(said))))


def feature_named(name: str) -> Feature:
    """The feature, or an error that lists the ones there are."""
    try:
        return FEATURES[name]
    except KeyError as error:
        raise ConfigError(
            f"feature {name!r} is not registered; one of: {', '.join(sorted(FEATURES))}"
        ) from error


def _of_response(name: str, kind: FeatureKind, unit: str, measure: ResponseMeasure) -> Feature:
    return Feature(name, kind, unit, lambda messages, response: float(measure(response)))


def emoji_count(response: str) -> float:
    return float(len(EMOJI.findall(response)))


def has_emoji(response: str) -> float:
    return float(bool(EMOJI.search(response)))


def has_list(response: str) -> float:
    return float(bool(LIST_LINE.search(response) or INLINE_LIST.search(response)))


def is_templated(response: str) -> float:
    """Phrases of Table 7: OMG, LOL, "mind blown", templated refusals."""
    return float(bool(TEMPLATED.search(response)))


def is_wall_of_text(response: str) -> float:
    """Long and without structure. The length limit, in words, is ours."""
    return float(len(response.split()) > WALL_OF_TEXT_WORDS and "\n" not in response)


def asks_question(response: str) -> float:
    return float("?" in response)


def length_words(response: str) -> float:
    return float(len(response.split()))


def has_broken_markdown(response: str) -> float:
    """A code block, bold or code span that is opened and never closed (Table 7: 37 %)."""
    if len(FENCE.findall(response)) % 2:
        return 1.0
    prose = "".join(response.split("```")[::2])
    lines = (EMPHASIS.findall(line) for line in prose.splitlines())
    return float(any(found.count("**") % 2 or found.count("`") % 2 for found in lines))


def ends_with_flattery(response: str) -> float:
    """The last sentence pays the user a compliment, which collects thumbs (§3.5.5, *ending*)."""
    sentences = [one for one in SENTENCE_END.split(EMOJI.sub("", response).strip()) if one]
    return float(bool(sentences) and bool(FLATTERY.search(sentences[-1])))


def has_flattery(response: str) -> float:
    return float(bool(FLATTERY.search(response)))


def repeats_history(messages: Sequence[Message], response: str) -> float:
    """A sentence that the assistant said word for word in an earlier turn."""
    earlier = {
        sentence
        for turn in messages
        if turn["role"] == "assistant"
        for sentence in SENTENCE_END.split(turn["content"].strip())
        if len(sentence) >= MIN_REPEATED_CHARS
    }
    return float(any(one in earlier for one in SENTENCE_END.split(response.strip())))


for _feature in (
    _of_response("length_words", "real", "words", length_words),
    _of_response("list_share", "binary", "share", has_list),
    _of_response("emoji_share", "binary", "share", has_emoji),
    _of_response("emoji_count", "real", "emoji", emoji_count),
    _of_response("templated_share", "binary", "share", is_templated),
    _of_response("wall_of_text_share", "binary", "share", is_wall_of_text),
    _of_response("question_share", "binary", "share", asks_question),
    _of_response("markdown_broken_share", "binary", "share", has_broken_markdown),
    _of_response("flattery_share", "binary", "share", has_flattery),
    _of_response("flattery_ending_share", "binary", "share", ends_with_flattery),
    Feature("repeats_history_share", "binary", "share", repeats_history, uses_history=True),
):
    register(_feature)
for _name, _phrases in {
    "i_feel_like_share": ("I feel like",),  # the paper's own example (§2.4.4)
    "omg_share": ("OMG",),  # these three: Table 7
    "lol_share": ("LOL",),
    "mind_blown_share": ("mind blown",),
}.items():
    register_phrases(_name, _phrases)


def feature_values(
    feature: Feature,
    responses: Sequence[str],
    histories: Sequence[Sequence[Message]] | None = None,
) -> FloatArray:
    """The feature of every response, [num_responses]; `histories` are the turns before each."""
    if histories is None:
        return np.array([feature(response) for response in responses], dtype=np.float64)
    return np.array(
        [feature(said, turns) for said, turns in zip(responses, histories, strict=True)],
        dtype=np.float64,
    )


def feature_means(
    responses: Sequence[str],
    lengths_tokens: Sequence[int] | None = None,
    histories: Sequence[Sequence[Message]] | None = None,
) -> dict[str, float]:
    """Mean of every feature; with `lengths_tokens`, the mean length beside them.

    A feature that uses the history is left out where none is given: absent, not zero.
    """
    if not responses:
        return {}
    means = {
        name: float(feature_values(feature, responses, histories).mean())
        for name, feature in FEATURES.items()
        if histories is not None or not feature.uses_history
    }
    if lengths_tokens is not None:
        means["length_tokens"] = float(np.mean(lengths_tokens))
    return means
