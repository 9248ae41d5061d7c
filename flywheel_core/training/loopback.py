"""torch's rendezvous on the loopback address, where one machine talks to itself.

The store that ranks meet at listens on every interface: torch 2.13 has no setting for its address
(`MASTER_ADDR` is only where the others look for it). It does take a socket that listens already,
so we hand it one that is bound to `MASTER_ADDR`.
"""

import socket
from datetime import timedelta
from functools import cache
from importlib import import_module
from typing import Any


def listen_at_master_address() -> None:
    """In a rank, before it joins its group: its store listens at `MASTER_ADDR` alone."""
    from torch.distributed import TCPStore

    def create(
        hostname: str,
        port: int,
        rank: int,
        world_size: int,
        timeout: timedelta,
        use_libuv: bool = True,
    ) -> Any:
        return TCPStore(
            host_name=hostname,
            port=port,
            world_size=world_size,
            is_master=rank == 0,
            timeout=timeout,
            multi_tenant=True,
            master_listen_fd=_listen(hostname, port) if rank == 0 else None,
            use_libuv=use_libuv,
        )

    # Not `torch.distributed.rendezvous`: there the name is the function of that module.
    vars(import_module("torch.distributed.rendezvous"))["_create_c10d_store"] = create


@cache
def _listen(hostname: str, port: int) -> int:
    """A listening socket's descriptor, torch's from then on. One an address: a rank's later
    groups meet at the same store."""
    with socket.create_server((hostname, port)) as server:
        return server.detach()


def loopback_torch_config(backend: str) -> Any:
    """Ray Train's `TorchConfig` whose ranks meet on the loopback address."""
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _TorchBackend

    class Backend(_TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(listen_at_master_address)
            super().on_start(worker_group, backend_config)

    class LoopbackTorchConfig(TorchConfig):
        @property
        def backend_cls(self) -> type[Backend]:
            return Backend

    return LoopbackTorchConfig(backend=backend)
