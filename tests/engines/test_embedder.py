"""Sentence embeddings: any sentence-transformers model, in shards that a later run takes over."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from flywheel_core.engines.base import by_length
from flywheel_core.engines.config import EmbedderConfig, EngineConfig
from flywheel_core.engines.embedder import SentenceEmbedder
from flywheel_core.engines.embeddings import ShardedEmbedder, StoredVectors
from flywheel_core.engines.environment import prepare_environment
from flywheel_core.engines.fake import HashEmbedder
from flywheel_core.errors import ConfigError

WORDS = ("a", "dog", "runs", "to", "the", "sea", "and", "sings", "Query:")
HIDDEN = 16


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[:-1], rng.integers(1, 30))) for _ in range(count)]


def silent(done: int, total: int, what: str = "") -> None:
    """Progress that nobody follows."""


def save_llama(folder: Path, pooling: str, **changes: Any) -> Path:
    """A tiny Llama with random weights, laid out as a sentence-transformers model."""
    prepare_environment(EngineConfig())
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    LlamaModel(config).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(("<pad>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=64
    ).save_pretrained(folder)
    saved = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(saved | changes))
    parts = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    modules = [
        {
            "idx": int(name),
            "name": name,
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for name, path, kind in parts
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": HIDDEN, f"pooling_mode_{pooling}": True})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    return folder


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("causal"), "lasttoken")


@pytest.fixture(scope="module")
def drama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DRAMA's layout: its own architecture's name, its own code, the mean over all tokens."""
    folder = tmp_path_factory.mktemp("drama")
    return save_llama(
        folder,
        "mean_tokens",
        architectures=["DramaModel"],
        auto_map={"AutoModel": "modeling_drama.DramaModel"},
    )


def embedder(folder: Path, batch_texts: int = 8, **changes: Any) -> SentenceEmbedder:
    return SentenceEmbedder(
        EmbedderConfig(model=str(folder), **changes),
        EngineConfig(embedding_batch_texts=batch_texts),
    )


def hidden_states(folder: Path, text: str, *, sees_all: bool) -> np.ndarray[Any, Any]:
    """The last layer's states [num_tokens, HIDDEN] of one text, with a mask written out here."""
    import torch
    from transformers import AutoTokenizer, LlamaModel

    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    count = ids.shape[1]
    mask = torch.zeros(1, 1, count, count, dtype=torch.float64)
    if not sees_all:
        mask += torch.triu(torch.full((count, count), -torch.inf, dtype=torch.float64), 1)
    model = LlamaModel.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        return np.asarray(model(ids, attention_mask=mask).last_hidden_state[0])


