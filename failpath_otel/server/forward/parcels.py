"""What waits to go on: the events of each sender in parcels, within bounds of count, size and time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from failpath_otel.events.step import StepEvent

MAX_PARCEL_EVENTS: Final = 2_048
MAX_PARCEL_BYTES: Final = 1024 * 1024
"""What goes out in one request, as a client sends it."""

_UNKNOWN_SIZE: Final = 1024
_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode


@dataclass(eq=False)
class ForwardRequest:
    """The events of one sender, who waits for an answer. Belongs to the event loop, but for what is set once.

    Attributes:
        future: Done when the sender can be answered.
        deadline: Monotonic seconds, until which its events may wait for their turn.
        events: How many there are.
        left: Events of which nothing is known yet.
        size: Bytes, about.
        rejected: Event id → reason, so far.
    """

    future: asyncio.Future[None]
    deadline: float
    events: int
    left: int
    size: int
    rejected: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(eq=False, slots=True)
class Parcel:
    """A part of a sender's request that goes out in one request, alone or with others."""

    request: ForwardRequest
    events: Sequence[StepEvent]
    size: int

    def halves(self) -> tuple[Parcel, Parcel]:
        """This parcel in two, in the order of its events."""
        middle = len(self.events) // 2
        return self.part(0, middle), self.part(middle, len(self.events))

    def part(self, start: int, end: int) -> Parcel:
        """The events from one place to another; the size is what they take on average."""
        return Parcel(self.request, self.events[start:end], self.size * (end - start) // len(self.events))


def halved(parcels: Sequence[Parcel]) -> list[list[Parcel]]:
    """Parcels in two, in the order of their events; in one where there is a single event."""
    if len(parcels) > 1:
        middle = len(parcels) // 2
        return [list(parcels[:middle]), list(parcels[middle:])]
    if len(parcels[0].events) > 1:
        return [[half] for half in parcels[0].halves()]
    return [list(parcels)]


class WaitingRoom:
    """Parcels in the order in which they came. Its owner sees to it that one thread at a time is here."""

    def __init__(self) -> None:
        self._parcels: deque[Parcel] = deque()

    def __len__(self) -> int:
        return len(self._parcels)

    def add(self, parcels: Iterable[Parcel]) -> None:
        """Parcels at the end of the queue."""
        self._parcels.extend(parcels)

    def put_back(self, parcels: Sequence[Parcel]) -> None:
        """Parcels that were taken, to where they were."""
        self._parcels.extendleft(reversed(parcels))

    def take(self, now: float) -> tuple[list[Parcel], list[Parcel]]:
        """The oldest parcels, as many as go out together, and those before them whose deadline has passed.

        Parcels of senders who have their answer already are left out.
        """
        taken: list[Parcel] = []
        overdue: list[Parcel] = []
        events = size = 0
        while self._parcels:
            parcel = self._parcels[0]
            if parcel.request.future.done():
                self._parcels.popleft()
            elif parcel.request.deadline < now:
                overdue.append(self._parcels.popleft())
            else:
                events += len(parcel.events)
                size += parcel.size
                if taken and (events > MAX_PARCEL_EVENTS or size > MAX_PARCEL_BYTES):
                    break
                taken.append(self._parcels.popleft())
        return taken, overdue

    def take_overdue(self, moment: float) -> list[Parcel]:
        """All parcels whose deadline is before ``moment``."""
        overdue = [parcel for parcel in self._parcels if parcel.request.deadline < moment]
        if overdue:
            self._parcels = deque(parcel for parcel in self._parcels if parcel.request.deadline >= moment)
        return overdue


def size_of(events: Sequence[StepEvent]) -> int:
    """Bytes that the events take, about; cheaper than the wire's own encoding."""
    try:
        return len(_encode(events))
    except Exception:  # such an event is refused when it is sent, alone
        return _UNKNOWN_SIZE * len(events)


def parcels_of(request: ForwardRequest, events: Sequence[StepEvent]) -> Iterator[Parcel]:
    """The events of a sender's request, divided where they are too many or too large for one of ours."""
    if len(events) <= MAX_PARCEL_EVENTS and request.size <= MAX_PARCEL_BYTES:
        yield Parcel(request, events, request.size)
        return
    part: list[StepEvent] = []
    size = 0
    for event in events:
        more = size_of((event,))
        if part and (len(part) >= MAX_PARCEL_EVENTS or size + more > MAX_PARCEL_BYTES):
            yield Parcel(request, part, size)
            part, size = [], 0
        part.append(event)
        size += more
    yield Parcel(request, part, size)
