"""Reward models: how fast they score and train, and what they learn in studies of known truth.

Scoring is measured on rejection sampling's own work, k candidates a prompt; every comparison is
interleaved in one process on one thread, with cold prefix caches.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import Row
from tests.bench.reward_samples import world_pairs, write_rows

NUM_PROMPTS = 400
NUM_CANDIDATES = 4
NAIVE_BATCH = 32
OTHER_BATCHES = (8, 64)
SCORING_REPEATS, TRAINING_REPEATS = 7, 3
TRAIN_PAIRS = 960


def rows() -> Iterator[Row]:
    """The `rewards` group."""
    yield from speed()
    yield from studies()


def studies() -> Iterator[Row]:
    """Every study at its full size."""
    from tests.bench import reward_agreement, reward_curve, reward_drift, topical_signals
    from tests.bench.reward_lab import open_bench

    with tempfile.TemporaryDirectory(prefix="fw-bench-") as folder, open_bench(Path(folder)) as it:
        for study in (reward_curve, reward_agreement, reward_drift, topical_signals):
            yield from study.rows(it)


def speed() -> Iterator[Row]:
    """`scoring_*` and `rm_training_vs_bare_trl`."""
    from flywheel_core.engines.config import EngineConfig
    from flywheel_core.engines.environment import prepare_environment

    prepare_environment(EngineConfig(num_threads=1))
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fw-bench-") as folder:
        yield from training(Path(folder))
        yield from scoring(Path(folder))


# -- scoring -------------------------------------------------------------------------------------


def scoring(folder: Path) -> Iterator[Row]:
    """Ours against a padded transformers loop and against bare vLLM, and all three's agreement."""
    from flywheel_core.engines.config import EngineConfig
    from flywheel_core.engines.vllm_scorer import VllmScorer

    model = reward_model(folder / "reward_model")
    asked = candidates(NUM_PROMPTS, NUM_CANDIDATES)
    ours = VllmScorer(EngineConfig(max_model_len=256, num_threads=1))
    bare, naive = bare_vllm(model), load_naive(model)
    render = partial(rendered, naive[0], asked)

    def padded_at(size: int) -> np.ndarray:
        return padded_loop(naive, render(), size)

    works: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: cold(ours.engine.llm, lambda: ours.score(model, asked)),
        "bare": lambda: cold(bare, lambda: bare_scores(bare, render())),
        "padded": partial(padded_at, NAIVE_BATCH),
    }
    for size in OTHER_BATCHES:
        works[f"padded at {size}"] = partial(padded_at, size)
    ours.score(model, asked[:8])
    rates: dict[str, list[float]] = {name: [] for name in works}
    scores: dict[str, np.ndarray] = {}
    for _ in range(SCORING_REPEATS):
        for name, work in works.items():
            started_s = time.monotonic()
            scores[name] = work()
            rates[name].append(len(asked) / (time.monotonic() - started_s))
    said = ", ".join(f"{name} {max(found):.0f}/s" for name, found in rates.items())
    what = f"{NUM_PROMPTS} prompts x {NUM_CANDIDATES} candidates, best of {SCORING_REPEATS}: {said}"
    at_other = ", ".join(
        f"{max(rates['ours']) / max(rates[f'padded at {size}']):.2f}x at batch {size}"
        for size in OTHER_BATCHES
    )
    yield ratio(
        "scoring_vs_padded_loop",
        rates["ours"],
        rates["padded"],
        3.0,
        f"rows/s, from messages to scores, padded loop of batch {NAIVE_BATCH}; {what}; {at_other}",
    )
    yield ratio(
        "scoring_vs_bare_pooling",
        rates["ours"],
        rates["bare"],
        0.95,
        f"rows/s, from messages to scores, against LLM.encode with vLLM's own defaults; {what}",
    )
    yield _agreement(ours, model, asked, scores)


