"""When the server stops, and how what waits on others learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from failpath_otel.server.http.problem import Problem

_T = TypeVar("_T")


class Lifetime:
    """One server's life. Streams and half-sent requests would hold up its end, so they wait on this beside their own matter."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self._waiting: set[asyncio.Task[Any]] = set()
        self._at_close: list[Callable[[], None]] = []

    def at_close(self, function: Callable[[], None]) -> None:
        """Has ``function`` called when the end begins."""
        self._at_close.append(function)

    def close(self) -> None:
        """Ends the streams and what waits for senders. Called in the event loop."""
        if not self.closing.is_set():
            self.closing.set()
            for function in self._at_close:
                function()
        for task in self._waiting:
            task.cancel()

    async def until_closing(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What ``work`` gives.

        Raises:
            Problem: 503, the server stopped before it was done.
        """
        task = asyncio.ensure_future(work)
        if self.closing.is_set():
            task.cancel()
        self._waiting.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if not self.closing.is_set():
                task.cancel()
                raise
            raise Problem.busy("The server is stopping. Send this again later.", 1.0) from None
        finally:
            self._waiting.discard(task)
