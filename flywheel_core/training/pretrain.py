"""Train the tiny base model of the simulated product from scratch, on one core.

The paper starts from Llama 3.1 70B; the simulated product starts from this: a Llama of 0.5M
parameters that speaks the world's closed language with the faults of an untuned assistant. The
shipped checkpoint lies in `flywheel_core/world/base_model`; `python -m
flywheel_core.training.pretrain DIR` makes it anew.

What was simplified: one pass over a synthetic corpus, loss on the answer only, no packing.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from flywheel_core import world
from flywheel_core.world.contexts import ChatContext
from flywheel_core.world.corpus import Document, documents
from flywheel_core.world.product import draw_chat, make_mix
from flywheel_core.world.utility import FEATURES, feature_matrix, utility_of_features

BOS, EOT, PAD = "<|begin_of_text|>", "<|eot_id|>", "<|pad|>"
HEADER_START, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
BASE_MODEL_DIR = Path(world.__file__).parent / "base_model"
"""The shipped checkpoint."""

SPECIAL_TOKENS = (BOS, HEADER_START, HEADER_END, EOT, PAD)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""Llama 3's template without its date line; the generation marks serve `assistant_only_loss`."""


class PretrainConfig(BaseModel):
    """How the base model is made. All values are ours; together they take 4 minutes of a core.

    `init_std` 0.06 is not a detail: with the usual 0.02 a model this narrow does not learn to
    keep to the user's topic.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    vocab_size: int = Field(default=1_400, ge=300)
    num_tokenizer_documents: int = Field(default=6_000, ge=1)
    hidden_size: int = 96
    intermediate_size: int = 256
    num_layers: int = 3
    num_heads: int = 3
    max_positions: int = 256
    init_std: float = 0.06
    num_documents: int = Field(default=68_000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = 5e-3
    warmup_share: float = Field(default=0.04, ge=0, le=1)
    final_lr_share: float = Field(default=0.03, ge=0, le=1)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    num_eval_prompts: int = Field(default=1_000, ge=1)
    max_new_tokens: int = 80


class PretrainResult(BaseModel):
    """What `pretrain.json` holds: the recipe, the work done and how the model speaks.

    Shares and means are over `num_eval_prompts` sampled answers (temperature 1) to user prompts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: PretrainConfig
    num_parameters: int
    num_train_tokens: int
    final_loss: float
    num_eval_prompts: int
    mean_response_tokens: float
    mean_prompt_tokens: float
    mean_utility: float
    sd_utility: float
    features: dict[str, float]


def train_tokenizer(config: PretrainConfig) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the corpus; nothing is out of vocabulary."""
    corpus = islice(documents(config.seed + 1), config.num_tokenizer_documents)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A header ends in two line breaks; apart, they stay one token, as in Llama 3.
            pre_tokenizers.Split(Regex(r"\n+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOT,
        pad_token=PAD,
        padding_side="left",
        model_max_length=config.max_positions,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _texts(corpus: Iterator[Document]) -> Iterator[str]:
    for document in corpus:
        for message in document.messages:
            yield f"{message['role']}\n\n"
            yield message["content"]
        yield document.response


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama; the head size (hidden/heads) must be one of vLLM CPU: 32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            max_position_embeddings=config.max_positions,
            initializer_range=config.init_std,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def prompt_text(messages: Sequence[Any]) -> str:
    """The chat template with a generation prompt, without Jinja: a corpus is rendered often."""
    turns = "".join(
        f"{HEADER_START}{message['role']}{HEADER_END}\n\n{message['content']}{EOT}"
        for message in messages
    )
    return f"{BOS}{turns}{HEADER_START}assistant{HEADER_END}\n\n"


def _encode(
    tokenizer: PreTrainedTokenizerFast, corpus: Sequence[Document]
) -> list[tuple[list[int], int]]:
    """Token ids with the number of prompt tokens, per document."""
    prompts = [prompt_text(document.messages) for document in corpus]
    answers = [document.response + EOT for document in corpus]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return [
        (prompt + answer, len(prompt))
        for prompt, answer in zip(prompt_ids, answer_ids, strict=True)
    ]


def _batches(
    examples: Sequence[tuple[list[int], int]], batch_size: int, rng: np.random.Generator
) -> list[list[tuple[list[int], int]]]:
    """Batches of like lengths, in random order."""
    order = sorted(range(len(examples)), key=lambda index: len(examples[index][0]))
    batches = [
        [examples[index] for index in order[start : start + batch_size]]
        for start in range(0, len(order), batch_size)
    ]
    return [batches[index] for index in rng.permutation(len(batches))]


def _tensors(batch: Sequence[tuple[list[int], int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels [batch, length], padded on the right; -100 outside the answers.

    No attention mask is needed: under causal attention nothing looks at padding on the right.
    """
    length = max(len(ids) for ids, _ in batch)
    inputs = torch.full((len(batch), length), pad_id, dtype=torch.long)
    labels = torch.full((len(batch), length), -100, dtype=torch.long)
    for row, (ids, num_prompt) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, num_prompt : len(ids)] = inputs[row, num_prompt : len(ids)]
    return inputs, labels


def _answer_loss(model: LlamaForCausalLM, inputs: Tensor, labels: Tensor) -> Tensor:
    """Summed cross-entropy over answer tokens; logits only where there is something to predict."""
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    wanted = targets != -100
    logits = model.lm_head(hidden[wanted])
    return functional.cross_entropy(logits, targets[wanted], reduction="sum")