def unit(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(vector / np.linalg.norm(vector))


TEXTS = ["a dog runs to the sea and sings", "the sea", "dog", "a dog sings to the sea"]


def test_a_last_token_model_by_its_own_configuration(causal: Path) -> None:
    found = embedder(causal).embed(TEXTS)
    for vector, text in zip(found, TEXTS, strict=True):
        states = hidden_states(causal, text, sees_all=False)
        assert vector == pytest.approx(unit(states[-1]), abs=1e-5)


@pytest.mark.parametrize("batch_texts", [1, 8], ids=["unpadded", "padded"])
def test_drama_sees_all_tokens_without_its_code(drama: Path, batch_texts: int) -> None:
    found = embedder(drama, batch_texts).embed(TEXTS)
    for vector, text in zip(found, TEXTS, strict=True):
        both_ways = unit(hidden_states(drama, text, sees_all=True).mean(axis=0))
        assert vector == pytest.approx(both_ways, abs=1e-5)
    one_way = unit(hidden_states(drama, TEXTS[0], sees_all=False).mean(axis=0))
    assert np.abs(found[0] - one_way).max() > 1e-3


def test_prompt_dimension_and_length_are_the_recipes(drama: Path) -> None:
    asked = embedder(drama, prompt="Query: ", dimension=6, max_tokens=4).embed(TEXTS)
    assert asked.shape == (len(TEXTS), 6)
    for vector, text in zip(asked, TEXTS, strict=True):
        cut = " ".join(("Query: " + text).split()[:4])
        expected = hidden_states(drama, cut, sees_all=True).mean(axis=0)[:6]
        assert vector == pytest.approx(unit(expected), abs=1e-5)
    with pytest.raises(ConfigError, match=r"dimension 17.* of 16 numbers"):
        embedder(drama, dimension=17).embed(["a"])


@pytest.mark.parametrize("texts", [[], ["dog"]])
def test_no_text_and_one_text(causal: Path, tmp_path: Path, texts: list[str]) -> None:
    for one in (embedder(causal), ShardedEmbedder(embedder(causal), tmp_path, silent)):
        assert one.embed(texts)[np.arange(len(texts))].shape == (len(texts), HIDDEN)


def test_a_models_own_code_is_refused(causal: Path, tmp_path: Path) -> None:
    config = json.loads((causal / "config.json").read_text())
    modules = json.loads((causal / "modules.json").read_text())
    own_model = config | {"auto_map": {"AutoModel": "modeling_mine.Mine"}}
    own_module = [*modules, {"idx": 2, "name": "2", "path": "", "type": "os.path"}]
    for number, (files, said) in enumerate(
        [((own_model, modules), "modeling_mine.Mine"), ((config, own_module), "os.path")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in zip(("config.json", "modules.json"), files, strict=True):
            (folder / name).write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=rf"code of its own.*{said}"):
            embedder(folder).embed(["a"])


def test_a_folder_that_is_no_model_and_a_misspelt_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no modules\.json there"):
        embedder(tmp_path).embed(["a"])
    with pytest.raises(ValidationError, match="'minilem' is none of minilm, hash"):
        EmbedderConfig.model_validate("minilem")
    assert EmbedderConfig.model_validate("hash") == EmbedderConfig(model="hash")


@pytest.mark.parametrize("shard_texts", [8, 24, 1000])
def test_shards_give_the_vectors_of_the_whole_bit_by_bit(
    causal: Path, tmp_path: Path, shard_texts: int
) -> None:
    texts = sentences(100)
    whole = embedder(causal).embed(texts)
    stored = ShardedEmbedder(embedder(causal), tmp_path, silent, shard_texts).embed(texts)
    assert isinstance(stored, StoredVectors)
    assert np.array_equal(stored[np.arange(100)], whole)
    some = np.array([99, 3, 3, 50])
    assert np.array_equal(stored[some], whole[some])
    order = np.random.default_rng(1).permutation(100)
    other = embedder(causal).embed([texts[index] for index in order])
    assert np.array_equal(other, whole[order])
    assert len(list(tmp_path.glob("*.npy"))) == -(-100 // max(8, shard_texts))


class Dying:
    """Embeds so many texts, then dies; counts what it was asked."""

    batch_texts, name = 4, "dying"

    def __init__(self, num_texts_max: int) -> None:
        self.num_texts_max, self.num_texts = num_texts_max, 0

    def embed(self, texts: Sequence[str]) -> Any:
        if self.num_texts + len(texts) > self.num_texts_max:
            raise KeyboardInterrupt
        self.num_texts += len(texts)
        return HashEmbedder(8).embed(texts)


def test_a_run_that_broke_off_embeds_only_what_is_missing(tmp_path: Path) -> None:
    texts = sorted(set(sentences(200)))
    first, second = Dying(50), Dying(10_000)
    with pytest.raises(KeyboardInterrupt):
        ShardedEmbedder(first, tmp_path, silent, 20).embed(texts)
    assert first.num_texts == 40
    torn = sorted(tmp_path.glob("*.npy"))[0]
    torn.write_bytes(torn.read_bytes()[:100])
    told: list[int] = []
    stored = ShardedEmbedder(
        second, tmp_path, lambda done, total, what="": told.append(done), 20
    ).embed(texts)
    assert second.num_texts == len(texts) - 20
    assert told == sorted(told)
    assert told[-1] == len(texts)
    assert np.array_equal(stored[np.arange(len(texts))], HashEmbedder(8).embed(texts))


def test_other_texts_settings_or_weights_are_other_shards(causal: Path, drama: Path) -> None:
    names = {
        embedder(causal).name,
        embedder(drama).name,
        embedder(causal, prompt="Query: ").name,
        embedder(causal, dimension=4).name,
        embedder(causal, batch_texts=16).name,
    }
    assert len(names) == 5
    assert embedder(causal).name in names


def test_texts_of_like_length_go_together_in_one_order() -> None:
    texts = ["bb", "a", "ccc", "ab", "aa"]
    assert [texts[index] for index in by_length(texts)] == ["ccc", "aa", "ab", "bb", "a"]


def test_on_a_gpu(drama: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    texts = sentences(300)
    config = EmbedderConfig(model=str(drama))
    there = SentenceEmbedder(config, EngineConfig(device="cuda", dtype="float32")).embed(texts)
    half = SentenceEmbedder(config, EngineConfig(device="cuda", dtype="bfloat16")).embed(texts)
    here = SentenceEmbedder(config, EngineConfig()).embed(texts)
    assert np.abs(there - here).max() < 1e-3
    assert (half * here).sum(axis=1).min() > 0.98
    assert np.linalg.norm(half, axis=1) == pytest.approx(np.ones(300), abs=1e-5)
