"""A test takes over whatever in this process gives events to a sink, for a while and whenever it was made."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, Protocol

from failpath_otel.delivery.direct import DirectSink
from failpath_otel.delivery.sink import Sink
from failpath_otel.events.step import StepEvent

Receive = Callable[[StepEvent], object]
GiveBack = Callable[[], None]


class Lender(Protocol):
    """What gives its events to a sink, and may be lent to another one."""

    @property
    def sink(self) -> Sink | None:
        """Where its events go; ``None`` where none are wanted."""
        ...

    def lend(self, sink: Sink) -> GiveBack:
        """Gives its events to ``sink`` until what this returns is called."""
        ...


class TakenSink(DirectSink):
    """The sink of a client while a test has taken it over: a shutdown ends it for that test alone."""


class _Takeover:
    """One test's: what it has taken, and how to give that back."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        # A client and its span processor share a sink, and so its end.
        self._sinks: dict[int, tuple[Sink | None, TakenSink]] = {}
        self._taken: dict[int, tuple[Lender, GiveBack]] = {}

    def take(self, lender: Lender) -> None:
        if id(lender) in self._taken:
            return
        sink = lender.sink
        if isinstance(sink, DirectSink) and not isinstance(sink, TakenSink):
            return  # of a client that keeps its events for a test anyway
        name = id(lender) if sink is None else id(sink)
        if name not in self._sinks:
            self._sinks[name] = sink, TakenSink(self._receive, getattr(sink, "mask", None))
        self._taken[id(lender)] = lender, lender.lend(self._sinks[name][1])

    def give_back(self) -> None:
        for _, give_back in self._taken.values():
            give_back()


_lenders: Final[dict[int, weakref.ref[Lender]]] = {}
_running: Final[list[_Takeover]] = []


def join(lender: Lender) -> None:
    """Makes ``lender`` known; where a test has taken over it is taken at once."""
    name = id(lender)
    _lenders[name] = weakref.ref(lender, lambda _: _lenders.pop(name, None))
    if _running:
        _running[-1].take(lender)


@contextmanager
def taking_over(receive: Receive) -> Generator[None, None, None]:
    """Within the block all events of this process go to ``receive``, masked as they would have been."""
    takeover = _Takeover(receive)
    _running.append(takeover)
    _take_all(takeover)
    try:
        yield
    finally:
        _running.remove(takeover)
        takeover.give_back()
        if _running:
            _take_all(_running[-1])  # what was made within this block


def _take_all(takeover: _Takeover) -> None:
    for reference in list(_lenders.values()):
        lender = reference()
        if lender is not None:
            takeover.take(lender)
