"""What the last generation failed on chooses part of the next batch; rewriting prompts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from annotation_samples import world_rows

from flywheel_core.annotation.alternatives import (
    REWRITING_PROMPTS,
    alternatives_in_turn,
    asking_to_rewrite,
    rewriting_prompt,
    rewritten_reply,
)
from flywheel_core.annotation.targeting import choose_batch, failing_rows, failure_weights
from flywheel_core.errors import ConfigError
from flywheel_core.evaluation.judging import judge_named


def evaluated(folder: Path, **sides: dict[str, Any]) -> Path:
    judged = {name: metrics for name, metrics in sides.items()}
    (folder / "details.json").write_text(json.dumps({"judged": judged, "features": {}}))
    return folder


def test_a_rising_failure_weighs_more_than_a_falling_one(tmp_path: Path) -> None:
    weights = failure_weights(
        evaluated(
            tmp_path,
            candidate={"false_refusal": 0.10, "preachy": 0.10, "language_match": 0.9},
            production={"false_refusal": 0.04, "preachy": 0.20, "language_match": 0.9},
        )
    )
    assert weights == {
        "false_refusal": pytest.approx(0.16),
        "preachy": pytest.approx(0.10),
        "not_language_match": pytest.approx(0.10),
    }


def test_what_a_judge_and_a_rule_both_see_counts_once(tmp_path: Path) -> None:
    features = {"templated_share": 0.3, "markdown_broken_share": 0.1}
    details = {"judged": {"candidate": {"templated": 0.2}}, "features": {"candidate": features}}
    (tmp_path / "details.json").write_text(json.dumps(details))
    assert failure_weights(tmp_path) == {"templated": 0.2, "markdown_broken_share": 0.1}
    details["judged"] = {}
    (tmp_path / "details.json").write_text(json.dumps(details))
    assert failure_weights(tmp_path) == features


def test_nothing_was_measured_before_the_first_generation(tmp_path: Path) -> None:
    assert failure_weights(tmp_path) == {}
    batch = choose_batch(10, 4, 0.5, {}, {"preachy": [1, 2]}, 0)
    assert len(batch.indices) == 4
    assert not batch.targeted


def test_failures_are_found_on_the_logged_answers() -> None:
    rows = world_rows(300)
    failing = failing_rows(rows, judge_named("world"))
    refused = failing["false_refusal"]
    assert 0.1 < len(refused) / 300 < 0.35
    assert all(
        "cannot" in rows[i]["response"]
        or "skip" in rows[i]["response"]
        or rows[i]["language"] != "en"
        for i in refused
    )
    by_rules = failing_rows(rows, judge_named("rules"))
    assert "false_refusal" not in by_rules
    stock = ("OMG", "LOL", "Mind blown")
    assert by_rules["templated_share"] == [
        i for i, row in enumerate(rows) if any(phrase in row["response"] for phrase in stock)
    ]
    assert not any(failing_rows([], judge_named("world")).values())


def test_shares_of_a_batch_follow_the_weights_and_leave_room_for_the_rest() -> None:
    failing = {"preachy": list(range(0, 400)), "refusal": list(range(400, 800)), "rare": [900, 901]}
    weights = {"preachy": 0.3, "refusal": 0.1, "rare": 0.2}
    batch = choose_batch(1000, 300, 0.4, weights, failing, 7)
    assert batch.targeted == {"preachy": 60, "refusal": 20, "rare": 2}
    assert len(set(batch.indices)) == 300
    assert batch.indices == sorted(batch.indices)
    assert {900, 901} <= set(batch.indices)
    assert batch == choose_batch(1000, 300, 0.4, weights, failing, 7)
    assert batch.indices != choose_batch(1000, 300, 0.4, weights, failing, 8).indices


def test_no_failure_takes_more_than_the_targeted_share() -> None:
    batch = choose_batch(100, 50, 0.2, {"preachy": 0.9}, {"preachy": list(range(100))}, 0)
    assert batch.targeted == {"preachy": 10}
    assert len(choose_batch(30, 50, 0.2, {}, {}, 0).indices) == 30


def test_a_rewriting_prompt_asks_within_the_chat_and_only_its_result_is_used() -> None:
    prompt = rewriting_prompt("1")
    messages = [
        {"role": "system", "content": "Pim."},
        {"role": "user", "content": "Odd fact?"},
    ]
    asked = asking_to_rewrite(messages, "I cannot {say}.", prompt)
    assert [turn["role"] for turn in asked] == ["system", "user"]
    assert "Draft: I cannot {say}." in asked[-1]["content"]
    assert messages[-1]["content"] == "Odd fact?"
    assert rewritten_reply("1. dull\nRewritten reply: Gulls steal socks.") == "Gulls steal socks."
    assert rewritten_reply("Gulls steal socks.") == ""
    with pytest.raises(ConfigError, match="version 'x' is unknown; one of: 1"):
        rewriting_prompt("x")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.3, 0.5, 1.0])
def test_rewrites_have_their_share_and_hide_no_policy_of_the_pool(share: float) -> None:
    pool = ["production", "base", "pool-405b"]
    found = Counter(alternatives_in_turn(600, pool, share, rewriting_prompt("1")))
    assert found["rewrite-1"] == pytest.approx(600 * share, abs=1)
    assert all(found[name] == pytest.approx(200 * (1 - share), abs=1) for name in pool)
    assert alternatives_in_turn(4, pool, 0.0, rewriting_prompt("1")) == [*pool, "production"]


def test_a_used_rewriting_prompt_never_changes() -> None:
    import hashlib

    found = {
        name: hashlib.sha256(one.template.encode()).hexdigest()[:16]
        for name, one in REWRITING_PROMPTS.items()
    }
    assert found == {"1": "98cb63fb71ec62d2"}
