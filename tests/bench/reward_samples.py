"""Annotated pairs of the simulated world without a model in the loop: untuned answers, in seconds.

Everything is drawn from a seed. A row has the columns that training and the ledger read.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.annotation.pairs import held_out_unit, is_held_out
from flywheel_core.jobs.preference_batches import COLUMNS
from flywheel_core.records import Surface
from flywheel_core.world.answers import sample_response
from flywheel_core.world.contexts import ChatContext, context_of
from flywheel_core.world.people import annotate_pairs
from flywheel_core.world.product import sample_contexts
from flywheel_core.world.utility import utility

Row = dict[str, Any]
Wanted = Callable[[ChatContext], bool]

SCHEMA = pa.schema([*COLUMNS, pa.field("character_id", pa.string())])
HELD_OUT_SHARE = 0.2


def anything(context: ChatContext) -> bool:
    return True


def world_pairs(
    count: int,
    seed: int,
    *,
    surface: Surface = "user",
    wanted: Wanted = anything,
    held_out: bool | None = None,
) -> list[Row]:
    """`count` pairs with three votes each, in chats that `wanted` takes.

    `held_out` asks for users kept from training only, or for the others only: seeds draw from the
    same users, so that two seeds alone are no split.
    """
    rng = np.random.default_rng([seed, 0xBA1])
    rows: list[Row] = []
    contexts: list[ChatContext] = []
    part = 0
    while len(rows) < count:
        for draft in sample_contexts(surface, max(200, count), seed * 1000 + part):
            context = context_of(draft.messages, draft.character_id)
            owner = {"user_id": draft.user_id, "conversation_id": draft.conversation_id}
            kept = is_held_out(held_out_unit(owner), HELD_OUT_SHARE)
            if len(rows) == count or held_out not in (None, kept) or not wanted(context):
                continue
            contexts.append(context)
            rows.append(
                owner
                | {
                    "prompt_id": draft.conversation_id,
                    "messages": draft.messages,
                    "character_id": draft.character_id,
                    "response_0": sample_response(context, rng),
                    "response_1": sample_response(context, rng),
                    "held_out": kept,
                }
            )
        part += 1
    texts = [[row[f"response_{side}"] for row in rows] for side in (0, 1)]
    votes = annotate_pairs(contexts, *texts, rng).votes
    for row, cast in zip(rows, votes, strict=True):
        row["votes"] = [int(vote) for vote in cast]
        row["target"] = float(np.mean(cast))
    return rows


def true_gaps(rows: Sequence[Row]) -> np.ndarray:
    """Hidden utility of `response_0` minus that of `response_1` [n]: what nobody may train on."""
    contexts = [context_of(row["messages"], row["character_id"]) for row in rows]
    first, second = (utility(contexts, [r[f"response_{side}"] for r in rows]) for side in (0, 1))
    return np.asarray(first - second)


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    pq.write_table(table_of(rows), path)
    return path


def table_of(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)
