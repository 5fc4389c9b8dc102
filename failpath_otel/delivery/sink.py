"""Sink: where steps and processors put their events."""

from __future__ import annotations

from typing import Protocol

from failpath_otel.delivery.counts import FlushResult, Stats
from failpath_otel.errors import DeliveryError
from failpath_otel.events.step import StepEvent


class Sink(Protocol):
    """Takes events. No method raises, however delivery fares."""

    def record(self, event: StepEvent) -> None:
        """Takes an event and returns at once."""
        ...

    def record_and_wait(self, event: StepEvent, timeout_millis: int) -> DeliveryError | None:
        """Takes an event and waits until it is sent; what kept it from being sent is returned, not raised."""
        ...

    async def record_and_wait_async(self, event: StepEvent, timeout_millis: int) -> DeliveryError | None:
        """Like `record_and_wait`, on an asyncio loop, which goes on meanwhile."""
        ...

    def holds(self, event: StepEvent) -> bool:
        """Whether this very event was recorded and is not sent yet."""
        ...

    def flush(self, timeout_millis: int) -> FlushResult:
        """Waits until all that was recorded before is sent or dropped, or the time is over."""
        ...

    def take_error(self) -> DeliveryError | None:
        """The failure since the last call, if there was one."""
        ...

    def stats(self) -> Stats:
        """The counts of this moment."""
        ...

    def shutdown(self, timeout_millis: int) -> None:
        """Sends what is left, within the time; what comes later is counted as dropped."""
        ...

    @property
    def closed(self) -> bool:
        """True from ``shutdown`` on."""
        ...
