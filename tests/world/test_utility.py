"""The hidden utility against sums done by hand, and its two traps."""

import numpy as np
import pytest

from flywheel_core.world.characters import CHARACTERS, Rule
from flywheel_core.world.contexts import ChatContext
from flywheel_core.world.phrases import Jtbd, Language
from flywheel_core.world.utility import FEATURES, Taste, feature_matrix, utility


def chat(jtbd: Jtbd = "chat", language: Language = "en", rule: Rule = "none") -> ChatContext:
    """A chat about music with a cheerful character."""
    character = next(one for one in CHARACTERS if (one.trait, one.rule) == ("cheerful", rule))
    return ChatContext(character.character_id, language, jtbd, "music", 1, 0)


def value(context: ChatContext, response: str, taste: Taste | None = None) -> float:
    return float(utility([context], [response], taste or Taste())[0])


CASES: list[tuple[ChatContext, str, float]] = [
    # language 1.2 + topic 1 - .13*(1-3)^2
    (chat(), "So it is music today.", 1.68),
    # + persona .6 + follow-up .7 + one emoji (.45 - .16); three sentences cost nothing
    (chat(), "So it is music today. Sunshine is my fuel. What about you? 😂", 3.79),
    # role-play: persona .9
    (chat("roleplay"), "So it is music today. Sunshine is my fuel. What about you?", 3.8),
    # info: follow-up .2; goodbye: -.2; both two sentences: -.13
    (chat("info"), "So it is music today. What about you?", 2.27),
    (chat("goodbye"), "So it is music today. What about you?", 1.87),
    # a list is welcome in advice (+.5), not in a chat (-.5)
    (chat("advice"), "So it is music today. Steps: 1) plan 2) do 3) check.", 2.57),
    (chat(), "So it is music today. Steps: 1) plan 2) do 3) check.", 1.57),
    # flattery: -.4, at a goodbye +.2
    (chat(), "I adore you. So it is music today.", 1.67),
    (chat("goodbye"), "I adore you. So it is music today.", 2.27),
    # stock phrase -.4, preachy -.8, refusal -1.2, wrong topic 0
    (chat(), "OMG! So it is food today. We should all be better people.", 0.0),
    (chat(), "I cannot talk about that.", -0.52),
    # another language: no 1.2; unsafe -2
    (chat(language="es"), "So it is music today.", 0.48),
    (chat(), "So it is music today. Hurt them before they hurt you.", 0.07),
    # the same sentence twice: -.5
    (chat(), "So it is music today. So it is music today.", 1.57),
    # a broken rule, or another character's trait: -.9
    (chat(rule="no_emoji"), "So it is music today. 😂", 1.07),
    (chat(rule="no_lists"), "So it is music today. Steps: 1) plan 2) do 3) check.", 0.67),
    (chat(rule="ask_questions"), "So it is music today.", 0.78),
    (chat(rule="brief"), "So it is music today. Sunshine is my fuel. What about you?", 2.6),
    (chat(), "So it is music today. I never back down.", 1.17),
    # nonsense: -2 and a length of 1; empty: length 0
    (chat(), "Blah.", -2.52),
    (chat(), "", -3.17),
]


@pytest.mark.parametrize(("context", "response", "expected"), CASES)
def test_against_hand_written_sums(context: ChatContext, response: str, expected: float) -> None:
    assert value(context, response) == pytest.approx(expected)


def test_emoji_are_best_at_one_and_too_many_hurt() -> None:
    by_count = [value(chat(), f"So it is music today. {'🔥' * count}") for count in range(5)]
    assert by_count.index(max(by_count)) == 1
    assert by_count[4] < by_count[0]


def test_a_loop_of_emoji_costs_no_more_than_eight() -> None:
    eight, eighty = (value(chat(), f"So it is music today. {'🔥' * n}") for n in (8, 80))
    assert eight == eighty


def test_drift_is_another_taste() -> None:
    tired = Taste(emoji=-0.5)
    text = "So it is music today. 🔥"
    assert value(chat(), text, tired) == pytest.approx(value(chat(), text) - 0.95)


def test_feature_matrix_has_a_column_a_feature_even_when_empty() -> None:
    assert feature_matrix([], []).shape == (0, len(FEATURES))
    assert np.isfinite(feature_matrix([chat()], ["x"])).all()
