"""Who runs the shards of a mapping: this process, or a Ray cluster through Ray Data.

The stages' pure functions do not know which. Both make the same files, byte by byte.
"""

from typing import Protocol

from flywheel_core.engines.base import Progress
from flywheel_core.engines.config import ExecutorConfig
from flywheel_core.engines.mapping import MapJob, MapResult, attempt_shard, begin


class Executor(Protocol):
    """Maps a function over Parquet files."""

    def run(self, job: MapJob, progress: Progress) -> MapResult:
        """Make every shard that is not there yet. A shard that fails ends the run with its error;
        those that are done stay done, so the same call goes on from there."""


class InProcessExecutor:
    """One shard after the other, in this process."""

    def run(self, job: MapJob, progress: Progress) -> MapResult:
        """As the protocol says."""
        begun = begin(job)
        total = sum(shard.num_rows for shard in begun.shards)
        done = total - sum(shard.num_rows for shard in begun.missing)
        progress(done, total, f"rows of {job.name}")
        for shard in begun.missing:
            failure = attempt_shard(job, shard)
            if failure:
                raise failure.error()
            done += shard.num_rows
            progress(done, total, f"rows of {job.name}")
        return begun.result()


def make_executor(config: ExecutorConfig) -> Executor:
    """The executor a recipe's `execution.executor` asks for."""
    if config.kind == "in_process":
        return InProcessExecutor()
    from flywheel_core.engines.ray_executor import RayDataExecutor

    return RayDataExecutor(config)
