"""Which runs have news, for pages that follow along: numbered, resumable, bounded."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from failpath_otel.server.api.runs import Change
from failpath_otel.server.store.run_cache import RunKey

COALESCE_SECONDS: Final = 0.15
"""How long news are gathered before a subscriber gets them, each run once."""
MAX_REMEMBERED: Final = 2_000
"""Runs with news that are kept for subscribers that come back."""


class Changes:
    """The runs that had news last. `announce` may be called from any thread, all else belongs to the event loop.

    Only what arrives is news: that a quiet window closes or a step gets stuck follows from the clock.
    """

    def __init__(
        self,
        *,
        coalesce_seconds: float = COALESCE_SECONDS,
        max_remembered: int = MAX_REMEMBERED,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Ids begin at the clock's milliseconds, so that they grow across restarts of the server."""
        self._coalesce_seconds = coalesce_seconds
        self._max_remembered = max_remembered
        self._last_id = clock() // 1_000_000
        # Everything up to here may have been forgotten: by the bound, or with an earlier process.
        self._forgotten_to = self._last_id
        self._ids: OrderedDict[RunKey, int] = OrderedDict()
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def last_id(self) -> int:
        """The id of the newest change."""
        return self._last_id

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Says in which loop the subscribers live."""
        self._loop = loop

    def announce(self, runs: Iterable[RunKey]) -> None:
        """Says that these runs have news, which reads see already."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(self.record, list(runs))
        except RuntimeError:
            # The loop was closed just now; nobody follows any more.
            return

    def record(self, runs: Iterable[RunKey]) -> None:
        """As `announce`, within the loop."""
        for run in runs:
            self._last_id += 1
            self._ids[run] = self._last_id
            self._ids.move_to_end(run)
        while len(self._ids) > self._max_remembered:
            _, self._forgotten_to = self._ids.popitem(last=False)
        self._wake()

    def close(self) -> None:
        """Ends every subscription."""
        self._closed = True
        self._wake()

    async def subscribe(self, last_id: int | None = None) -> AsyncIterator[Change]:
        """Changes after ``last_id``, or from now on; each run's latest only, in the order of their ids.

        Where changes after ``last_id`` are not known any more, the first is a `Change` without a run: anything may have
        changed. A caller that does something else meanwhile keeps the pending ``anext`` as a task, because to cancel it ends
        the subscription.
        """
        seen = self._last_id if last_id is None else last_id
        while not self._closed:
            news = self._news
            if seen > self._last_id:
                # An id of another database or clock; its holder cannot know what it missed.
                seen = self._last_id
                yield Change(id=seen, flow=None, run_id=None)
            elif seen < self._forgotten_to:
                seen = self._forgotten_to
                yield Change(id=seen, flow=None, run_id=None)
            for change in self._after(seen):
                seen = change.id
                yield change
            if news is self._news:
                await news.wait()
            if not self._closed:
                await asyncio.sleep(self._coalesce_seconds)

    def _after(self, seen: int) -> list[Change]:
        found: list[Change] = []
        for (flow, run_id), number in reversed(self._ids.items()):
            if number <= seen:
                break
            found.append(Change(id=number, flow=flow, run_id=run_id))
        found.reverse()
        return found

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()
