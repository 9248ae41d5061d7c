"""Work that one rank does for all."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from flywheel_core.errors import TrainingError

Result = TypeVar("Result")


def num_processes() -> int:
    """Ranks in the process group; 1 where there is none."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def on_main(request: Callable[[], Result]) -> Result:
    """Run `request` on rank 0 and give every rank its (picklable) result, or its error.

    Collective. An error raised on rank 0 alone would leave the others waiting for ever.
    """
    if num_processes() == 1:
        return request()
    answer: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            answer[0] = request()
        except Exception as error:
            answer[1] = f"{type(error).__name__}: {error}"
    torch.distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise TrainingError(f"rank 0 failed: {answer[1]}")
    result: Result = answer[0]
    return result
