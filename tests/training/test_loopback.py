"""Ranks on one machine listen on the loopback address alone."""

import json
import socket
import subprocess
import sys

import pytest

RANK = """
import json, sys
import psutil, torch.distributed as dist
from flywheel_core.training.loopback import listen_at_master_address
if sys.argv[1] == "loopback":
    listen_at_master_address()
dist.init_process_group("gloo", init_method="env://")
second = dist.new_group()
listens = [
    connection.laddr.ip
    for connection in psutil.Process().net_connections("inet")
    if connection.status == psutil.CONN_LISTEN
]
dist.barrier()
dist.barrier(second)
print(json.dumps(listens))
dist.destroy_process_group()
"""


def listening(how: str) -> set[str]:
    """The addresses at which two ranks that have met listen."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, how],
            env={**common, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    return {address for output in outputs for address in json.loads(output)}


@pytest.mark.timeout(240)
def test_ranks_listen_on_loopback_only_because_we_say_so() -> None:
    assert listening("loopback") == {"127.0.0.1"}
    assert listening("as torch does") - {"127.0.0.1"}