def _agreement(ours: Any, model: Path, asked: Sequence[Any], scores: dict[str, np.ndarray]) -> Row:
    """Pointwise rows as scored above, and pairwise ones both ways, against the padded forward that
    training evaluates with."""
    gap = float(np.abs(scores["ours"] - scores["padded"]).max())
    pairs = [
        (first[0], first[1], second[1])
        for first, second in itertools.pairwise(asked)
        if first[0] is second[0]
    ]
    naive = load_naive(model)
    expected = padded_loop(naive, rendered(naive[0], pairs), NAIVE_BATCH)
    pair_gap = float(np.abs(ours.score(model, pairs) - expected).max())
    worst = max(gap, pair_gap)
    spread = float(np.std(scores["ours"]))
    return Row(
        "scoring_max_abs_diff", worst, "", "< 1e-4", worst < 1e-4,
        f"largest |vLLM pooling - padded transformers forward|, fp32: {len(asked)} single "
        f"responses {gap:.1e}, {len(pairs)} pairs {pair_gap:.1e}; the scores' SD is {spread:.2f}",
    )  # fmt: skip


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float], goal: float, how: str) -> Row:
    """Best of the repeats against best: what else the machine does only ever makes one slower."""
    value = max(ours) / max(theirs)
    each = ", ".join(f"{mine / other:.2f}" for mine, other in zip(ours, theirs, strict=True))
    return Row(name, value, "x", f">= {goal}", value >= goal, f"{how} (repeat by repeat {each})")


def seconds(work: Callable[[], object]) -> float:
    started_s = time.monotonic()
    work()
    return time.monotonic() - started_s


def candidates(num_prompts: int, num_candidates: int) -> list[Any]:
    """Rows to score, a prompt's candidates next to each other."""
    from flywheel_core.world.answers import sample_response
    from flywheel_core.world.contexts import context_of
    from flywheel_core.world.product import sample_contexts

    rng = np.random.default_rng(0)
    found = []
    for draft in sample_contexts("user", num_prompts, 0):
        context = context_of(draft.messages, draft.character_id)
        found += [(draft.messages, sample_response(context, rng)) for _ in range(num_candidates)]
    return found


def reward_model(folder: Path) -> Path:
    """The tiny base with a new head, as every training begins."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from flywheel_core.parents import BUILTIN_TINY
    from flywheel_core.training.data import padding_id

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN_TINY)
    model = AutoModelForSequenceClassification.from_pretrained(
        BUILTIN_TINY, num_labels=1, dtype=torch.float32
    )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding_id(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rendered(tokenizer: Any, asked: Sequence[Any]) -> list[str]:
    from flywheel_core.engines.rendering import render_row

    return [render_row(tokenizer, row) for row in asked]


def load_naive(model: Path) -> tuple[Any, Any]:
    """Tokenizer and network for `padded_loop`: loaded once, outside what is timed, as ours are."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    return AutoTokenizer.from_pretrained(model), network


def padded_loop(loaded: tuple[Any, Any], texts: Sequence[str], batch: int) -> np.ndarray:
    """What one writes without thinking: batches in order, padded to their longest."""
    import torch

    tokenizer, network = loaded
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            part = tokenizer(
                list(texts[start : start + batch]),
                padding=True,
                add_special_tokens=False,
                return_tensors="pt",
            )
            logits = network(
                input_ids=part["input_ids"], attention_mask=part["attention_mask"]
            ).logits
            found.append(logits[:, 0])
    return np.asarray(torch.cat(found).numpy())


def bare_vllm(model: Path) -> Any:
    """A user's `LLM`, with vLLM's own defaults but for what the CPU build demands."""
    from vllm import LLM

    return LLM(
        model=str(model), runner="pooling", dtype="float32", max_model_len=256, enforce_eager=True
    )


