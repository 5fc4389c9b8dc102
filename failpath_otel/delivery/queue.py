"""EventQueue: a bounded queue that knows which events matter least. Not safe for threads; `Outbox` holds its lock."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import repeat, starmap

from failpath_otel.delivery.counts import DropReason
from failpath_otel.events.step import StepEvent

Dropped = tuple[StepEvent, DropReason]
_Attempt = tuple[str | None, str | None]

_COMPACT_ABOVE = 1024


class EventQueue:
    """Events by the number under which they were recorded, oldest first.

    When it is full, a ``running`` whose outcome is queued too goes first, since the outcome carries its start; then the
    incoming ``running``, or, for an incoming outcome, the newest queued ``running``; outcomes go last. Every operation takes
    constant time, so that an outage does not slow the application down. While nothing has to be dropped, which is nearly
    always, the queue is a mere list: who matters least is found out when it is first full, in one pass.

    What is in flight cannot be taken back, so an outcome that finds nothing but a ``running`` in flight to go for it is let in
    above the bound, and that one goes when its batch is given back (docs/decisions/0014). The queue is never longer than the
    bound and the ``running`` in flight together.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # The event of number n stands at n - _first; None where it is gone. All before _head are gone.
        self._events: list[StepEvent | None] = []
        self._first = 1
        self._head = 0
        self._gone = 0
        self._taken_through = 0
        self._rank: _Rank | None = None

    def __len__(self) -> int:
        return len(self._events) - self._gone

    @property
    def recorded(self) -> int:
        """The number of the newest event that was ever queued."""
        return self._first + len(self._events) - 1

    @property
    def oldest(self) -> int:
        """The number of the oldest event that is still here; one past the newest where there is none."""
        return self._first + self._head

    def __contains__(self, number: int) -> bool:
        return self._at(number) is not None

    def has(self, event: StepEvent) -> bool:
        """Whether this very event is here."""
        return any(queued is event for queued in self._events)

    def add(self, event: StepEvent) -> Dropped | None:
        """Adds an event; returns the one that was dropped for it, which may be itself."""
        dropped = None
        if len(self) >= self._capacity:
            rank = self._ranked()
            dropped = self._evict(rank.least(event, self._taken_through))
            if dropped is None and not (event.is_outcome and len(self) - self._capacity < rank.running_in_flight):
                # It gets no number: a place for each event that is dropped would grow for as long as an outage lasts.
                return event, "queue_full"
        self._events.append(event)
        if self._rank is not None:
            self._rank.add(self.recorded, event, self._taken_through)
        return dropped

    def add_from(self, inbox: deque[StepEvent]) -> None:
        """Moves as many events from ``inbox`` as there is room for."""
        start = len(self._events)
        room = self._capacity - len(self)
        # Not a loop in Python, which a signal handler that raises could leave with an event in neither place.
        self._events.extend(starmap(inbox.popleft, repeat((), max(0, min(len(inbox), room)))))
        if self._rank is not None:
            self._rank.add_all(self._numbered(start, len(self._events)), self._taken_through)

    def take(self, count: int) -> list[tuple[int, StepEvent]]:
        """The oldest events, at most ``count``. They stay here, safe from being dropped, until `remove` or `give_back`."""
        taken: list[tuple[int, StepEvent]] = []
        start = self._head
        while len(taken) < count and start < len(self._events):
            end = start + count - len(taken)
            taken.extend(self._numbered(start, end))
            start = end
        if taken:
            self._taken_through = taken[-1][0]
            if self._rank is not None:
                self._rank.take(taken)
        return taken

    def give_back(self) -> list[Dropped]:
        """What was taken and not removed waits again, and may be dropped for something that matters more.

        Returns what is dropped at once, for outcomes that were let in above the bound.
        """
        self._taken_through = 0
        if self._rank is None:
            return []
        self._rank.give_back()
        excess = max(0, len(self) - self._capacity)
        evicted = (self._evict(self._ranked().least(None, 0)) for _ in range(excess))
        return [dropped for dropped in evicted if dropped is not None]

    def replace(self, number: int, event: StepEvent) -> None:
        """Puts another version of an event in its place."""
        if number in self:
            self._events[number - self._first] = event

    def remove(self, number: int) -> StepEvent | None:
        """Removes an event, which is sent or given up; ``None`` where it is gone already."""
        event = self._at(number)
        if event is None:
            return None
        place = number - self._first
        self._events[place] = None
        self._gone += 1
        if self._rank is not None:
            self._rank.remove(number, event)
            if len(self) <= self._capacity // 2:
                self._rank = None
        if place == self._head:
            self._advance()
        return event

    def remove_all(self, numbers: Iterable[int]) -> int:
        """Removes events; how many of them were still here."""
        if self._rank is not None:
            return sum(self.remove(number) is not None for number in numbers)
        before, events, first = self._gone, self._events, self._first
        for number in numbers:
            place = number - first
            if 0 <= place < len(events) and events[place] is not None:
                events[place] = None
                self._gone += 1
        removed = self._gone - before
        self._advance()
        return removed

    def _at(self, number: int) -> StepEvent | None:
        place = number - self._first
        return self._events[place] if 0 <= place < len(self._events) else None

    def _numbered(self, start: int, end: int) -> list[tuple[int, StepEvent]]:
        numbered = enumerate(self._events[start:end], self._first + start)
        return [(number, event) for number, event in numbered if event is not None]

    def _advance(self) -> None:
        events, head, end = self._events, self._head, len(self._events)
        while head < end and events[head] is None:
            head += 1
        if head > _COMPACT_ABOVE and head > end // 2:
            del events[:head]
            self._first += head
            self._gone -= head
            head = 0
        self._head = head

    def _ranked(self) -> _Rank:
        if self._rank is None:
            self._rank = _Rank()
            self._rank.add_all(self._numbered(self._head, len(self._events)), self._taken_through)
        return self._rank

    def _evict(self, victim: tuple[int, DropReason] | None) -> Dropped | None:
        if victim is None:
            return None
        number, reason = victim
        event = self.remove(number)
        return None if event is None else (event, reason)


