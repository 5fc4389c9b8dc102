"""Events on which the server behind fails, told apart from a server behind that is away.

The rule is the clients' own (docs/decisions/0017), but for this: between two tries of an event its sender is asked to come
again, so that nothing is held here, and what is known of an event is known over the requests of its sender.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from failpath_otel.events.step import StepEvent
from failpath_otel.server.forward.parcels import Parcel, halved

FAILURES_TOGETHER: Final = 3
"""How often events may fail with others before it is asked whether one of them is the reason."""
FAILURES_ALONE: Final = 4
"""How often an event has to fail alone, others being taken between each two of these times, before it is refused."""
MAX_KNOWN: Final = 4_096

_Key = tuple[str, str, str]
_T = TypeVar("_T")


@dataclass(slots=True)
class _Alone:
    """How often an event failed alone, and how much had been taken when it failed last."""

    failures: int
    taken: int


class Suspects:
    """What is known of events that failed. Safe for threads, bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._together: OrderedDict[_Key, int] = OrderedDict()
        self._alone: OrderedDict[_Key, _Alone] = OrderedDict()
        self._taken = 0

    def taken(self, parcels: Sequence[Parcel]) -> None:
        """These were taken, or refused by name: the server behind is there."""
        with self._lock:
            self._taken += 1
            if self._together or self._alone:
                for parcel in parcels:
                    self._together.pop(_key(parcel.events[0]), None)
                    if len(parcel.events) == 1:
                        self._alone.pop(_key(parcel.events[0]), None)

    def failed_together(self, parcels: Sequence[Parcel]) -> None:
        """These could not be sent, nobody knows why. They are known again by their first events, whoever sends them."""
        with self._lock:
            for parcel in parcels:
                key = _key(parcel.events[0])
                _put(self._together, key, self._together.get(key, 0) + 1)

    def failed_often(self, parcels: Sequence[Parcel]) -> bool:
        """Whether some of these failed so often that it may be one of them."""
        with self._lock:
            return any(self._together.get(_key(parcel.events[0]), 0) >= FAILURES_TOGETHER for parcel in parcels)

    def failed_alone(self, event: StepEvent, *, before: bool) -> bool | None:
        """An event failed alone: whether it is the reason; ``None`` where it tells nothing, for nothing was taken lately.

        ``before`` is whether it was so before anything was taken of the events that came with it.
        """
        with self._lock:
            key = _key(event)
            known = self._alone.get(key)
            if known is None:
                if not before or self._together.get(key, 0) >= FAILURES_TOGETHER:
                    _put(self._alone, key, _Alone(1, self._taken))
                return None if before else False
            if known.taken == self._taken:
                return None
            known.failures, known.taken = known.failures + 1, self._taken
            return known.failures >= FAILURES_ALONE

    def apart(self, parcels: Sequence[Parcel]) -> tuple[list[Parcel], list[Parcel]]:
        """Parcels without the events that failed alone before, and these, each in a parcel of its own."""
        with self._lock:
            known = set(self._alone)
        if not known:
            return list(parcels), []
        others: list[Parcel] = []
        alone: list[Parcel] = []
        for parcel in parcels:
            found = [place for place, event in enumerate(parcel.events) if _key(event) in known]
            if not found:
                others.append(parcel)
                continue
            start = 0
            for place in (*found, len(parcel.events)):
                if place > start:
                    others.append(parcel.part(start, place))
                if place < len(parcel.events):
                    alone.append(parcel.part(place, place + 1))
                start = place + 1
        return others, alone


class Trial:
    """The parts in which a few parcels are sent, one after the other; until it is known to be there, as few as can be.

    Parcels that failed often lend one event, which is sent first. Where that is taken, the others are divided.
    """

    def __init__(self, suspects: Suspects, parcels: Sequence[Parcel]) -> None:
        others, alone = suspects.apart(parcels)
        self._suspects = suspects
        # The last goes out first. Those that failed alone come when others may have been taken.
        self._left = [[parcel] for parcel in alone]
        self._canary: list[Parcel] = []
        self._taken = False
        self._untaken = 0
        self._most_untaken = 2 * sum(len(parcel.events) for parcel in parcels).bit_length() + 4
        if others:
            self._left.append(others)
        if suspects.failed_often(others) and sum(len(parcel.events) for parcel in others) > 1:
            last = others.pop()
            if len(last.events) > 1:
                others.append(last.part(0, len(last.events) - 1))
            self._canary = [last.part(len(last.events) - 1, len(last.events))]
            self._left.append(self._canary)

    def next(self) -> list[Parcel]:
        """The part that is to be sent now; empty at the end."""
        return self._left.pop() if self._left else []

    def add(self, parts: Sequence[list[Parcel]]) -> None:
        """More parts, to be sent next."""
        self._left += reversed(parts)

    def left(self) -> list[Parcel]:
        """All parcels that were not sent, in their order."""
        return [parcel for part in reversed(self._left) for parcel in part]

    def taken(self, part: Sequence[Parcel]) -> None:
        """The server behind took a part, or refused events of it by name."""
        self._suspects.taken(part)
        self._taken, self._untaken = True, 0
        if part is self._canary and self._left:
            self.add(halved(self._left.pop()))

    def failed(self, part: list[Parcel], *, there: bool) -> bool | None:
        """What to do after a failure: go on, refuse the single event of this part (``True``), or leave all for now (``None``).

        ``there`` is whether the server behind is known to be there, which what it took shows too.
        """
        self._untaken += 1
        single = len(part) == 1 and len(part[0].events) == 1
        divides = (there or self._taken) and self._untaken <= self._most_untaken and part is not self._canary
        verdict = self._suspects.failed_alone(part[0].events[0], before=not divides) if single else None
        if single and (there or verdict is not None):
            return bool(verdict)
        if not divides or single:
            self._suspects.failed_together(part)
            return None
        self.add(halved(part))
        return False


def _key(event: StepEvent) -> _Key:
    return event.flow_key, event.run_id, event.event_id


def _put(known: OrderedDict[_Key, _T], key: _Key, value: _T) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MAX_KNOWN:
        known.popitem(last=False)
