"""The registry of artifact features, and which of them stand out on one side of a comparison."""

import numpy as np
import pytest
from scipy import stats

from flywheel_core.annotation.section import PrevalenceSection
from flywheel_core.errors import ConfigError
from flywheel_core.evaluation.features import (
    FEATURES,
    Feature,
    feature_means,
    feature_named,
    register,
    register_phrases,
)
from flywheel_core.evaluation.prevalence import (
    Compared,
    benjamini_hochberg,
    cohens_d,
    cohens_h,
    compare_accepted,
    compare_chosen,
    compare_features,
    paired_p_value,
    summarise_comparisons,
)
from flywheel_core.records import Message

SAID = [
    Message(role="assistant", content="I knit hats. I love the sea."),
    Message(role="user", content="?"),
]


@pytest.mark.parametrize(
    ("name", "response", "value"),
    [
        ("length_words", "three short words", 3),
        ("markdown_broken_share", "a **bold claim", 1),
        ("markdown_broken_share", "a **bold** claim and `code`", 0),
        ("markdown_broken_share", "```\nx = 1\n", 1),
        ("markdown_broken_share", "```\nx = `1\n```\nfine", 0),
        ("flattery_ending_share", "Rye it is. You are amazing! 😊", 1),
        ("flattery_ending_share", "You are amazing! Rye it is.", 0),
        ("flattery_share", "You are amazing! Rye it is.", 1),
        ("flattery_ending_share", "", 0),
        ("i_feel_like_share", "Well, I feel like dancing.", 1),
        ("lol_share", "Lollipop", 0),
        ("lol_share", "LOL!", 1),
        ("emoji_count", "🇪🇸 and 🇲🇽🇮🇳", 3),
        ("emoji_count", "👨\u200d👩\u200d👧 👍🏽 ❤\ufe0f 🤷🏽\u200d♀\ufe0f 1\ufe0f\u20e3", 5),
        ("emoji_count", "😂😂 🔥", 3),
        ("emoji_count", "✓ done ➝ next ♪ 1 #", 0),
        ("emoji_share", "🇪🇸", 1),
        ("flattery_share", "You're so great, I admire you.", 1),
        ("flattery_share", "You are not amazing.", 0),
        ("mind_blown_share", "My mind is blown", 0),
    ],
)
def test_features_of_a_response(name: str, response: str, value: float) -> None:
    assert FEATURES[name](response) == value


def test_a_feature_may_use_the_history() -> None:
    repeats = FEATURES["repeats_history_share"]
    assert repeats.uses_history
    assert repeats("Hello! I love the sea.", SAID) == 1
    assert repeats("Hello! I love the tea.", SAID) == 0
    assert "repeats_history_share" not in feature_means(["I love the sea."])
    assert feature_means(["I love the sea."], None, [SAID])["repeats_history_share"] == 1.0


def test_binary_features_are_binary_and_their_names_say_so() -> None:
    texts = ["", "OMG! 😀😀", "1) a 2) b?", "**x", "You are amazing.", "word " * 80]
    for name, feature in FEATURES.items():
        values = {feature(text, SAID) for text in texts}
        assert (feature.kind == "binary") == name.endswith("_share")
        assert feature.kind == "real" or values <= {0.0, 1.0}


def test_a_name_stands_for_one_function_for_good() -> None:
    with pytest.raises(ConfigError, match="'list_share' is registered already"):
        register_phrases("list_share", ["first"])
    with pytest.raises(ConfigError, match=r"'shouting' is binary: .* ends in _share"):
        register(Feature("shouting", "binary", "share", lambda turns, said: 0.0))
    with pytest.raises(ConfigError, match="phrases is empty"):
        register_phrases("nothing_share", [])
    with pytest.raises(ConfigError, match="'shine' is not registered; one of: emoji_count"):
        feature_named("shine")


def test_effect_sizes_are_cohens() -> None:
    first, second = np.array([1, 1, 1, 0.0]), np.array([1, 0, 0, 0.0])
    # Cohen (1988), table 6.2.2: phi(.75) = 2.0944, phi(.25) = 1.0472
    assert cohens_h(first, second) == pytest.approx(1.0472, abs=1e-4)
    high, low = np.array([2.0, 4, 6]), np.array([1.0, 3, 5])
    assert cohens_d(high, low) == pytest.approx(1 / 2)
    assert cohens_d(np.ones(3), np.zeros(3)) is None
    assert cohens_d(np.ones(3), np.ones(3)) == 0.0


