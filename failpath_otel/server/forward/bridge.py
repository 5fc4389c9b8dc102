"""Bridge: what comes in goes on to another server, and into the store before that where there is one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from failpath_otel.events.step import StepEvent
from failpath_otel.server.api.intake import IntakeCounts
from failpath_otel.server.forward.forwarder import Forward
from failpath_otel.server.sink import Counts, EventSink, Kind, Receipt


class Bridge:
    """Acknowledged is what is stored, where something is stored at all, and taken upstream. An `EventSink`."""

    def __init__(self, forward: Forward, store: EventSink | None, clock: Callable[[], int] = time.time_ns) -> None:
        """``store`` is what stores events; ``None`` keeps nothing here."""
        self._forward = forward
        self._store = store
        self._counts = Counts(clock)

    def start(self) -> None:
        """Begins to take events; call it within the running event loop."""
        if self._store is not None:
            self._store.start()
        self._forward.start()

    async def submit(self, events: Sequence[StepEvent]) -> Receipt:
        """Stores events, so that they are seen here at once, and returns when upstream has them as well.

        Duplicates go on too: they may be known here because an earlier try got no further than this.

        Raises:
            IntakeError: Not now. What was stored already is a duplicate when it comes again.
        """
        if self._store is None:
            receipt = await self._forward.submit(events)
            self._counts.settle(receipt)
            return receipt
        stored = await self._store.submit(events)
        passed = await self._forward.submit([event for event in events if event.event_id not in stored.rejected])
        return _joined(stored, passed)

    def count(self, kind: Kind, n: int = 1) -> None:
        """Counts items that came in and are no events."""
        (self._store or self._counts).count(kind, n)

    def intake(self) -> IntakeCounts:
        """What came in since the start, and how it goes on."""
        state = self._forward.state()
        return self._counts.row(state) if self._store is None else replace(self._store.intake(), forward=state)

    async def close(self) -> None:
        """Takes nothing more, and finishes what was taken as far as the bounds of time allow."""
        await asyncio.gather(self._forward.close(), *(() if self._store is None else (self._store.close(),)))


def _joined(stored: Receipt, passed: Receipt) -> Receipt:
    """One answer for both. An event that upstream refused is rejected, whatever the store says of it, and counted once."""
    refused = len(passed.rejected)
    known = max(0, refused - stored.accepted)
    return Receipt(stored.accepted - (refused - known), stored.duplicates - known, {**passed.rejected, **stored.rejected})
