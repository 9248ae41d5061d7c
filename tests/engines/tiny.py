"""Random Llamas of 0.1M parameters with a Llama-3 style chat template (tied embeddings)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
SPECIAL = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|pad|>")
CORPUS = ["hello there how are you today", "tell me a story about a kind pirate and the sea"] * 4


@dataclass(frozen=True)
class TinyModels:
    """Two policies and two reward models of one architecture each, in one folder."""

    policy: Path
    other_policy: Path
    other_shape: Path
    reward_internal: Path
    reward_user: Path
    tokenizer: Any


def make_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(SPECIAL), initial_alphabet=alphabet
    )
    bpe.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=SPECIAL[0], eos_token=SPECIAL[1], pad_token=SPECIAL[4]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_tiny_models(folder: Path) -> TinyModels:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    tokenizer = make_tokenizer()
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }

    def save(name: str, seed: int, model_class: Any, **extra: Any) -> Path:
        torch.manual_seed(seed)
        model = model_class(LlamaConfig(**(shape | extra)))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        return folder / name

    return TinyModels(
        policy=save("policy", 0, LlamaForCausalLM, tie_word_embeddings=True),
        other_policy=save("other_policy", 1, LlamaForCausalLM, tie_word_embeddings=True),
        other_shape=save("other_shape", 4, LlamaForCausalLM, hidden_size=96),
        reward_internal=save("reward_internal", 2, LlamaForSequenceClassification, num_labels=1),
        reward_user=save("reward_user", 3, LlamaForSequenceClassification, num_labels=1),
        tokenizer=tokenizer,
    )


def messages(number: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "You are Ann, a kind pirate."},
        {"role": "user", "content": f"Hello number {number}, tell me a story"},
    ]
