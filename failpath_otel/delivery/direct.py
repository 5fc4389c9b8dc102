"""DirectSink: hands each event on in the calling thread, for tests."""

from __future__ import annotations

from collections.abc import Callable

from failpath_otel.delivery.counts import FlushResult, Stats
from failpath_otel.delivery.masking import Mask, masked
from failpath_otel.errors import DeliveryError
from failpath_otel.events.step import StepEvent
from failpath_otel.interruption import SteadyLock


class DirectSink:
    """A `Sink` without a queue or thread: when the step goes on, its event has been handed to ``receive``."""

    def __init__(self, receive: Callable[[StepEvent], object], mask: Mask | None = None) -> None:
        self._receive = receive
        self._mask = mask
        self._lock = SteadyLock()
        self._sent = 0
        self._dropped = 0
        self._mask_failures = 0
        self._closed = False

    @property
    def mask(self) -> Mask | None:
        """What events go through."""
        return self._mask

    @property
    def closed(self) -> bool:
        """True from ``shutdown`` on."""
        return self._closed

    def record(self, event: StepEvent) -> None:
        """Hands the event on, masked."""
        worked = True
        if self._mask is not None:
            event, worked = masked(event, self._mask)
        if self._lock.run(self._count, worked):
            self._receive(event)

    def _count(self, worked: bool) -> bool:
        self._mask_failures += not worked
        if self._closed:
            self._dropped += 1
        else:
            self._sent += 1
        return not self._closed

    def record_and_wait(self, event: StepEvent, timeout_millis: int) -> DeliveryError | None:
        """The same as `record`."""
        self.record(event)
        return None

    async def record_and_wait_async(self, event: StepEvent, timeout_millis: int) -> DeliveryError | None:
        """The same as `record`."""
        self.record(event)
        return None

    def holds(self, event: StepEvent) -> bool:
        """Nothing ever waits."""
        return False

    def flush(self, timeout_millis: int) -> FlushResult:
        """Nothing ever waits."""
        return self.stats()

    def take_error(self) -> DeliveryError | None:
        """Nothing ever fails."""
        return None

    def stats(self) -> Stats:
        """The counts of this moment."""
        return self._lock.run(self._stats)

    def _stats(self) -> Stats:
        dropped = {"shutdown": self._dropped} if self._dropped else {}
        return Stats(sent=self._sent, dropped=dropped, mask_failures=self._mask_failures)

    def shutdown(self, timeout_millis: int) -> None:
        """What comes later is counted as dropped."""
        self._closed = True
