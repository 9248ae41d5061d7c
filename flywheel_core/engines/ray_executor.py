"""Mappings on a Ray cluster, through Ray Data: the same on one machine and on many.

What flows through Ray Data are descriptions of shards, not rows: each task opens its part of an
input file, streams it through the function and writes its own outputs. So the object store holds a
few kilobytes whatever the number of rows, nothing spills, and no row is serialised twice. Ray Data
schedules, spreads and streams the tasks, and starts those of a lost node again elsewhere; a shard
that the lost node had half-written never got its mark (see `mapping`).
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

from flywheel_core.engines.base import Progress
from flywheel_core.engines.config import ExecutorConfig
from flywheel_core.engines.environment import OFFLINE
from flywheel_core.engines.mapping import Begun, Failure, MapJob, MapResult, attempt_shard, begin

GIB = 1 << 30
LOST_TASK_RETRIES = 10
"""How often a shard whose node or worker is lost is started again; not for ever, for it may itself
be what kills them."""


class RayDataExecutor:
    """Up to `num_workers` shards at a time, each on one CPU of the cluster."""

    def __init__(self, config: ExecutorConfig) -> None:
        self.config = config

    def run(self, job: MapJob, progress: Progress) -> MapResult:
        """As the protocol says. Joins the cluster of this job, or starts one on this machine."""
        begun = begin(job)
        total = sum(shard.num_rows for shard in begun.shards)
        done = total - sum(shard.num_rows for shard in begun.missing)
        progress(done, total, f"rows of {job.name}")
        if begun.missing:
            join_cluster(self.config)
            rows_of = {shard.number: shard.num_rows for shard in begun.missing}
            for receipt in self._receipts(begun):
                if receipt["kind"]:
                    raise Failure(receipt["kind"], receipt["said"]).error()
                done += rows_of[receipt["number"]]
                progress(done, total, f"rows of {job.name}")
        return begun.result()

    def _receipts(self, begun: Begun) -> Iterator[dict[str, Any]]:
        """One record a shard, as they come: its number, and how it failed if it did."""
        import ray.data
        from ray.data import DataContext, TaskPoolStrategy

        context = DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
            object_store_memory=self.config.object_store_gib * GIB
        )
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        with DataContext.current(context):
            shards = ray.data.from_items(
                [{"shard": index} for index in range(len(begun.missing))],
                override_num_blocks=len(begun.missing),
            )
            receipts = shards.map(
                _make_one,
                fn_kwargs={"begun": begun},
                num_cpus=1,
                compute=TaskPoolStrategy(size=self.config.num_workers),
                ray_remote_args_fn=_task_arguments,
            )
            yield from receipts.iter_rows()


def _task_arguments() -> dict[str, Any]:
    return {"max_retries": LOST_TASK_RETRIES}


def _make_one(row: dict[str, Any], begun: Begun) -> dict[str, Any]:
    """What a Ray task does: one shard of the job."""
    shard = begun.missing[row["shard"]]
    failure = attempt_shard(begun.job, shard)
    return {
        "number": shard.number,
        "kind": failure.kind if failure else "",
        "said": failure.said if failure else "",
    }


def join_cluster(config: ExecutorConfig) -> None:
    """Join the cluster this job runs on, or start one on this machine, on the loopback address,
    with an object store of at most `object_store_gib`."""
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)
    if "RAY_ADDRESS" not in os.environ and "ray" not in sys.modules:
        # Read when ray is imported: without it Ray replaces 127.0.0.1 by the outward address.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
        return
    ray.init(
        address="local",  # never another Ray that happens to run on this machine
        num_cpus=config.num_workers,
        object_store_memory=int(config.object_store_gib * GIB),
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
