"""What the Ray tests run in a process of their own, because a process joins one Ray only.

`python -m tests.engines.ray_cluster one_machine|lost_node FOLDER` prints one line of JSON.
"""

import json
import os
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from flywheel_core.engines.config import ExecutorConfig
from flywheel_core.engines.ray_executor import RayDataExecutor, join_cluster
from flywheel_core.errors import MapFailed
from flywheel_core.folders import write_whole
from tests.engines.executor_samples import (
    failing_at_250,
    killing_itself_once,
    make_job,
    slowly_on_a_node,
    write_rows,
)

CONFIG = ExecutorConfig(kind="ray_data", num_workers=2, object_store_gib=0.125)


def quiet(done: int, total: int, what: str = "") -> None:
    pass


def one_machine(folder: Path) -> dict[str, Any]:
    """The same job as in process; one that fails; one whose worker is killed in the middle."""
    inputs = tuple(sorted((folder / "in").iterdir()))
    executor = RayDataExecutor(CONFIG)
    executor.run(make_job(folder / "ray", inputs), quiet)
    try:
        executor.run(make_job(folder / "failing", inputs, function=failing_at_250), quiet)
    except MapFailed as error:
        said = str(error)
    resumed = executor.run(make_job(folder / "failing", inputs), quiet)
    dying = partial(killing_itself_once, marker=folder / "killed")
    executor.run(make_job(folder / "killed-worker", inputs, function=dying), quiet)
    return {"said": said, "num_resumed": resumed.num_resumed, "listening": _outward_listeners()}


def lost_node(folder: Path) -> dict[str, Any]:
    """Two nodes map; one is killed, without a goodbye, while it is inside a shard."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else 127.0.0.1 becomes the outward one
    import ray

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}
    cluster = _start_cluster(node)
    doomed = cluster.add_node(**node)
    os.environ["RAY_ADDRESS"] = cluster.address
    inputs = (write_rows(folder / "in.parquet", 0, 1200),)
    join_cluster(CONFIG)
    log = folder / "log"
    killed = threading.Event()

    def kill_inside_a_second_shard() -> None:
        while not killed.is_set():
            started = len(list(log.glob(f"*-{doomed.node_id}-started")))
            if 0 < len(list(log.glob(f"*-{doomed.node_id}-ended"))) < started:
                write_whole(folder / "dying", doomed.node_id.encode())
                cluster.remove_node(doomed, allow_graceful=False)
                killed.set()
            time.sleep(0.02)

    threading.Thread(target=kill_inside_a_second_shard, daemon=True).start()
    job = make_job(folder / "ray", inputs, function=partial(slowly_on_a_node, log=log))
    result = RayDataExecutor(CONFIG).run(job, quiet)
    listening = _outward_listeners()
    ray.shutdown()
    cluster.shutdown()
    attempts = [path.name.split("-") for path in log.iterdir()]
    started, ended = (
        {shard for shard, node_id, said in attempts if (node_id, said) == (doomed.node_id, state)}
        for state in ("started", "ended")
    )
    return {
        "killed": killed.is_set(),
        "rows": result.rows,
        "counts": result.counts,
        "cut_off": sorted(started - ended),
        "done_on_lost_node": len(ended),
        "nodes": len({node_id for _, node_id, _ in attempts}),
        "listening": listening,
    }


def _start_cluster(node: dict[str, Any], tries: int = 3) -> Any:
    """A head node. Ray gives one 30 s to start, which a busy machine may not keep."""
    import ray._private.utils
    from ray.cluster_utils import Cluster

    # Else every `ray.init()` on this machine would find this cluster and join it.
    ray._private.utils.write_ray_address = lambda *_, **__: None

    head = {**node, "include_dashboard": False, "dashboard_port": _free_port()}
    for last in (False,) * (tries - 1) + (True,):
        try:
            return Cluster(initialize_head=True, head_node_args=head)
        except Exception as error:  # Ray raises a bare Exception here
            if last or "timed out during startup" not in str(error):
                raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _outward_listeners() -> list[str]:
    """Addresses other than this machine's own that any process of this Ray listens on."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sorted(
        f"{process.name()} {connection.laddr.ip}:{connection.laddr.port}"
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    )


if __name__ == "__main__":
    scenario = {"one_machine": one_machine, "lost_node": lost_node}[sys.argv[1]]
    print(json.dumps(scenario(Path(sys.argv[2]))))