class _Rank:
    """Which queued events matter least, by number.

    Attributes:
        running_in_flight: How many ``running`` were taken; what is in flight is settled or given back as a whole.
    """

    def __init__(self) -> None:
        self._running: OrderedDict[_Attempt, int] = OrderedDict()
        self._superseded: OrderedDict[int, None] = OrderedDict()
        self._superseded_in_flight: dict[int, None] = {}
        self.running_in_flight = 0

    def add(self, number: int, event: StepEvent, taken_through: int) -> None:
        attempt = (event.trace_id, event.span_id)
        if event.status == "running":
            self._running[attempt] = number
            self.running_in_flight += number <= taken_through
        elif (start := self._running.pop(attempt, None)) is not None:
            in_flight = start <= taken_through
            (self._superseded_in_flight if in_flight else self._superseded)[start] = None

    def add_all(self, events: Iterable[tuple[int, StepEvent]], taken_through: int) -> None:
        for number, event in events:
            self.add(number, event, taken_through)

    def take(self, taken: Iterable[tuple[int, StepEvent]]) -> None:
        self.running_in_flight = 0  # all that was in flight before is among the oldest, which are taken again
        for number, event in taken:
            self.running_in_flight += event.status == "running"
            if number in self._superseded:
                del self._superseded[number]
                self._superseded_in_flight[number] = None

    def give_back(self) -> None:
        self.running_in_flight = 0
        self._superseded.update(self._superseded_in_flight)
        self._superseded_in_flight.clear()

    def remove(self, number: int, event: StepEvent) -> None:
        if event.status == "running":
            self._superseded.pop(number, None)
            self._superseded_in_flight.pop(number, None)
            attempt = (event.trace_id, event.span_id)
            if self._running.get(attempt) == number:
                del self._running[attempt]

    def least(self, incoming: StepEvent | None, taken_through: int) -> tuple[int, DropReason] | None:
        """What goes for ``incoming``, or for an outcome that is in already; ``None`` where nothing matters less."""
        if self._superseded:
            return next(iter(self._superseded)), "superseded"
        if incoming is not None:
            if incoming.status == "running":
                return None
            own = self._running.get((incoming.trace_id, incoming.span_id))
            if own is not None and own > taken_through:
                return own, "superseded"
        newest = next(reversed(self._running), None)
        if newest is not None and self._running[newest] > taken_through:
            return self._running[newest], "queue_full"
        return None
