"""EventQueue: a bounded queue that knows which events matter least. Not safe for threads; `Delivery` holds its lock."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from failpath_otel.delivery.counts import DropReason
from failpath_otel.events.step import StepEvent

Dropped = tuple[StepEvent, DropReason]
_Attempt = tuple[str | None, str | None]


class EventQueue:
    """Events by the number under which they were recorded, oldest first.

    When it is full, a ``running`` whose outcome is queued too goes first, since the outcome carries its start; then the
    incoming ``running``, or, for an incoming outcome, the newest queued ``running``; outcomes go last. Every operation takes
    constant time, so that an outage does not slow the application down.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._events: OrderedDict[int, StepEvent] = OrderedDict()
        self._running: OrderedDict[_Attempt, int] = OrderedDict()
        self._superseded: OrderedDict[int, None] = OrderedDict()
        self._superseded_in_flight: dict[int, None] = {}
        self._recorded = 0
        self._taken_through = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def recorded(self) -> int:
        """How many events were ever added; the newest has this number."""
        return self._recorded

    @property
    def oldest(self) -> int:
        """The number of the oldest event that is still here; one past the newest where there is none."""
        return next(iter(self._events), self._recorded + 1)

    def __contains__(self, number: int) -> bool:
        return number in self._events

    def add(self, event: StepEvent) -> Dropped | None:
        """Adds an event; returns the one that was dropped for it, which may be itself."""
        self._recorded += 1
        number = self._recorded
        dropped = None
        if len(self._events) >= self._capacity:
            dropped = self._make_room(event)
            if dropped is None:
                return event, "queue_full"
        self._events[number] = event
        attempt = (event.trace_id, event.span_id)
        if event.status == "running":
            self._running[attempt] = number
        elif (start := self._running.pop(attempt, None)) is not None:
            in_flight = start <= self._taken_through
            (self._superseded_in_flight if in_flight else self._superseded)[start] = None
        return dropped

    def pass_over(self) -> None:
        """Counts an event that is not even queued."""
        self._recorded += 1

    def take(self, count: int) -> list[tuple[int, StepEvent]]:
        """The oldest events, at most ``count``. They stay here, safe from being dropped, until `remove` or `give_back`."""
        taken = list(islice(self._events.items(), count))
        if taken:
            self._taken_through = taken[-1][0]
        for number, _ in taken if self._superseded else ():
            if number in self._superseded:
                del self._superseded[number]
                self._superseded_in_flight[number] = None
        return taken

    def give_back(self) -> None:
        """What was taken and not removed waits again, and may be dropped for something that matters more."""
        self._superseded.update(self._superseded_in_flight)
        self._superseded_in_flight.clear()
        self._taken_through = 0

    def replace(self, number: int, event: StepEvent) -> None:
        """Puts another version of an event in its place."""
        if number in self._events:
            self._events[number] = event

    def remove(self, number: int) -> StepEvent | None:
        """Removes an event, which is sent or given up; ``None`` where it is gone already."""
        event = self._events.pop(number, None)
        if event is not None and event.status == "running":
            self._superseded.pop(number, None)
            self._superseded_in_flight.pop(number, None)
            attempt = (event.trace_id, event.span_id)
            if self._running.get(attempt) == number:
                del self._running[attempt]
        return event

    def _make_room(self, incoming: StepEvent) -> Dropped | None:
        if self._superseded:
            number, _ = self._superseded.popitem(last=False)
            return self._events.pop(number), "superseded"
        if incoming.status == "running":
            return None
        own = self._running.get((incoming.trace_id, incoming.span_id))
        if own is not None and own > self._taken_through:
            del self._running[(incoming.trace_id, incoming.span_id)]
            return self._events.pop(own), "superseded"
        newest = next(reversed(self._running), None)
        if newest is not None and self._running[newest] > self._taken_through:
            return self._events.pop(self._running.pop(newest)), "queue_full"
        return None
