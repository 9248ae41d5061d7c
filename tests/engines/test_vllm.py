"""The vLLM engines against transformers, on random models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel_core.engines.config import EmbedderConfig, EngineConfig, SamplingConfig
from flywheel_core.engines.rendering import encode, render_prompt, render_row
from flywheel_core.errors import EngineError
from tests.engines.tiny import TinyModels, messages

pytestmark = [pytest.mark.heavy]

SAMPLING = SamplingConfig(max_tokens=12, num_samples=2, seed=5)
PROMPTS = [messages(number) for number in range(12)]


def logprob_gap(generator: Any, tiny: TinyModels, model_dir: Path) -> float:
    """Largest |log π_vllm − log π_transformers| over sampled tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir)
    prompts = encode(tiny.tokenizer, [render_prompt(tiny.tokenizer, row) for row in PROMPTS[:4]])
    gaps = []
    for prompt, samples in zip(
        prompts, generator.generate_ids(prompts, SAMPLING, logprobs=True), strict=True
    ):
        for sample in samples:
            ids = torch.tensor([prompt + list(sample.token_ids)])
            with torch.no_grad():
                logps = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            mine = logps.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
            gaps.append((mine - torch.tensor(sample.logprobs)).abs().max().item())
    return max(gaps)


def test_samples_do_not_depend_on_order_or_company(generator: Any, tiny: TinyModels) -> None:
    generator.load(tiny.policy)
    first = generator.generate(PROMPTS, SAMPLING)
    assert first == generator.generate(PROMPTS, SAMPLING)
    assert first[::-1] == generator.generate(PROMPTS[::-1], SAMPLING)
    assert first[:3] == generator.generate(PROMPTS[:3], SAMPLING)
    other_seed = SAMPLING.model_copy(update={"seed": 6})
    assert first != generator.generate(PROMPTS, other_seed)


def test_equal_prompts_draw_different_samples(generator: Any, tiny: TinyModels) -> None:
    generator.load(tiny.policy)
    twice = generator.generate([PROMPTS[0], PROMPTS[0]], SAMPLING)
    assert twice[0] != twice[1]


def test_reloaded_weights_are_the_new_models(generator: Any, tiny: TinyModels) -> None:
    """With tied embeddings vLLM's own reload leaves the output layer behind on a CPU."""
    for model_dir in (tiny.policy, tiny.other_policy, tiny.policy):
        generator.load(model_dir)
        assert logprob_gap(generator, tiny, model_dir) < 1e-4


def test_another_weight_version_is_refused(generator: Any, tiny: TinyModels) -> None:
    version = generator.load(tiny.policy)
    generator.generate(PROMPTS[:1], SAMPLING, expected_version=version)
    with pytest.raises(EngineError, match="'step-9' was asked for"):
        generator.generate(PROMPTS[:1], SAMPLING, expected_version="step-9")


def test_failed_reload_serves_nothing_until_the_next_load(
    generator: Any, tiny: TinyModels, empty_dir: Path
) -> None:
    generator.load(tiny.policy)
    first = generator.generate(PROMPTS, SAMPLING)
    for wrong, message in ((empty_dir, "missing instead of"), (tiny.other_shape, "instead of")):
        with pytest.raises(EngineError, match=message):
            generator.reload(wrong, "step-1")
        with pytest.raises(EngineError, match="no model is loaded"):
            generator.generate(PROMPTS[:1], SAMPLING)
        generator.load(tiny.policy)
        assert generator.generate(PROMPTS, SAMPLING) == first


def test_another_architecture_gets_another_engine(
    generator: Any, scorer: Any, tiny: TinyModels
) -> None:
    generator.load(tiny.policy)
    first = generator.generate(PROMPTS, SAMPLING)
    rows = [(messages(1), "Aye")]
    score = scorer.score(tiny.reward_user, rows)
    generator.load(tiny.other_shape)
    assert logprob_gap(generator, tiny, tiny.other_shape) < 1e-4
    assert scorer.score(tiny.reward_user, rows) == score
    generator.load(tiny.policy)
    assert generator.generate(PROMPTS, SAMPLING) == first


def test_too_long_prompts_are_counted(generator: Any, tiny: TinyModels) -> None:
    generator.load(tiny.policy)
    long = [{"role": "user", "content": "hello " * 400}]
    with pytest.raises(EngineError, match="1 of 2 inputs are longer than 255 tokens"):
        generator.generate([PROMPTS[0], long], SAMPLING)


def test_progress_reaches_the_total(generator: Any, tiny: TinyModels) -> None:
    generator.load(tiny.policy)
    seen: list[tuple[int, int]] = []
    generator.generate(
        PROMPTS, SAMPLING, progress=lambda done, total, what="": seen.append((done, total))
    )
    assert seen[-1][0] == seen[-1][1]


def test_scores_are_transformers_logits(scorer: Any, generator: Any, tiny: TinyModels) -> None:
    """Two reward models take turns in one engine, beside a generating engine."""
    import torch
    from transformers import AutoModelForSequenceClassification

    rows = [(messages(n), "Aye, " * (n % 3 + 1)) for n in range(6)]
    pairs = [(messages(n), "Aye", "Nay, never") for n in range(3)]
    for model_dir in (tiny.reward_internal, tiny.reward_user, tiny.reward_internal):
        model = AutoModelForSequenceClassification.from_pretrained(model_dir)
        for batch in (rows, pairs):
            texts = [render_row(tiny.tokenizer, row) for row in batch]
            with torch.no_grad():
                expected = [
                    model(torch.tensor([ids])).logits[0, 0].item()
                    for ids in encode(tiny.tokenizer, texts)
                ]
            assert np.abs(scorer.score(model_dir, batch) - expected).max() < 1e-4


def test_a_row_that_does_not_fit_is_never_cut(
    scorer: Any, tiny: TinyModels, capsys: pytest.CaptureFixture[str]
) -> None:
    """It gets no score, is counted, and leaves the others as they were, in any order."""
    rows = [(messages(n), "Aye, " * (n % 5 + 1)) for n in range(12)]
    long = [(messages(1), "word " * 400), ([*messages(2)[:1], user("word " * 400)], "Aye")]
    alone = scorer.score(tiny.reward_user, rows)
    mixed = scorer.score(tiny.reward_user, [long[0], *rows[::-1], long[1]])
    assert np.isnan(mixed[[0, -1]]).all()
    np.testing.assert_allclose(mixed[1:-1][::-1], alone, atol=1e-5)
    assert "reward_user: 2 of 14 rows get no score: longer than max_model_len 256" in (
        capsys.readouterr().out
    )


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def test_a_classifier_with_two_labels_is_refused(scorer: Any, tiny: TinyModels) -> None:
    with pytest.raises(EngineError, match="num_labels 1"):
        scorer.score(tiny.policy, [(messages(1), "hi")])


def test_minilm_embeds_without_a_network() -> None:
    from flywheel_core.engines.embedder import SentenceEmbedder

    vectors = SentenceEmbedder(EmbedderConfig(), EngineConfig()).embed(
        ["a dog runs", "a puppy is running", "tax law reform"]
    )
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
