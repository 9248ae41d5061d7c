"""Parquet rows to the datasets the trainers take."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset

from flywheel_core.engines.rendering import encode, render_pairwise, render_pointwise
from flywheel_core.errors import InputDataError
from flywheel_core.records import read_table
from flywheel_core.training.config import RewardModelConfig

Rows = Iterable[dict[str, Any]]


def supervised_dataset(path: Path) -> Dataset:
    """`prompt` and `completion` messages, in the order of the file."""
    return _dataset(
        path,
        (
            {
                "prompt": row["messages"],
                "completion": [{"role": "assistant", "content": row["response"]}],
            }
            for row in read_table(path).to_pylist()
        ),
    )


def preference_dataset(path: Path) -> Dataset:
    """`prompt`, `chosen` and `rejected` messages; `response_0` is the chosen one."""
    return _dataset(
        path,
        (
            {
                "prompt": row["messages"],
                "chosen": [{"role": "assistant", "content": row["response_0"]}],
                "rejected": [{"role": "assistant", "content": row["response_1"]}],
            }
            for row in read_table(path).to_pylist()
        ),
    )


def reward_rows(path: Path, config: RewardModelConfig, tokenizer: Any) -> list[dict[str, Any]]:
    """Tokenised rows of one reward model, longest sequences cut at the left.

    Pointwise: `chosen_ids` and `rejected_ids` are the ids of `response_0` and `response_1`,
    `target` the share of votes for the first. Pairwise: each pair in both orders, which
    is Eq. 3's random position without its noise. Signal: one response, its label.
    """
    rows = read_table(path).to_pylist()
    build = {"pointwise": _pointwise, "pairwise": _pairwise, "signal": _signal}[config.kind]
    return list(build(rows, tokenizer, config))


def _pointwise(
    rows: list[Any], tokenizer: Any, config: RewardModelConfig
) -> Iterable[dict[str, Any]]:
    first, second = (
        encode(
            tokenizer,
            [render_pointwise(tokenizer, row["messages"], row[f"response_{side}"]) for row in rows],
        )
        for side in (0, 1)
    )
    for row, ids_0, ids_1 in zip(rows, first, second, strict=True):
        yield {
            "chosen_ids": ids_0[-config.max_length_tokens :],
            "rejected_ids": ids_1[-config.max_length_tokens :],
            "target": float(row["target"]),
        }


def _pairwise(
    rows: list[Any], tokenizer: Any, config: RewardModelConfig
) -> Iterable[dict[str, Any]]:
    texts, targets = [], []
    for row in rows:
        pair = (row["response_0"], row["response_1"])
        texts += [
            render_pairwise(tokenizer, row["messages"], *shown) for shown in (pair, pair[::-1])
        ]
        targets += [float(row["target"]), 1.0 - row["target"]]
    for ids, target in zip(encode(tokenizer, texts), targets, strict=True):
        yield {"input_ids": ids[-config.max_length_tokens :], "target": target}


def _signal(rows: list[Any], tokenizer: Any, config: RewardModelConfig) -> Rows:
    texts = [render_pointwise(tokenizer, row["messages"], row["response"]) for row in rows]
    for row, ids in zip(rows, encode(tokenizer, texts), strict=True):
        yield {"input_ids": ids[-config.max_length_tokens :], "target": float(row["label"])}


def _dataset(path: Path, rows: Iterable[dict[str, Any]]) -> Dataset:
    found = list(rows)
    if not found:
        raise InputDataError(f"{path.name}: no rows to train on; look at the stage that made it")
    return Dataset.from_list(found)
