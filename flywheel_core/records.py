"""The vocabulary: every table that travels between stages, as an Arrow schema.

A *traffic row* is one assistant turn with its history. `messages` starts with the system turn
(the character's name, traits and instructions), alternates user and assistant, and ends with
the user turn that `response` answers. A field the source does not have is null: *not
applicable*, never invented.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.errors import InputDataError

Surface = Literal["internal", "user"]
SURFACES: tuple[Surface, ...] = ("internal", "user")

SIGNALS = ("continue_10min", "love", "thumb_up", "thumb_down", "feedback")
"""User signals of the paper's Table 2."""

Split = Literal["annotate", "reject", "rl", "stop", "select", "gate"]
SPLITS: tuple[Split, ...] = ("annotate", "reject", "rl", "stop", "select", "gate")
"""What a curated prompt is for. `stop`, `select` and `gate` are evaluation prompts: one stops
training, one selects the checkpoint, one gates (DESIGN, Gates)."""


class Message(TypedDict):
    """One turn: role is `system`, `user` or `assistant`."""

    role: str
    content: str


MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

CONTEXT_FIELDS = [
    pa.field("messages", MESSAGES, nullable=False),
    pa.field("surface", pa.string(), nullable=False),
    pa.field("conversation_id", pa.string(), nullable=False),
    pa.field("turn_index", pa.int32(), nullable=False),
    pa.field("user_id", pa.string()),
    pa.field("character_id", pa.string()),
    pa.field("locale", pa.string()),
    pa.field("language", pa.string()),
    pa.field("jtbd", pa.string()),
    pa.field("depth", pa.int32(), nullable=False),
]
"""Where a response was asked for. `depth` counts the user turns before the last one. `language` is
a BCP 47 tag, `jtbd` a short label; neither these nor the ids may say who somebody is."""

TRAFFIC = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("day", pa.string(), nullable=False),
        *CONTEXT_FIELDS,
        pa.field("response", pa.string(), nullable=False),
        pa.field("model_digest", pa.string()),
        *(pa.field(signal, pa.bool_()) for signal in SIGNALS),
    ]
)

Reason = Literal[
    "annotation", "supervised", "near_policy", "older_policy", "policy_unknown", "held_out"
]
"""Why a prompt was taken. RL prompts are near-policy (served by the model now in production,
§3.5.2), of an older model within its share, or of a model the source does not name; `held_out`
prompts evaluate, and belong to units that no training prompt comes from."""

PROMPTS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        *CONTEXT_FIELDS,
        pa.field("response", pa.string(), nullable=False),
        pa.field("model_digest", pa.string()),
        pa.field("source_key", pa.string(), nullable=False),
        pa.field("day", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""Curated prompts; `response` is what the model `model_digest` answered in traffic. `prompt_id` is
the `row_id` of the traffic row, which lies in the artifact with key `source_key`, on `day`."""

DRAFTS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        *CONTEXT_FIELDS,
        pa.field("response_0", pa.string(), nullable=False),
        pa.field("response_1", pa.string(), nullable=False),
        pa.field("policy_0", pa.string(), nullable=False),
        pa.field("policy_1", pa.string(), nullable=False),
    ]
)
"""Pairs that nobody has judged yet: the first columns of `PAIRS`."""

PAIRS = pa.schema(
    [
        *DRAFTS,
        pa.field("votes", pa.list_(pa.int8()), nullable=False),
        pa.field("target", pa.float32(), nullable=False),
        pa.field("held_out", pa.bool_(), nullable=False),
        *(
            pa.field(f"{tag}_{position}", pa.bool_())
            for tag in ("false_refusal", "templated", "violates_character")
            for position in (0, 1)
        ),
        pa.field("workflow", pa.string()),
        pa.field("adjudicated", pa.bool_()),
    ]
)
"""Annotated pairs. A vote is 1 where the annotator preferred `response_0`, 0 where the other and
`TIE_VOTE` where neither; `target` is the mean of `vote_value`, or the adjudicator's own choice
where `adjudicated`. `workflow` is how the label came about: static, interactive, steerability."""

TIE_VOTE = -1


def vote_value(vote: int) -> float:
    """What a vote says for `response_0`: 1, 0, or one half for a tie (paper_notes, Equations)."""
    return 0.5 if vote == TIE_VOTE else float(vote)


REVIEWS = pa.schema(
    [
        pa.field("task_id", pa.string(), nullable=False),
        pa.field("annotator_id", pa.string(), nullable=False),
        pa.field("workflow", pa.string(), nullable=False),
        pa.field("question_set", pa.string(), nullable=False),
        pa.field("left_response", pa.int8(), nullable=False),
        pa.field("vote", pa.int8()),
        pa.field(
            "answers",
            pa.list_(
                pa.struct([("question", pa.string()), ("response", pa.int8()), ("yes", pa.bool_())])
            ),
            nullable=False,
        ),
        pa.field("rewrite", pa.string()),
        pa.field("adjudicates", pa.bool_(), nullable=False),
        pa.field("submitted_at", pa.string()),
        pa.field("duration_s", pa.float64()),
    ]
)
"""Labels as they came in: one annotator on one task. `left_response` is the response that was
shown on the left (or first), 0 or 1; `vote` speaks of the pair's own order, as in `PAIRS`. Rows
are in the order of submission."""

REWRITES = pa.schema(
    [
        pa.field("messages", MESSAGES, nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("rejected", pa.string(), nullable=False),
        pa.field("annotator_id", pa.string(), nullable=False),
        pa.field("held_out", pa.bool_(), nullable=False),
    ]
)
"""Responses that annotators wrote because both of a pair's failed, with one that failed."""

TRAINING_ROWS = pa.schema(
    [
        pa.field("messages", MESSAGES, nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ]
)
"""Supervised rows: the response is what the model learns to say."""


def write_table(path: Path, rows: Sequence[object], schema: pa.Schema) -> int:
    """Write mappings as Parquet with exactly `schema`; returns the number of rows."""
    table = pa.Table.from_pylist(list(rows), schema=schema)
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise InputDataError(
                f"{path.name}: column {field.name!r} has "
                f"{table.column(field.name).null_count} empty values, but must always be filled"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")
    return int(table.num_rows)


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Read Parquet; with `schema`, say which columns are missing or of another type."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputDataError(
            f"{path}: not a readable Parquet file ({error}); write it anew with `flywheel ingest`"
        ) from error
    if schema is None:
        return table
    faults = missing_columns(table.schema, schema)
    if faults:
        raise InputDataError(f"{path}: not the expected table: {'; '.join(faults)}")
    return table.select(schema.names)


def missing_columns(found: pa.Schema, expected: pa.Schema) -> list[str]:
    """One phrase for each column of `expected` that is not there, or is of another type."""
    return [
        f"{field.name}: expected {field.type}, found "
        + (str(found.field(field.name).type) if field.name in found.names else "none")
        for field in expected
        if field.name not in found.names or found.field(field.name).type != field.type
    ]
