"""Delivery: takes events at the speed of a list append; one background thread gets them to an exporter."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from failpath_otel import clock
from failpath_otel.delivery import process
from failpath_otel.delivery.awaited import Awaited, awaited_event
from failpath_otel.delivery.counts import FlushResult, Stats
from failpath_otel.delivery.worker import LONG_MILLIS, NEVER, Worker, deadline_in
from failpath_otel.errors import DeliveryError
from failpath_otel.events.step import StepEvent
from failpath_otel.interruption import SteadyLock


class Delivery(Worker):
    """A `Worker` and what applications call. See `Sink` for the promises of its methods."""

    def _made(self) -> None:
        process.watch(self)

    def _forgotten(self) -> None:
        process.forget(self)

    def after_fork(self) -> None:
        """Called in a forked child: what was queued is the parent's to send, what it counted the parent's to tell."""
        self._legacy.cross(self._outbox)
        self._start_afresh()
        if self._closed:
            self._outbox.close("shutdown")

    def _adopt(self) -> None:
        """Starts afresh after a fork that went round Python's hooks, such as uWSGI's."""
        pid = os.getpid()
        if self._pid != pid:
            # A lock of the parent may be held for ever, so the first who comes brings one.
            self._adopting.setdefault(pid, SteadyLock()).run(self._adopt_in, pid)
        self._legacy.settle(self._outbox)

    def _adopt_in(self, pid: int) -> None:
        if self._pid != pid:
            self.after_fork()

    def begin_in_child(self) -> None:
        """Called where a child begins whose parent left it what it recorded: sends that."""
        self._adopt()
        if self._outbox.queued or self._inbox:
            self._start_worker()
            self._wake_up.give()

    @property
    def closed(self) -> bool:
        """True from ``shutdown`` on."""
        return self._closed

    @property
    def is_used(self) -> bool:
        """Whether anything was recorded in this process."""
        return bool(self._inbox) or self._outbox.recorded > 0

    # Recording, on the application's threads.

    def record(self, event: StepEvent) -> None:
        """Takes an event and returns at once."""
        if self._pid != os.getpid():
            self._adopt()
        self._inbox.append(event)
        if self._outbox.refuse:
            self._outbox.admit()
            if self._sender.wait() <= 0 and not self._closed and self._start_worker():
                self._wake_up.give()  # it is time to ask whether the key is taken again
            return
        waiting = len(self._inbox)
        if waiting >= self._wake_at:
            started = False
            try:
                self._wake_at = NEVER
                started = self._start_worker()
            finally:
                if not started:
                    self._wake_at = 1  # no thread can be started now, or an alarm came first; the next event tries again
            self._wake_up.give()
            if not started and event.is_outcome and self._legacy.nobody_sends():
                self.flush(self._send_timeout_millis or LONG_MILLIS)
        if waiting + self._outbox.queued > self._max_queue_size:
            self._outbox.admit()
        if self._patience is not None and event.is_outcome and not self._sender.failing:
            self._patience.spend(lambda deadline: self._drain(deadline, lambda: self._sender.failing))

    def record_and_wait(self, event: StepEvent, timeout_millis: int) -> DeliveryError | None:
        """Takes an event and waits until it is sent, refused, or not sent for now; that failure is returned.

        While the destination is failing already, the event is queued and nothing is waited for; nor is it on the worker
        itself, where callbacks run, or in a signal handler that interrupted a change of the queue.
        """
        awaited = self._await(event, timeout_millis)
        if awaited is None:
            return None
        try:
            if self._hurry(awaited):
                awaited.outbox.wait(awaited.is_over, awaited.deadline)
        finally:
            verdict = awaited.outbox.verdict(awaited.number, event)
        return awaited.failure(verdict, timeout_millis)

    async def record_and_wait_async(self, event: StepEvent, timeout_millis: int) -> DeliveryError | None:
        """Like `record_and_wait`, on an asyncio loop, which goes on meanwhile."""
        awaited = self._await(event, timeout_millis)
        if awaited is None:
            return None
        try:
            if self._hurry(awaited):
                await awaited.outbox.wait_async(awaited.is_over, awaited.deadline)
        finally:
            verdict = awaited.outbox.verdict(awaited.number, event)
        return awaited.failure(verdict, timeout_millis)

    def _await(self, event: StepEvent, timeout_millis: int) -> Awaited | None:
        """Takes an event that is to be waited for; ``None`` where it cannot be."""
        self._adopt()
        if threading.current_thread() is self._worker:
            self.record(event)
            return None
        return awaited_event(self._outbox, self._sender, event, deadline_in(timeout_millis) if timeout_millis else None)

    def _hurry(self, awaited: Awaited) -> bool:
        """Has an event sent; whether there is something to wait for then."""
        if not awaited.waits:
            return False
        if self._start_worker():
            self._nudge(awaited.number)
            return True
        self._send_here(awaited.number, awaited.deadline or deadline_in(LONG_MILLIS))
        return False

    def holds(self, event: StepEvent) -> bool:
        """Whether this very event was recorded and is not sent yet."""
        return self._outbox.has(event)

    # Waiting, on the application's threads.

    def flush(self, timeout_millis: int) -> FlushResult:
        """Waits until all that was recorded before is sent or dropped, or the time is over."""
        self._drain(deadline_in(timeout_millis))
        return self.stats()

    def shutdown(self, timeout_millis: int) -> None:
        """Sends what is left, within the time; what comes later is counted as dropped."""
        if self._closed:
            return
        deadline = deadline_in(timeout_millis)
        self._drain(deadline, lambda: self._sender.hold_until > deadline)
        if self._outbox.interrupts_holder():
            return  # a signal handler that interrupted a change of the queue leaves it to the interpreter's exit
        self._closed = True
        self._outbox.close("shutdown")
        process.forget(self)
        self._wake_up.give()
        worker = self._worker
        if worker is None or not self._is_working:
            self._close_exporter()
        elif worker is not threading.current_thread():
            worker.join(max(0.0, deadline - clock.monotonic()))  # it closes the exporter as soon as that is idle

    def stats(self) -> Stats:
        """The counts of this moment."""
        self._adopt()
        return self._outbox.stats(self._sender.retries, self._sender.mask_failures)

    def take_error(self) -> DeliveryError | None:
        """The failure since the last call, if there was one: events were lost, or could not be sent and are held."""
        sender = self._sender
        lost, sender.lost = sender.lost, None
        return lost or sender.held

    def _drain(self, deadline: float, gives_up: Callable[[], bool] | None = None) -> None:
        self._adopt()
        outbox = self._outbox
        outbox.admit()
        through = outbox.recorded
        if outbox.oldest > through or threading.current_thread() is self._worker or outbox.interrupts_holder():
            return  # a callback on the worker cannot wait for the worker, nor a signal handler for what it interrupted

        def done() -> bool:
            return outbox.oldest > through or (gives_up is not None and gives_up())

        if self._start_worker():
            self._nudge(through)
            outbox.wait(done, deadline)
        else:
            self._send_here(through, deadline)
