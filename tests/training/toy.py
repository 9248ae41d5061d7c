"""Toy data whose rows differ in length, so that a wrong mean shows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.records import MESSAGES
from flywheel_core.training.config import (
    DpoConfig,
    LaunchConfig,
    RewardModelConfig,
    SftConfig,
)
from tests.engines.tiny import make_tiny_models, messages

NUM_ROWS = 12
INLINE = LaunchConfig(mode="inline")
SFT = SftConfig(
    learning_rate=1e-2,
    num_epochs=1,
    global_batch_size=4,
    max_length_tokens=200,
    num_checkpoints=2,
    warmup_share=0,
    schedule="constant_with_warmup",
)
DPO = DpoConfig(
    learning_rate=1e-3, num_epochs=1, global_batch_size=4, max_length_tokens=200, warmup_share=0
)


def reward_config(kind: Any, **changes: Any) -> RewardModelConfig:
    values: dict[str, Any] = {
        "kind": kind,
        "learning_rate": 1e-3,
        "num_epochs": 1,
        "global_batch_size": 4,
        "max_length_tokens": 256,
        "warmup_share": 0,
    }
    return RewardModelConfig(**(values | changes))


@dataclass(frozen=True)
class Toy:
    """A policy, its tokenizer and one table of each shape."""

    model: Path
    tokenizer: Any
    sft: Path
    pairs: Path
    signals: Path


def answer(number: int) -> str:
    return " ".join(["aye", "the sea", "tell me"][index % 3] for index in range(1 + number % 5))


def make_toy(folder: Path) -> Toy:
    models = make_tiny_models(folder)
    numbers = range(NUM_ROWS)
    sft = [{"messages": messages(n), "response": answer(n), "source": "toy"} for n in numbers]
    pairs = [
        {
            "messages": messages(n),
            "response_0": answer(n),
            "response_1": answer(n + 1) + " matey",
            "target": [1.0, 0.0, 2 / 3, 0.5][n % 4],
        }
        for n in numbers
    ]
    signals = [
        {"messages": messages(n), "response": answer(n), "label": float(n % 3 == 0)}
        for n in numbers
    ]
    return Toy(
        model=models.policy,
        tokenizer=models.tokenizer,
        sft=write(folder / "sft.parquet", sft),
        pairs=write(folder / "pairs.parquet", pairs),
        signals=write(folder / "signals.parquet", signals),
    )


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    schema = pa.schema(
        [
            pa.field(name, MESSAGES if name == "messages" else pa.array([value]).type)
            for name, value in rows[0].items()
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def weights(model_dir: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(model_dir / "model.safetensors"))


def largest_gap(first: Path, second: Path) -> float:
    """The largest difference between two models' weights."""
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)
