"""A Ray head on 127.0.0.1 that ends with the process that started it."""

import shutil
import sys
from pathlib import Path

from flywheel_core.errors import StackError
from flywheel_core.stack.processes import HOST, choose_port

OBJECT_STORE_BYTES = 512 * 1024 * 1024


def command(*, dashboard_port: int, num_cpus: int, temporary: Path) -> list[str]:
    """`ray start --head --block`, every port chosen free, so that several heads can live here."""
    executable = shutil.which("ray", path=str(Path(sys.executable).parent)) or shutil.which("ray")
    if executable is None:
        raise StackError("ray is not installed beside this Python; run `make env`")

    def free(what: str) -> str:
        return str(choose_port(None, (), what))

    return [
        executable,
        "start",
        "--head",
        "--block",
        f"--node-ip-address={HOST}",
        f"--port={free('Ray GCS')}",
        f"--dashboard-host={HOST}",
        f"--dashboard-port={dashboard_port}",
        f"--ray-client-server-port={free('Ray client')}",
        f"--dashboard-agent-listen-port={free('Ray agent')}",
        f"--dashboard-agent-grpc-port={free('Ray agent gRPC')}",
        f"--runtime-env-agent-port={free('Ray runtime environment')}",
        f"--metrics-export-port={free('Ray metrics')}",
        f"--num-cpus={num_cpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={temporary}",
        "--include-log-monitor=true",
        "--disable-usage-stats",
    ]
