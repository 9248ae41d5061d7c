"""Blocking calls of the triggerer, on threads of their own.

Ray's client has no timeout: a call to a head that hangs keeps its thread. asyncio's own pool has a
handful, shared by every trigger, and one broken network would use them up.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

CALL_TIMEOUT_S = 60.0
MAX_THREADS = 256

Answer = TypeVar("Answer")

_THREADS = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="flywheel-call")


async def in_thread(call: Callable[..., Answer], *arguments: Any) -> Answer:
    """The call's answer; `TimeoutError` after a minute, whatever becomes of the call."""
    running = asyncio.get_running_loop().run_in_executor(_THREADS, partial(call, *arguments))
    return await asyncio.wait_for(running, CALL_TIMEOUT_S)
