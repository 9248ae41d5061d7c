"""Phase I's second step: a guard model judges what the rules kept (§2.6, fail-closed).

Rules map over the files wherever there is a CPU; a guard runs on the stage's own engine, so its
step is a mapping in this process, over the rows that the rules kept, in shards with marks like
the first: a retry goes on from the first missing one. The rules stand before it because they are
cheap, and because what they found would reach another model otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import pyarrow as pa

from flywheel_core.curation.columns import KEPT_TABLES, kept_tables
from flywheel_core.curation.config import SafetyConfig
from flywheel_core.curation.filters import Filtered, take_or_reject
from flywheel_core.curation.llama_guard import LlamaGuard
from flywheel_core.curation.safety import ConversationClassifier, judge_rows
from flywheel_core.engines.base import Generator, Progress
from flywheel_core.engines.executor import InProcessExecutor
from flywheel_core.engines.mapping import MapJob, Mapped, MapResult
from flywheel_core.errors import EngineError
from flywheel_core.records import TRAFFIC

GUARD_VERSION = 1
"""Part of what a half-done step is recognised by: raise it when prompt or parsing change."""
BROKEN_ROWS = 100
"""So many rows of a batch and not one verdict: the guard is broken, not the rows. Ours."""


@dataclass(frozen=True)
class Guard:
    """A classifier that `open` starts when first asked for, and the identity of its weights.

    `close` gives the engine's memory back once the step is done.
    """

    open: Callable[[], ConversationClassifier]
    version: str
    config: SafetyConfig
    close: Callable[[], None] = lambda: None


def llama_guard(
    config: SafetyConfig,
    version: str,
    folder: Path,
    generator: Callable[[Path], Generator],
    close: Callable[[], None] = lambda: None,
) -> Guard:
    """A Llama-Guard-style model behind an engine that `generator` starts."""

    @cache
    def opened() -> ConversationClassifier:
        return LlamaGuard(generator(folder), folder)

    return Guard(opened, version, config, close)


def guarded(
    kept: MapResult, guard: Guard, work: Path, batch_rows: int, progress: Progress
) -> MapResult:
    """What the guard lets through of what the rules kept; counts are those of both steps."""
    job = MapJob(
        name="phase I, guard",
        function=partial(judge_batch, guard=guard),
        config={
            "version": GUARD_VERSION,
            "guard": guard.version,
            "safety": guard.config.model_dump(mode="json", exclude={"model"}),
        },
        inputs=kept.files["kept"],
        columns=TRAFFIC,
        outputs=KEPT_TABLES,
        folder=work / "guard",
        shard_rows=1,  # a row group a shard: a guard takes minutes for what rules do in a second
        batch_rows=batch_rows,
    )
    result = InProcessExecutor().run(job, progress)
    guard.close()
    counts = {
        name: kept.counts.get(name, 0) + result.counts.get(name, 0)
        for name in sorted({*kept.counts, *result.counts})
    }
    return replace(result, rows_in=kept.rows_in, counts=counts)


def judge_batch(batch: pa.Table, guard: Guard) -> Mapped:
    """The rows with a verdict of safe, and counts of the others.

    `EngineError` where a whole batch comes back without one verdict: to go on would reject all
    the traffic because of an engine that died, or a model that is no guard.
    """
    table = batch.cast(TRAFFIC)
    rows = table.select(["messages", "response"]).to_pylist()
    classifier = guard.open()
    outcomes = judge_rows(rows, classifier, guard.config.timeout_s, guard.config.batch_rows)
    filtered = Filtered()
    for index, outcome in enumerate(outcomes):
        take_or_reject(index, outcome, filtered)
    failed = filtered.rejected["safety_classifier_failed"]
    if failed == len(rows) and failed >= BROKEN_ROWS:
        causes = ", ".join(f"{name} {n}" for name, n in sorted(filtered.safety_failures.items()))
        raise EngineError(
            f"curation.safety: the guard gave no verdict on any of {failed} rows ({causes}); see "
            "that its engine is up, that timeout_s is enough, and that the model answers as a "
            "guard; the same again goes on from here"
        )
    kept = table.take(pa.array(filtered.kept, pa.int64()))
    messages: Sequence[list[dict[str, str]]] = [rows[index]["messages"] for index in filtered.kept]
    counts = {name: n for name, n in filtered.counts().items() if n}
    return Mapped(kept_tables(kept, messages), counts)
