"""Outbox: what is recorded and not yet settled, with the counts. Safe for threads, signal handlers and finalizers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final, Literal

from failpath_otel import clock
from failpath_otel.delivery.counts import DropReason, Stats
from failpath_otel.delivery.queue import Dropped, EventQueue
from failpath_otel.delivery.wake_up import WakeUp
from failpath_otel.events.step import StepEvent
from failpath_otel.interruption import SteadyLock, is_interruption, only_waits
from failpath_otel.notices import warn_once

_GLANCE_SECONDS: Final = 0.5
"""How long a thread sleeps at a time: a signal that comes just before it does so is handled no sooner than it wakes."""

OnDrop = Callable[[StepEvent, DropReason], object]


class Outbox:
    """An inbox that takes events without a lock, and the bounded queue behind it.

    The inbox is a deque, whose ``append`` is atomic: recording cannot deadlock, also not from a signal handler or a
    finalizer that interrupts this very code. All else happens under one reentrant lock, and whoever comes first moves the
    inbox into the queue. Who interrupts the holder of the lock on its own thread leaves the queue alone, which may be
    half-way through a change; what it recorded stays in the inbox for the holder or the next who comes.

    Attributes:
        interrupts_holder: Whether the calling thread was interrupted while it held the lock.
        inbox: Recorded, not yet in the queue.
        queued: The length of the queue, in flight included; kept here so that recording may look at it without the lock.
        refuse: When set, every event is dropped for this reason.
    """

    def __init__(self, capacity: int, on_drop: OnDrop | None, refuse: DropReason | None = None) -> None:
        self.inbox: deque[StepEvent] = deque()
        self.queued = 0
        self.refuse: DropReason | None = refuse
        self._ended = False
        self._on_drop = on_drop
        self._queue = EventQueue(capacity)
        self._lock = SteadyLock()
        self.interrupts_holder: Callable[[], bool] = self._lock.is_held
        self._waiters: list[Callable[[], object]] = []
        self._sent = 0
        self._dropped: Counter[DropReason] = Counter()
        self._awaited: dict[str, DropReason | None] = {}
        self._telling = threading.local()

    @property
    def recorded(self) -> int:
        """The number of the newest event that was moved into the queue."""
        return self._queue.recorded

    @property
    def oldest(self) -> int:
        """The number of the oldest event that is not settled; above ``recorded`` where all are."""
        return self._lock.run(lambda: self._queue.oldest)

    def admit(self) -> None:
        """Moves the inbox into the queue."""
        if self.interrupts_holder():
            return
        drops: list[Dropped] = []
        self._lock.run(self._empty_inbox, drops)
        self._tell(drops)

    def add_awaited(self, event: StepEvent) -> int | None:
        """Puts an event into the queue at once; its number, for `holds` and `verdict`.

        ``None`` on a thread that was interrupted while it held the lock: there the event is merely recorded, since waiting
        for it would wait for the interrupted code.
        """
        if self.interrupts_holder():
            self.inbox.append(event)
            return None
        drops: list[Dropped] = []
        number = self._lock.run(self._add_awaited, event, drops)
        self._tell(drops)
        return number

    def verdict(self, number: int, event: StepEvent) -> DropReason | Literal["held"] | None:
        """Why an awaited event was dropped; ``None`` where it was sent. Ends the waiting for it."""
        return self._lock.run(self._verdict, number, event)

    def holds(self, number: int) -> bool:
        """Whether the event is not settled yet."""
        return self._lock.run(self._queue.__contains__, number)

    def take(self, count: int) -> list[tuple[int, StepEvent]]:
        """The oldest events; they stay until they are settled or given back."""
        return self._lock.run(self._queue.take, count)

    def replace(self, number: int, event: StepEvent) -> None:
        """Puts another version of an event in its place."""
        self._lock.run(self._queue.replace, number, event)

    def give_back(self) -> None:
        """What was taken waits again, but for what has to go for outcomes that came meanwhile."""
        drops: list[Dropped] = []
        self._lock.run(self._give_back, drops)
        self._tell_and_wake(drops)

    def settle(self, sent: Iterable[int], dropped: Iterable[int] = (), reason: DropReason = "rejected") -> None:
        """Counts events as sent or dropped and lets go of them; numbers that are gone already are passed over."""
        drops: list[Dropped] = []
        self._lock.run(self._settle, sent, dropped, reason, drops)
        self._tell_and_wake(drops)

    def unsettled(self) -> list[StepEvent]:
        """All that is not settled. A forked child asks it of its parent, whose lock may be held for ever: none is taken."""
        return [*(event for _, event in self._queue.take(len(self._queue))), *self.inbox]

    def forget(self) -> None:
        """Lets go of the queue, not of the inbox, without a count: another process settles it."""
        self._lock.run(self._forget)
        self._wake_waiters()

    def close(self, reason: DropReason) -> None:
        """Drops what is left, and from now on everything, for this reason, or for the first of several."""
        self._lock.run(self._refuse, reason)
        self.admit()
        self.settle((), self._lock.run(self._take_all), reason)

    @only_waits
    def reopen(self) -> None:
        """Takes events again, which were refused as ``unauthorized``; not after ``shutdown``."""
        self._lock.run(self._reopen)

    def wait(self, done: Callable[[], bool], deadline: float | None) -> None:
        """Waits until ``done``, which is asked whenever something was settled or given back, or the deadline is over."""
        waiter = WakeUp()
        wake = waiter.give
        self._waiters.append(wake)
        try:
            while not done():
                remaining = _GLANCE_SECONDS if deadline is None else deadline - clock.monotonic()
                if remaining <= 0:
                    return
                waiter.wait(min(remaining, _GLANCE_SECONDS))
        finally:
            self._waiters.remove(wake)

    async def wait_async(self, done: Callable[[], bool], deadline: float | None) -> None:
        """Like `wait`, for a task of an asyncio loop. It takes no thread: those of the service may all be waiting for it."""
        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def resolve() -> None:
            if not woken.done():
                woken.set_result(None)

        def wake() -> None:
            loop.call_soon_threadsafe(resolve)

        self._waiters.append(wake)
        try:
            while not done():
                remaining = None if deadline is None else deadline - clock.monotonic()
                if remaining is not None and remaining <= 0:
                    return
                # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that comes together with the end of the wait.
                timer = None if remaining is None else _timer(loop, remaining, resolve, wake)
                try:
                    await woken
                finally:
                    if timer is not None:
                        timer.cancel()
                woken = loop.create_future()
        finally:
            self._waiters.remove(wake)

    def has(self, event: StepEvent) -> bool:
        """Whether this very event is here, recorded and not settled."""
        if any(waiting is event for waiting in self.inbox.copy()):
            return True
        if self.interrupts_holder():
            return False
        return self._lock.run(self._queue.has, event)

    def stats(self, retries: int, mask_failures: int) -> Stats:
        """The counts of this moment."""
        self.admit()
        return self._lock.run(self._stats, retries, mask_failures)

    # Under the lock.

    def _empty_inbox(self, drops: list[Dropped]) -> None:
        if self.refuse is None:
            self._queue.add_from(self.inbox)
            self.queued = len(self._queue)
        while self.inbox:
            event = self.inbox[0]
            self._add(event, drops)
            # Removed only after it is added: an interruption between the two may repeat an event, never lose one.
            if self.inbox and self.inbox[0] is event:
                self.inbox.popleft()

    def _add_awaited(self, event: StepEvent, drops: list[Dropped]) -> int:
        self._empty_inbox(drops)
        self._awaited[event.event_id] = None
        self._add(event, drops)
        # One that was dropped at once has no number, and 0 is none.
        return 0 if any(dropped is event for dropped, _ in drops) else self._queue.recorded

    def _verdict(self, number: int, event: StepEvent) -> DropReason | Literal["held"] | None:
        reason = self._awaited.pop(event.event_id, None)
        return "held" if number in self._queue else reason

    def _add(self, event: StepEvent, drops: list[Dropped]) -> None:
        if self.refuse is None:
            dropped = self._queue.add(event)
            self.queued = len(self._queue)
        else:
            dropped = (event, self.refuse)
        if dropped is not None:
            self._count(*dropped, drops)

    def _give_back(self, drops: list[Dropped]) -> None:
        for dropped in self._queue.give_back():
            self._count(*dropped, drops)
        self.queued = len(self._queue)

    def _settle(self, sent: Iterable[int], dropped: Iterable[int], reason: DropReason, drops: list[Dropped]) -> None:
        self._sent += self._queue.remove_all(sent)
        for number in dropped:
            if (event := self._queue.remove(number)) is not None:
                self._count(event, reason, drops)
        self._give_back(drops)

    def _take_all(self) -> list[int]:
        return [number for number, _ in self._queue.take(len(self._queue))]

    def _forget(self) -> None:
        self._queue.remove_all(self._take_all())
        self.queued = len(self._queue)

    def _refuse(self, reason: DropReason) -> None:
        self._ended = self._ended or reason == "shutdown"
        self.refuse = self.refuse or reason

    def _reopen(self) -> None:
        if self.refuse == "unauthorized" and not self._ended:
            self.refuse = None

    def _stats(self, retries: int, mask_failures: int) -> Stats:
        dropped = {str(reason): count for reason, count in self._dropped.items()}
        return Stats(self._sent, len(self._queue), dropped, retries, mask_failures)

    def _count(self, event: StepEvent, reason: DropReason, drops: list[Dropped]) -> None:
        self._dropped[reason] += 1
        if event.event_id in self._awaited:
            self._awaited[event.event_id] = reason
        drops.append((event, reason))

    # Outside of the lock.

    def _tell_and_wake(self, drops: list[Dropped]) -> None:
        # Told first, so that whoever waits in flush() finds the callback done.
        try:
            self._tell(drops)
        finally:
            self._wake_waiters()

    def _wake_waiters(self) -> None:
        for waiter in self._waiters.copy():
            with contextlib.suppress(RuntimeError):  # awake already, or its event loop is closed
                waiter()

    def _tell(self, drops: list[Dropped]) -> None:
        # The callback is the application's and may do anything, even record steps. What is dropped of these, into a queue
        # that is full, is counted and not passed to on_drop: that would go round for ever.
        if not drops or getattr(self._telling, "now", False):
            return
        self._telling.now = True
        try:
            for event, reason in drops:
                warn_once(f"dropped:{reason}", "events are dropped (%s); stats() has the counts", reason)
                if self._on_drop is not None:
                    try:
                        self._on_drop(event, reason)
                    except Exception as error:
                        if is_interruption(error):
                            raise
                        warn_once("on_drop", "on_drop raised", exc_info=True)
        finally:
            self._telling.now = False


def _timer(
    loop: asyncio.AbstractEventLoop, seconds: float, resolve: Callable[[], object], wake: Callable[[], object]
) -> asyncio.TimerHandle | threading.Timer:
    """Calls ``resolve`` after a while: in the loop, but where a test has replaced the loop's clock a thread wakes it."""
    if not clock.is_replaced():
        return loop.call_later(seconds, resolve)
    timer = threading.Timer(seconds, wake)
    timer.daemon = True
    timer.start()
    return timer
