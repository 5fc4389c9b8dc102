"""A blocking call beside an event loop, in a thread that nobody else keeps busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def run_in_own_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What ``call`` returns. Unlike `asyncio.to_thread` it starts at once, also where the loop's own threads are all taken.

    Those are the service's: at the end of one that hangs they may be taken for good, and a wait for one has no bound.
    """
    threads = ThreadPoolExecutor(1, thread_name_prefix="failpath-flush")
    try:
        return await asyncio.wrap_future(threads.submit(partial(copy_context().run, call, *args, **kwargs)))
    finally:
        threads.shutdown(wait=False)