def _train(
    model: LlamaForCausalLM,
    batches: Sequence[Sequence[tuple[list[int], int]]],
    config: PretrainConfig,
    pad_id: int,
    progress: Progress | None,
) -> float:
    """One pass; returns the loss per answer token over the last twentieth of the steps.

    Batches hold like lengths, so a mean over the batch's own tokens would give the tokens of
    short documents more weight; the divisor is the same for every batch instead.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _lr_share(step, len(batches), config)
    )
    num_answer_tokens = [sum(len(ids) - start for ids, start in batch) for batch in batches]
    divisor = sum(num_answer_tokens) / len(batches)
    task = progress.add_task("pre-training", total=len(batches)) if progress else None
    losses: list[float] = []
    model.train()
    for batch in batches:
        loss = _answer_loss(model, *_tensors(batch, pad_id))
        (loss / divisor).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if progress is not None and task is not None:
            progress.update(task, advance=1)
    tail = max(1, len(batches) // 20)
    return sum(losses[-tail:]) / sum(num_answer_tokens[-tail:])


def _lr_share(step: int, num_steps: int, config: PretrainConfig) -> float:
    """Linear warm-up, then a cosine down to `final_lr_share`."""
    num_warmup = max(1, round(config.warmup_share * num_steps))
    if step < num_warmup:
        return (step + 1) / num_warmup
    done = (step - num_warmup) / max(1, num_steps - num_warmup)
    cosine = 0.5 * (1 + float(np.cos(np.pi * min(1.0, done))))
    return config.final_lr_share + (1 - config.final_lr_share) * cosine


@torch.inference_mode()
def generate_answers(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int = 250,
) -> list[str]:
    """One sampled answer (temperature 1) per rendered prompt, from torch's current RNG state."""
    model.eval()
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        encoded = tokenizer(
            list(prompts[start : start + batch_size]),
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        )
        generated = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            generation_config=_sampling(tokenizer, max_new_tokens),
        )
        new = generated[:, encoded["input_ids"].shape[1] :]
        answers.extend(tokenizer.batch_decode(new, skip_special_tokens=True))
    return answers


def _sampling(tokenizer: PreTrainedTokenizerFast, max_new_tokens: int) -> GenerationConfig:
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _evaluate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, config: PretrainConfig
) -> dict[str, Any]:
    rng = np.random.default_rng([config.seed, 0xE7A1])
    chats = [draw_chat(make_mix("user"), rng) for _ in range(config.num_eval_prompts)]
    prompts = [prompt_text(chat.messages) for chat in chats]
    answers = generate_answers(model, tokenizer, prompts, config.max_new_tokens)
    contexts: list[ChatContext] = [chat.context for chat in chats]
    features = feature_matrix(contexts, answers)
    utility = utility_of_features(contexts, features)
    return {
        "num_eval_prompts": len(chats),
        "mean_response_tokens": _mean_tokens(tokenizer, answers),
        "mean_prompt_tokens": _mean_tokens(tokenizer, prompts),
        "mean_utility": round(float(utility.mean()), 4),
        "sd_utility": round(float(utility.std()), 4),
        "features": {
            name: round(float(features[:, index].mean()), 4) for index, name in enumerate(FEATURES)
        },
    }


def _mean_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> float:
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return round(sum(map(len, ids)) / len(ids), 2)


@contextmanager
def _seeded_single_thread(seed: int) -> Iterator[None]:
    """Torch's RNG seeded and one thread inside; the caller's state comes back after.

    Sums over several threads depend on how many there are, and the result with them.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(num_threads)


def pretrain(
    config: PretrainConfig, output_dir: Path, *, progress: Progress | None = None
) -> PretrainResult:
    """Train, evaluate and write a checkpoint that transformers, TRL and vLLM load.

    `pretrain.json` is written last. The same config gives the same bytes on the same CPU kind;
    elsewhere the metrics agree within sampling error, the weights do not.
    """
    tokenizer = train_tokenizer(config)
    corpus = list(islice(documents(config.seed), config.num_documents))
    examples = _encode(tokenizer, corpus)
    rng = np.random.default_rng([config.seed, 0xBA7C])
    batches = _batches(examples, config.batch_size, rng)
    with _seeded_single_thread(config.seed):
        model = build_model(config, tokenizer)
        final_loss = _train(model, batches, config, int(tokenizer.pad_token_id), progress)
        measured = _evaluate(model, tokenizer, config)
    result = PretrainResult(
        config=config,
        num_parameters=model.num_parameters(),
        num_train_tokens=sum(len(ids) for ids, _ in examples),
        final_loss=round(final_loss, 4),
        **measured,
    )
    model.generation_config = _sampling(tokenizer, config.max_new_tokens)
    model.save_pretrained(output_dir)
    tokenizer.save_pretrained(output_dir)
    text = json.dumps(result.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (output_dir / "pretrain.json").write_text(text + "\n", encoding="utf-8")
    return result


def main() -> None:
    """`python -m flywheel_core.training.pretrain DIR`: rebuild the shipped base model."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m flywheel_core.training.pretrain DIR")
    with Progress() as progress:
        result = pretrain(PretrainConfig(), Path(sys.argv[1]), progress=progress)
    print(result.model_dump_json(indent=2))


if __name__ == "__main__":
    main()
