"""Synthetic traffic of any size: seeded, made column by column, never whole in memory.

Conversations look like a social-chat product's: a system turn, then one to nine user turns of a few
to forty words; characters and users with long tails; four languages; two surfaces. Two rows in a
hundred hold something that the privacy rules look for, and as many something that only looks like
it. A file holds `FILE_ROWS` rows, in row groups as `flywheel ingest` writes them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.records import MESSAGES, SIGNALS, TRAFFIC

FILE_ROWS = 50_000
ROW_GROUP_ROWS = 1_000
NUM_SENTENCES = 30_000
NUM_CHARACTERS = 2_000
STAR_SHARE, FIRST_TURN_SHARE = 0.10, 0.06
"""One character has more, and first turns fewer, than Table 1 allows: the solver has work to do."""
SYLLABLES = ("ba", "ke", "lo", "mi", "nu", "ra", "se", "ti", "vo", "da", "pe", "go", "shi", "an")
COMMON = (
    "i you the to a and it is that of in me my for not what so do are have like just on was but we "
    "if can know be with this about good time day think really love work friend"
)
PRIVATE = (
    "mail me at ana.lopez@example.com",
    "call +34 612 345 678 tonight",
    "my card is 4111 1111 1111 1111",
    "the server is 203.0.113.77",
    "ssn 123-45-6789 there you go",
)
LOOKALIKES = (
    "order 4111 1111 1111 1112 shipped",
    "version 10.2.300.4 is out",
    "in 1998 2004 2012 and 2016",
    "meet @ the park at 10:30",
    "it costs 1,234,567 or so",
)


def write_conversations(folder: Path, count: int, seed: int = 0) -> tuple[Path, ...]:
    """`count` rows as Parquet files; the first rows of a larger set are those of a smaller one."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = pa.array(sentences(np.random.default_rng(seed)))
    paths = []
    for number, first in enumerate(range(0, count, FILE_ROWS)):
        path = folder / f"{number:04d}.parquet"
        rng = np.random.default_rng([seed, number])
        table = _table(pool, FILE_ROWS, first, rng).slice(0, count - first)
        pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        paths.append(path)
    return tuple(paths)


def sentences(rng: np.random.Generator) -> list[str]:
    """Sentences of Zipf-like words; the last 1 in 500 are private, and as many look like it."""
    words = [
        *COMMON.split(),
        *("".join(rng.choice(SYLLABLES, rng.integers(2, 5))) for _ in range(6_000)),
    ]
    weights = 1.0 / np.arange(1, len(words) + 1)
    drawn = rng.choice(len(words), (NUM_SENTENCES, 40), p=weights / weights.sum())
    lengths = rng.integers(3, 41, NUM_SENTENCES)
    plain = [
        " ".join(words[word] for word in row[:length]).capitalize() + "."
        for row, length in zip(drawn, lengths, strict=True)
    ]
    for kind, texts in enumerate((PRIVATE, LOOKALIKES)):
        for number in range(NUM_SENTENCES // 500):
            plain[-1 - 2 * number - kind] += " " + texts[number % len(texts)]
    return plain


def _table(pool: pa.Array, count: int, first: int, rng: np.random.Generator) -> pa.Table:
    greeted = rng.random(count) < FIRST_TURN_SHARE
    depth = np.where(greeted, 0, np.minimum(rng.geometric(0.45, count), 8))
    characters = _long_tail(rng, NUM_CHARACTERS, count)
    characters[rng.random(count) < STAR_SHARE] = 0
    users = rng.integers(0, 400_000, count)
    surface = np.where(rng.random(count) < 0.8, "user", "internal")
    columns: dict[str, pa.Array] = {
        "row_id": pa.array([f"r{first + n}" for n in range(count)]),
        "day": pa.array(["2026-01-05"] * count),
        "messages": _messages(pool, depth, rng),
        "surface": pa.array(surface),
        "conversation_id": pa.array([f"c{first + n}" for n in range(count)]),
        "turn_index": pa.array(2 * depth + 1, pa.int32()),
        "user_id": pa.array([f"u{n}" for n in users]),
        "character_id": pa.array([f"k{n}" for n in characters]),
        "locale": pa.nulls(count, pa.string()),
        "language": pa.array(rng.choice(("en", "es", "hi", "pt"), count, p=(0.6, 0.2, 0.15, 0.05))),
        "jtbd": pa.array(rng.choice(("chat", "advice", "info", "roleplay", "create"), count)),
        "depth": pa.array(depth, pa.int32()),
        "response": pool.take(pa.array(rng.integers(0, NUM_SENTENCES, count))),
        "model_digest": pa.array(np.where(rng.random(count) < 0.9, "now", "before")),
    }
    columns |= {signal: pa.array(rng.random(count) < 0.2) for signal in SIGNALS}
    return pa.table([columns[name] for name in TRAFFIC.names], schema=TRAFFIC)


def _long_tail(rng: np.random.Generator, size: int, count: int) -> npt.NDArray[np.int64]:
    weights = 1.0 / np.arange(5, size + 5) ** 0.8
    return np.asarray(rng.choice(size, count, p=weights / weights.sum()), dtype=np.int64)


def _messages(pool: pa.Array, depth: npt.NDArray[np.int64], rng: np.random.Generator) -> pa.Array:
    """A system turn, then user and assistant in turn, `depth` + 1 user turns in all."""
    num_turns = 2 * depth + 2
    offsets = np.concatenate([[0], np.cumsum(num_turns)])
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], num_turns)
    roles = _named(("system", "user", "assistant"), np.where(position == 0, 0, 2 - position % 2))
    contents = pool.take(pa.array(rng.integers(0, NUM_SENTENCES, offsets[-1])))
    turns = pa.StructArray.from_arrays([roles, contents], fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), turns).cast(MESSAGES)


def _named(names: Sequence[str], numbers: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(list(names)).take(pa.array(numbers))
