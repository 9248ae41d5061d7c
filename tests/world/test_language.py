"""The closed language: what is rendered is parsed back, and nothing else parses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_core.world.answers import sample_plan
from flywheel_core.world.characters import CHARACTERS
from flywheel_core.world.contexts import MAX_DEPTH, ChatContext
from flywheel_core.world.language import DICTIONARY, Kind, ResponsePlan, parse, render
from flywheel_core.world.phrases import EMOJI, JTBDS, LANGUAGES, TOPICS

CONTEXTS = st.builds(
    ChatContext,
    character_id=st.sampled_from([one.character_id for one in CHARACTERS]),
    language=st.sampled_from(LANGUAGES),
    jtbd=st.sampled_from(JTBDS),
    topic=st.sampled_from(TOPICS),
    depth=st.integers(0, MAX_DEPTH),
    prior_sentiment=st.sampled_from((-1, 0, 1)),
)
PLANS = st.builds(
    ResponsePlan,
    sentences=st.lists(st.sampled_from(sorted(DICTIONARY.values(), key=str)), min_size=1).map(
        tuple
    ),
    emoji=st.text(st.sampled_from(EMOJI), max_size=9),
)


@given(plan=PLANS)
def test_every_plan_is_parsed_back(plan: ResponsePlan) -> None:
    parsed = parse(render(plan))
    assert parsed.parses
    assert parsed.sentences == tuple(sorted(plan.sentences, key=lambda one: one.kind))
    assert parsed.num_emoji == len(plan.emoji)
    assert parsed.num_unknown == 0


@given(context=CONTEXTS, seed=st.integers(0, 2**32 - 1))
def test_every_corpus_answer_parses(context: ChatContext, seed: int) -> None:
    plan = sample_plan(context, np.random.default_rng(seed))
    assert parse(render(plan)).parses


@given(text=st.text())
def test_any_text_can_be_parsed(text: str) -> None:
    parsed = parse(text)
    assert parsed.num_emoji <= len(text)
    assert not (parsed.parses and parsed.num_unknown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "😂😂",
        "I am a sentence of no dictionary.",
        "What about you? So it is music today.",
        "So it is music today",
        "So it is music today. 😂 What about you?",
        "So it is music today.😂",
    ],
)
def test_broken_text_does_not_parse(text: str) -> None:
    assert not parse(text).parses


def test_known_sentences_of_a_broken_text_are_still_found() -> None:
    parsed = parse("So it is music today. Blah blah. What about you? 🔥🔥")
    assert [sentence.kind for sentence in parsed.sentences] == [Kind.TOPIC, Kind.FOLLOW_UP]
    assert (parsed.num_unknown, parsed.num_emoji, parsed.parses) == (1, 2, False)
