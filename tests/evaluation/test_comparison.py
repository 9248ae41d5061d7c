"""Win rates and the choice of a checkpoint."""

import numpy as np
import pytest

from flywheel_core.evaluation.comparison import (
    Checkpoint,
    choose_checkpoint,
    tally,
    win_rate_cell,
)
from flywheel_core.evaluation.features import FEATURES, feature_means


def test_a_tie_counts_one_half() -> None:
    counts = tally([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 4.0, 0.0])
    assert (counts.wins, counts.ties, counts.losses) == (1, 2, 1)
    assert counts.rate == 0.5


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="1 scores are not finite"):
        tally([np.nan, 1.0], [0.0, 0.0])


def test_repeated_prompts_are_not_more_evidence() -> None:
    cell = win_rate_cell(
        "pointwise_user",
        "user",
        [1.0] * 10,
        [0.0] * 10,
        prompt_texts=["same"] * 9 + ["other"],
        user_ids=[f"u{i}" for i in range(10)],
        seed=0,
    )
    assert cell.num_effective_prompts == 2
    assert cell.win_rate == 1.0


def test_users_with_many_prompts_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    per_user = np.repeat(rng.normal(size=40), 25)  # a user's prompts all agree
    users = np.repeat([f"u{i}" for i in range(40)], 25)
    options = {"prompt_texts": [str(i) for i in range(1000)], "seed": 0}
    clustered = win_rate_cell(
        "pointwise_user", "user", per_user, np.zeros(1000), user_ids=users.tolist(), **options
    )
    alone = win_rate_cell(
        "pointwise_user", "user", per_user, np.zeros(1000), user_ids=[None] * 1000, **options
    )
    assert clustered.lower is not None
    assert clustered.upper is not None
    assert alone.lower is not None
    assert alone.upper is not None
    assert clustered.upper - clustered.lower > 3 * (alone.upper - alone.lower)


def test_the_best_checkpoint_within_the_limit_is_chosen() -> None:
    offered = [
        Checkpoint("a", {"internal": 0.55, "user": 0.56}),
        Checkpoint("b", {"internal": 0.59, "user": 0.60}),
        Checkpoint("c", {"internal": 0.64, "user": 0.58}),
    ]
    assert choose_checkpoint(offered, 0.60).name == "b"
    assert choose_checkpoint(offered, 0.50).name == "a"
    with pytest.raises(ValueError, match="no checkpoint"):
        choose_checkpoint([], 0.60)


@pytest.mark.parametrize(
    ("feature", "text", "expected"),
    [
        ("emoji_count", "hi 😀 there 🎉", 2),
        ("list_share", "try:\n- one\n- two", 1),
        ("list_share", "1) walk 2) rest", 1),
        ("list_share", "a plain sentence", 0),
        ("templated_share", "OMG that is nice", 1),
        ("templated_share", "a comedy", 0),
        ("wall_of_text_share", "word " * 61, 1),
        ("wall_of_text_share", "word " * 61 + "\n", 0),
        ("question_share", "and you?", 1),
    ],
)
def test_features(feature: str, text: str, expected: float) -> None:
    assert FEATURES[feature](text) == expected


def test_feature_means_of_nothing_are_nothing() -> None:
    assert feature_means([]) == {}
    assert feature_means(["a?", "b"], [3, 5])["length_tokens"] == 4