def bare_scores(llm: Any, texts: Sequence[str]) -> np.ndarray:
    from vllm import PoolingParams

    outputs = llm.encode(
        list(texts),
        pooling_task="classify",
        pooling_params=PoolingParams(use_activation=False),
        tokenization_kwargs={"add_special_tokens": False},
        use_tqdm=False,
    )
    return np.array([float(output.outputs.data.reshape(-1)[0]) for output in outputs])


def cold(llm: Any, work: Callable[[], np.ndarray]) -> np.ndarray:
    llm.reset_prefix_cache()
    return work()


# -- training ------------------------------------------------------------------------------------


def training(folder: Path) -> Iterator[Row]:
    """Our pointwise training against TRL's own trainer, the same rows and arguments."""
    pairs = world_pairs(TRAIN_PAIRS, seed=3, held_out=False)
    for row in pairs:  # TRL's own loss knows no shares of votes
        row["target"] = float(row["target"] > 0.5)
    path = write_rows(folder / "pairs.parquet", pairs)
    ours, bare, tokens = [], [], 0
    for repeat in range(TRAINING_REPEATS):
        trainer, tokens = our_trainer(path, folder / f"ours-{repeat}")
        ours.append(tokens / seconds(trainer.train))
        trainer = bare_trl(path, folder / f"bare-{repeat}")
        bare.append(tokens / seconds(trainer.train))
    yield ratio(
        "rm_training_vs_bare_trl", ours, bare, 0.95,
        f"tokens that are no padding a second of train(), {TRAIN_PAIRS} pairs, batch 32, one "
        f"epoch, one thread, no DeepSpeed on either side: ours {max(ours):.0f}/s, "
        f"TRL's RewardTrainer {max(bare):.0f}/s of {tokens} tokens",
    )  # fmt: skip


def our_trainer(path: Path, output: Path) -> tuple[Any, int]:
    from transformers import AutoTokenizer

    from flywheel_core.parents import BUILTIN_TINY
    from flywheel_core.training.config import LaunchConfig
    from flywheel_core.training.data import reward_rows
    from flywheel_core.training.reward_trainer import make_trainer

    config = pointwise_config()
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN_TINY)
    found: list[Any] = list(reward_rows(path, config, tokenizer).rows)
    tokens = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in found)
    launch = LaunchConfig(mode="inline")
    trainer = make_trainer("ours", config, launch, str(BUILTIN_TINY), tokenizer, found, output)
    return trainer, tokens


def pointwise_config() -> Any:
    from flywheel_core.training.config import RewardModelConfig

    return RewardModelConfig(
        kind="pointwise", learning_rate=1e-3, num_epochs=1, global_batch_size=32,
        max_length_tokens=256,
    )  # fmt: skip


def bare_trl(path: Path, output: Path) -> Any:
    """TRL as its documentation has it, on the same token ids; the preferred response is chosen."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    from flywheel_core.parents import BUILTIN_TINY
    from flywheel_core.training.common import quiet_libraries
    from flywheel_core.training.data import padding_id, reward_rows

    quiet_libraries()
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN_TINY)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding_id(tokenizer))
    rows: list[Any] = list(reward_rows(path, pointwise_config(), tokenizer).rows)
    chosen = [
        {
            "chosen_ids": row["chosen_ids" if row["target"] == 1 else "rejected_ids"],
            "rejected_ids": row["rejected_ids" if row["target"] == 1 else "chosen_ids"],
        }
        for row in rows
    ]
    return RewardTrainer(
        model=str(BUILTIN_TINY),
        args=RewardConfig(
            output_dir=str(output), per_device_train_batch_size=32, num_train_epochs=1,
            learning_rate=1e-3, max_length=None, disable_dropout=True, use_cpu=True, bf16=False,
            gradient_checkpointing=False, save_strategy="no", report_to=[], disable_tqdm=True,
            logging_steps=3, log_level="error",
        ),
        train_dataset=Dataset.from_list(chosen),
        processing_class=tokenizer,
    )  # fmt: skip
