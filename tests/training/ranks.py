"""Training functions for two ranks that die or fail on purpose. They import nothing heavy."""

import os
from pathlib import Path
from typing import Any


def die_once(arguments: dict[str, Any]) -> None:
    """Rank 1 is killed in the first try; the second one writes `done`."""
    import torch

    folder = Path(arguments["folder"])
    tries = folder / f"try-{len(list(folder.glob('try-*')))}"
    if torch.distributed.get_rank() == 1 and not list(folder.glob("try-*")):
        tries.touch()
        os._exit(9)
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        (folder / "done").touch()


def fail(arguments: dict[str, Any]) -> None:
    """Rank 1 finds its data wrong; rank 0 waits for it in vain."""
    import torch

    from flywheel_core.errors import InputDataError

    folder = Path(arguments["folder"])
    if torch.distributed.get_rank() == 1:
        (folder / f"failed-{len(list(folder.glob('failed-*')))}").touch()
        raise InputDataError("pairs.parquet: no rows to train on; look at the stage that made it")
    torch.distributed.barrier()


def say_where_it_listens(arguments: dict[str, Any]) -> None:
    """Each rank writes the addresses of its listening sockets, once all have met."""
    import json

    import psutil
    import torch

    torch.distributed.barrier()
    listens = [
        connection.laddr.ip
        for connection in psutil.Process().net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    rank = torch.distributed.get_rank()
    (Path(arguments["folder"]) / f"rank-{rank}.json").write_text(json.dumps(listens))
    torch.distributed.barrier()
