"""A blocking call beside an event loop, in a thread that nobody else keeps busy."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


async def run_in_own_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What ``call`` returns. Unlike `asyncio.to_thread` it starts at once, also where the loop's own threads are all taken.

    Those are the service's: at the end of one that hangs they may be taken for good, and a wait for one has no bound. Nor does
    the thread hold up the exit of the process where this is cancelled. Under trio it is one of trio's.
    """
    made = partial(copy_context().run, partial(call, *args, **kwargs))
    if asyncio._get_running_loop() is None:  # noqa: SLF001 - get_running_loop() raises where there is none
        return await _beside_trio(made)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[R] = loop.create_future()

    def settle(set_result: Callable[[Any], None], result: object) -> None:
        if not done.done():
            set_result(result)

    def work() -> None:
        try:
            settled = partial(settle, done.set_result, made())
        except BaseException as error:
            settled = partial(settle, done.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settled)

    try:
        threading.Thread(target=work, name="failpath-flush", daemon=True).start()
    except RuntimeError:  # no thread can be started any more, as at the interpreter's exit
        return made()
    return await done


async def _beside_trio(call: Callable[[], R]) -> R:
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return call()
    try:
        trio.lowlevel.current_task()
    except RuntimeError:  # another library's loop, which this knows no way beside
        return call()
    return cast("R", await trio.to_thread.run_sync(call, abandon_on_cancel=True))
