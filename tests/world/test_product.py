"""The two surfaces: enough distinct prompts, the stated mix, and contexts that read back."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.records import SURFACES, Surface
from flywheel_core.world.characters import CHARACTERS, RULES, popularity
from flywheel_core.world.contexts import context_of
from flywheel_core.world.corpus import documents
from flywheel_core.world.phrases import TRAITS
from flywheel_core.world.product import PromptDraft, sample_contexts
from flywheel_core.world.utility import COLUMN, feature_matrix, utility


@pytest.fixture(scope="module")
def user_drafts() -> list[PromptDraft]:
    return sample_contexts("user", 6_000, seed=1)


@pytest.mark.parametrize("surface", SURFACES)
def test_thousands_of_distinct_prompts(surface: Surface) -> None:
    drafts = sample_contexts(surface, 6_000, seed=1)
    assert len({json.dumps(draft.messages) for draft in drafts}) >= 5_500
    assert len({draft.conversation_id for draft in drafts}) == len(drafts)


@pytest.mark.parametrize("surface", SURFACES)
def test_the_same_seed_gives_the_same_day_and_another_another(surface: Surface) -> None:
    assert sample_contexts(surface, 50, seed=7) == sample_contexts(surface, 50, seed=7)
    assert sample_contexts(surface, 50, seed=7) != sample_contexts(surface, 50, seed=8)


def test_contexts_read_back_from_the_text_alone(user_drafts: list[PromptDraft]) -> None:
    for draft in user_drafts[:2_000]:
        context = context_of(draft.messages, draft.character_id)
        assert (context.language, context.jtbd, context.depth, context.character_id) == (
            draft.language,
            draft.jtbd,
            draft.depth,
            draft.character_id,
        )
        assert context.topic in {"music", "food"} or context.topic
        roles = [message["role"] for message in draft.messages]
        assert roles == ["system", *["user", "assistant"] * draft.depth, "user"]


def test_corpus_contexts_read_back_with_topic_and_sentiment() -> None:
    for document in islice(documents(seed=3), 2_000):
        assert context_of(document.messages, document.context.character_id) == document.context


def test_languages_and_depths_of_user_traffic(user_drafts: list[PromptDraft]) -> None:
    languages: Counter[str] = Counter(draft.language for draft in user_drafts)
    for language, share in (("en", 0.60), ("es", 0.22), ("hi", 0.18)):
        assert languages.get(language, 0) / len(user_drafts) == pytest.approx(share, abs=0.03)
    first_turns = sum(draft.depth == 0 for draft in user_drafts) / len(user_drafts)
    assert 0.15 <= first_turns <= 0.21
    assert max(draft.depth for draft in user_drafts) == 4


def test_the_cap_on_characters_has_work_to_do(user_drafts: list[PromptDraft]) -> None:
    assert len(CHARACTERS) >= 40
    assert {(one.trait, one.rule) for one in CHARACTERS} == {
        (trait, rule) for trait in TRAITS for rule in RULES
    }
    assert popularity().sum() == pytest.approx(1)
    shares = Counter(draft.character_id for draft in user_drafts)
    top = shares.most_common(1)[0]
    assert top[0] == CHARACTERS[0].character_id
    assert 0.12 < top[1] / len(user_drafts) < 0.19
    internal = Counter(one.character_id for one in sample_contexts("internal", 6_000, seed=1))
    assert max(internal.values()) / 6_000 < 0.035


def test_testers_challenge_more_and_meet_more_rules(user_drafts: list[PromptDraft]) -> None:
    internal = sample_contexts("internal", 3_000, seed=1)

    def share_with_challenge(drafts: list[PromptDraft]) -> float:
        return float(np.mean([draft.messages[-1]["content"].endswith("!") for draft in drafts]))

    assert share_with_challenge(internal) > 3 * share_with_challenge(user_drafts)
    assert {draft.user_id[0] for draft in internal} == {"t"}
    assert {draft.user_id[0] for draft in user_drafts} == {"u"}


def test_the_corpus_has_the_stated_faults() -> None:
    corpus = list(islice(documents(seed=0), 6_000))
    contexts = [document.context for document in corpus]
    responses = [document.response for document in corpus]
    features = feature_matrix(contexts, responses)
    stated = {
        "persona": 0.34, "follow_up": 0.36, "list": 0.12, "preachy": 0.23, "templated": 0.11,
        "false_refusal": 0.21, "flattery": 0.17, "emoji": 1.35, "length": 2.8, "parses": 1.0,
    }  # fmt: skip
    for name, share in stated.items():
        measured = features[:, COLUMN[name]].mean()  # type: ignore[index]
        assert measured == pytest.approx(share, abs=max(0.025, 0.04 * share)), name
    true = utility(contexts, responses)
    assert 0.9 < true.mean() < 1.4
    assert 1.4 < true.std() < 1.8


@pytest.mark.parametrize(
    ("messages", "character_id", "message"),
    [
        ([{"role": "user", "content": "Any tips for art?"}], "nobody", "character_id"),
        ([{"role": "user", "content": "What is a monad?"}], "luna", "0 known requests"),
        ([{"role": "assistant", "content": "Sleep well."}], "luna", "last turn"),
    ],
)
def test_foreign_rows_have_no_context(
    messages: list[dict[str, str]], character_id: str, message: str
) -> None:
    with pytest.raises(InputDataError, match=message):
        context_of(messages, character_id)


def test_an_unknown_surface_is_named() -> None:
    with pytest.raises(ConfigError, match="'moon'"):
        sample_contexts("moon", 1, seed=0)  # type: ignore[arg-type]