def test_binary_sides_are_compared_by_mcnemars_exact_test() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    rng = np.random.default_rng(0)
    first, second = (rng.random(80) < 0.4).astype(float), (rng.random(80) < 0.25).astype(float)
    table = [[sum((first == a) & (second == b)) for b in (0, 1)] for a in (0, 1)]
    assert paired_p_value(first, second) == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert paired_p_value(first, first) == 1.0


def test_real_sides_are_compared_by_the_signed_rank_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.poisson(3, 60).astype(float), rng.poisson(2, 60).astype(float)
    expected = stats.wilcoxon(first, second, zero_method="wilcox").pvalue
    assert paired_p_value(first, second) == pytest.approx(expected)


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    """Their own example (1995, section 3.2): of 15 p values, 4 are rejected at a rate of 0.05."""
    p_values = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459,
        0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.000,
    ]  # fmt: skip
    adjusted = benjamini_hochberg(p_values)
    assert sum(one <= 0.05 for one in adjusted) == 4
    assert adjusted[3] == pytest.approx(0.0095 * 15 / 4)


def pairs(count: int, chosen: str, rejected: str, share: float) -> list[dict]:
    """Rows in which `share` of the pairs have `chosen` on the preferred side, the rest swapped."""
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(count):
        better, worse = (chosen, rejected) if rng.random() < share else (rejected, chosen)
        first = rng.random() < 0.5
        rows.append(
            {
                "messages": [],
                "response_0": better if first else worse,
                "response_1": worse if first else better,
                "target": 1.0 if first else 0.0,
            }
        )
    return rows


def test_a_preferred_artifact_is_flagged_on_the_chosen_side() -> None:
    rows = pairs(300, "Nice 😀😀", "Nice one", 0.8)
    rows.append({"messages": [], "response_0": "1) a 2) b", "response_1": "c", "target": 0.5})
    found = {one.feature: one for one in compare_chosen(rows)}
    assert {name for name, one in found.items() if one.flagged} == {"emoji_count", "emoji_share"}
    emoji = found["emoji_count"]
    assert emoji.num_prompts == 300
    assert emoji.difference == pytest.approx(1.2, abs=0.2)
    assert emoji.effect_size is not None
    assert emoji.effect_size > 0.8
    assert found["list_share"].first_mean == 0.0


def test_without_a_difference_few_are_flagged_by_chance() -> None:
    """At a false discovery rate of 0.05 with nothing to discover, at most one batch in twenty
    flags anything, on average; the effect limit makes it fewer."""
    rng = np.random.default_rng(2)
    words = ["OMG!", "Really?", "😀", "1) a 2) b", "Well.", "You are amazing."]
    flagging = 0
    for _ in range(100):
        prompts = [
            Compared([], *(" ".join(rng.choice(words, 3)), [" ".join(rng.choice(words, 3))]))
            for _ in range(60)
        ]
        found = compare_features(prompts, PrevalenceSection(effect_size_min=0.0))
        flagging += any(one.flagged for one in found)
    assert flagging <= 12  # P(binomial(100, 0.05) > 12) is 0.1 %


def test_a_small_effect_is_not_flagged_however_sure() -> None:
    rng = np.random.default_rng(3)
    base = [" ".join(["word"] * count) for count in rng.integers(10, 60, 3000)]
    prompts = [Compared([], f"{text} more", [text]) for text in base]
    (length,) = [one for one in compare_features(prompts) if one.feature == "length_words"]
    assert length.q_value < 1e-9
    assert not length.flagged
    flagged = compare_features(prompts, PrevalenceSection(effect_size_min=0.05))
    assert [one.feature for one in flagged if one.flagged] == ["length_words"]


def test_accepted_samples_are_compared_with_the_rest_of_their_prompt() -> None:
    candidates = [["a", "a b", "a b c", "a b c d"], ["x"], ["long answer here", "short"]]
    found = compare_accepted([[], [], []], candidates, {(0, 3), (1, 0), (2, 0)})
    (length,) = [one for one in found if one.feature == "length_words"]
    assert (length.num_prompts, length.first_mean, length.second_mean) == (2, 3.5, 1.5)


def test_nothing_compared_is_nothing_and_a_summary_is_plain_json() -> None:
    import json

    assert compare_features([]) == []
    found = compare_features([Compared([], "OMG", ["well"])] * 5)
    assert set(json.loads(json.dumps(summarise_comparisons(found), allow_nan=False))) == set(
        FEATURES
    )
