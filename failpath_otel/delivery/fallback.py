"""The sink of a client that nobody made: it stands in until the service makes one of its own."""

from __future__ import annotations

import weakref
from typing import Any, Final

from failpath_otel.delivery.counts import FlushResult, Stats
from failpath_otel.delivery.sink import Sink
from failpath_otel.errors import DeliveryError
from failpath_otel.events.step import StepEvent

_own: Final[dict[int, weakref.ref[Sink]]] = {}


def prefer(sink: Sink) -> None:
    """From now on, and until it is closed, ``sink`` takes what stand-ins would take."""
    name = id(sink)
    _own[name] = weakref.ref(sink, lambda _: _own.pop(name, None))


class FallbackSink:
    """Passes everything on to ``sink``, and counts as closed while a client of the service's own is open.

    That client has the options which the service gave in code, its mask among them: the spans of libraries leave by it. What
    began here also ends here.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    @property
    def exporter(self) -> object:
        """Where the events go, where the sink tells."""
        return getattr(self._sink, "exporter", None)

    @property
    def mask(self) -> Any:
        """What events go through, where the sink tells."""
        return getattr(self._sink, "mask", None)

    @property
    def closed(self) -> bool:
        """True where spans that begin now are to be taken by another."""
        return self._sink.closed or any(_is_open(reference()) for reference in list(_own.values()))

    def record(self, event: StepEvent) -> None:
        """Takes an event and returns at once."""
        self._sink.record(event)

    def record_and_wait(self, event: StepEvent, timeout_millis: int) -> DeliveryError | None:
        """Takes an event and waits until it is sent."""
        return self._sink.record_and_wait(event, timeout_millis)

    async def record_and_wait_async(self, event: StepEvent, timeout_millis: int) -> DeliveryError | None:
        """Takes an event and waits until it is sent, beside the loop."""
        return await self._sink.record_and_wait_async(event, timeout_millis)

    def holds(self, event: StepEvent) -> bool:
        """Whether this very event was recorded and is not sent yet."""
        return self._sink.holds(event)

    def flush(self, timeout_millis: int) -> FlushResult:
        """Waits until all that was recorded before is sent or dropped."""
        return self._sink.flush(timeout_millis)

    def take_error(self) -> DeliveryError | None:
        """The failure since the last call."""
        return self._sink.take_error()

    def stats(self) -> Stats:
        """The counts of this moment."""
        return self._sink.stats()

    def shutdown(self, timeout_millis: int) -> None:
        """Sends what is left, within the time."""
        self._sink.shutdown(timeout_millis)


def _is_open(sink: Sink | None) -> bool:
    return sink is not None and not sink.closed
