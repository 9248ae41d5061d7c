"""A sharded generation: deterministic lines, a shard a second, a retry at the first missing one."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

from chaos_events import note

from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.sections import Section

LINES_PER_SHARD = 50


class Config(Section):
    num_shards: int
    shard_s: float


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `lines.txt`, shard by shard."""
    stage, key = context.stage.name, context.stage.ref.key
    note("started", stage=stage, key=key)
    shards = [context.work / f"{number:04d}.txt" for number in range(config.num_shards)]
    for number, shard in enumerate(shards):
        if not shard.exists():
            note("begun", stage=stage, key=key, number=number)
            _make_shard(shard, number, context.seed, config.shard_s)
            note("done", stage=stage, key=key, number=number)
        context.progress(number + 1, config.num_shards, "shards")
    (context.output / "lines.txt").write_text("".join(shard.read_text() for shard in shards))
    note("output", stage=stage, key=key)
    return StageOutput("chaos_lines", {"lines": config.num_shards * LINES_PER_SHARD})


def _make_shard(shard: Path, number: int, seed: int, shard_s: float) -> None:
    """The name is the completion mark: a file gets it whole."""
    unfinished = shard.with_suffix(".part")
    with unfinished.open("w") as file:
        for line in range(LINES_PER_SHARD):
            digest = hashlib.sha256(f"{seed}/{number}/{line}".encode()).hexdigest()
            file.write(f"{number} {line} {digest}\n")
            file.flush()
            time.sleep(shard_s / LINES_PER_SHARD)
    unfinished.rename(shard)


if __name__ == "__main__":
    main("chaos_generate")
