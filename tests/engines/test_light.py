"""Rendering, configs, checkpoints and fakes: no vLLM."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from flywheel_core.engines.checkpoint import inspect_checkpoint
from flywheel_core.engines.config import EmbedderConfig, EngineConfig, SamplingConfig
from flywheel_core.engines.environment import variables
from flywheel_core.engines.fake import FakeGenerator, FakeScorer, HashEmbedder
from flywheel_core.engines.pool import EnginePool
from flywheel_core.engines.rendering import (
    encode,
    render_pairwise,
    render_pointwise,
    render_prompt,
)
from flywheel_core.errors import EngineError
from tests.engines.tiny import TinyModels, make_tokenizer, messages

LIGHT = ["base", "config", "environment", "checkpoint", "rendering", "fake", "pool"]


def test_light_modules_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        + "\n".join(f"import flywheel_core.engines.{name}" for name in LIGHT)
        + "\nimport flywheel_core.training.grpo_config, flywheel_core.training.grpo_records\n"
        "print([m for m in ('torch','vllm','ray','transformers','trl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rendering_has_one_bos_and_closes_the_response() -> None:
    tokenizer = make_tokenizer()
    ids = encode(tokenizer, [render_pointwise(tokenizer, messages(1), "Aye aye")])[0]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id


def test_a_response_continues_its_prompt_token_by_token() -> None:
    tokenizer = make_tokenizer()
    prompt, whole = encode(
        tokenizer,
        [render_prompt(tokenizer, messages(1)), render_pointwise(tokenizer, messages(1), "Aye")],
    )
    assert whole[: len(prompt)] == prompt


def test_pairwise_holds_both_responses_in_order() -> None:
    tokenizer = make_tokenizer()
    text = render_pairwise(tokenizer, messages(1), "first one", "second one")
    swapped = render_pairwise(tokenizer, messages(1), "second one", "first one")
    assert text != swapped
    assert text.index("first one") < text.index("second one")
    assert text.count("<|begin_of_text|>") == 1
    assert text.startswith(render_pointwise(tokenizer, messages(1), "first one"))


def test_prompt_must_end_with_a_user_turn() -> None:
    with pytest.raises(EngineError, match="must end with the user turn"):
        render_prompt(make_tokenizer(), [{"role": "assistant", "content": "hi"}])


def test_greedy_sampling_gives_one_answer() -> None:
    with pytest.raises(ValidationError, match="num_samples must be 1"):
        SamplingConfig(temperature=0, num_samples=2)


def test_environment_keeps_a_cpu_engine_at_home() -> None:
    chosen = variables(EngineConfig(num_threads=1, kv_cache_gib=2))
    assert chosen["VLLM_HOST_IP"] == "127.0.0.1"
    assert chosen["GLOO_SOCKET_IFNAME"] == "lo"
    assert chosen["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert chosen["HF_HUB_OFFLINE"] == "1"
    assert "DS_ACCELERATOR" not in variables(EngineConfig(device="cuda"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no config.json"),
        ({"config.json": "{"}, "not readable as JSON"),
        ({"config.json": '{"architectures": ["A"]}'}, "no \\*.safetensors"),
        (
            {"config.json": '{"architectures": ["A"]}', "model.safetensors": ""},
            "no tokenizer.json",
        ),
        (
            {
                "config.json": '{"architectures": ["A"]}',
                "model.safetensors": "short",
                "tokenizer.json": "{}",
            },
            "not a whole safetensors file",
        ),
    ],
)
def test_unreadable_checkpoints_say_what_is_wrong(
    empty_dir: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (empty_dir / name).write_text(text)
    with pytest.raises(EngineError, match=message):
        inspect_checkpoint(empty_dir)


def test_a_missing_folder_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="nowhere: no such folder"):
        inspect_checkpoint(tmp_path / "nowhere")


def test_versions_follow_weights_and_architectures_follow_shapes(tiny: TinyModels) -> None:
    policy, other = inspect_checkpoint(tiny.policy), inspect_checkpoint(tiny.other_policy)
    assert policy.architecture == other.architecture
    assert policy.version != other.version
    assert inspect_checkpoint(tiny.policy) == policy
    assert inspect_checkpoint(tiny.reward_internal).num_labels == 1
    assert inspect_checkpoint(tiny.reward_internal).architecture != policy.architecture


def test_rewritten_weights_have_another_version(tiny: TinyModels, tmp_path: Path) -> None:
    for file in tiny.policy.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    before = inspect_checkpoint(tmp_path).version
    (tmp_path / "model.safetensors").write_bytes(
        (tiny.other_policy / "model.safetensors").read_bytes()
    )
    assert inspect_checkpoint(tmp_path).version != before


def test_fake_generator_repeats_itself_and_differs_by_model() -> None:
    fake, prompts = FakeGenerator(), [messages(number) for number in range(40)]
    sampling = SamplingConfig(num_samples=3, max_tokens=4)
    fake.load(Path("a"))
    first = fake.generate(prompts, sampling)
    assert first == fake.generate(prompts, sampling)
    assert [len(samples) for samples in first] == [3] * 40
    assert all(sample.num_tokens <= 4 for samples in first for sample in samples)
    fake.load(Path("b"))
    assert first != fake.generate(prompts, sampling)


def test_fake_scorer_uses_its_function() -> None:
    rows = [(messages(1), "two words"), (messages(1), "three words here")]
    assert FakeScorer().score(Path("m"), rows).tolist() == [2.0, 3.0]


def test_hash_embedder_makes_unit_vectors_that_reflect_words() -> None:
    vectors = HashEmbedder().embed(["a kind pirate", "a kind pirate too", "42 oranges", ""])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_pool_lends_what_it_was_given() -> None:
    fake, scorer = FakeGenerator(), FakeScorer()
    pool = EnginePool(EngineConfig(), generator=fake, scorer=scorer)
    assert pool.generator(Path("x")) is fake
    assert fake.version != "nothing"
    assert pool.scorer() is scorer
    assert isinstance(pool.embedder(EmbedderConfig(model="hash")), HashEmbedder)


def test_sampling_config_round_trips() -> None:
    sampling = SamplingConfig(max_tokens=7, seed=3)
    assert SamplingConfig.model_validate(json.loads(sampling.model_dump_json())) == sampling
