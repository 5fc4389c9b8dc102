"""Worker: the one background thread that gets queued events to an exporter, and its state in each process."""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections.abc import Callable
from contextvars import Token
from typing import Final

from opentelemetry import context as otel_context

from failpath_otel import clock
from failpath_otel.delivery import process
from failpath_otel.delivery.counts import DropReason
from failpath_otel.delivery.legacy import Legacy
from failpath_otel.delivery.masking import Mask
from failpath_otel.delivery.outbox import OnDrop, Outbox
from failpath_otel.delivery.patience import Patience
from failpath_otel.delivery.sending import OnError, Sender
from failpath_otel.delivery.wake_up import WakeUp
from failpath_otel.exporters.protocol import EventExporter
from failpath_otel.interruption import SteadyLock, is_interruption
from failpath_otel.notices import warn_once

# The key has no public name, and instrumentations import it from here.
_SUPPRESS_INSTRUMENTATION_KEY: Final[str] = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
NEVER: Final = 1 << 62
_AFTER_A_FAULT_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 5.0
"""How often an idle worker looks by itself: what was to wake it may have been cut off, such as by an alarm that raises."""
_RETIRING_SECONDS: Final = 30.0
LONG_MILLIS: Final = 365 * 24 * 3600 * 1000


class Worker:
    """A bounded queue, and the thread that empties it.

    Args:
        exporter: Where batches go.
        max_queue_size: How many events may wait or be in flight.
        send_timeout_millis: How long one call of the exporter may take; 0 means without a limit.
        mask: Applied to each event in the worker, before the exporter sees it.
        on_error: Told of each failed attempt to send; may raise without harm.
        on_drop: Told of each event that is dropped, with the reason; may raise without harm.
        max_batch_size: How many events one call of the exporter gets at most.
        linger_millis: How long an event waits for company.
        refuse: Set to drop every event for this reason instead of sending it.
        clock: Gives monotonic seconds, for what is tried again after a while.
    """

    def __init__(
        self,
        exporter: EventExporter,
        *,
        max_queue_size: int,
        send_timeout_millis: int = 1500,
        mask: Mask | None = None,
        on_error: OnError | None = None,
        on_drop: OnDrop | None = None,
        max_batch_size: int = 2048,
        linger_millis: int = 200,
        refuse: DropReason | None = None,
        clock: Callable[[], float] = clock.monotonic,
    ) -> None:
        self._exporter = exporter
        self._max_queue_size = max_queue_size
        self._send_timeout_millis = send_timeout_millis
        self._mask = mask
        self._on_error = on_error
        self._on_drop = on_drop
        self._max_batch_size = min(max_batch_size, max_queue_size)
        self._linger_seconds = linger_millis / 1000
        self._refuse: DropReason | None = refuse
        self._clock = clock
        self._closed = False
        self._retired_until: float | None = None
        self._exporter_closed = False
        self._adopting: dict[int, SteadyLock] = {}
        self._legacy = Legacy()
        self._start_afresh()
        self._made()

    @property
    def exporter(self) -> EventExporter:
        """Where the events go; the worker's to call, and for others to ask what it is."""
        return self._exporter

    @property
    def mask(self) -> Mask | None:
        """What events go through before the exporter sees them."""
        return self._mask

    def _start_afresh(self) -> None:
        """The state of a new process: nothing queued, no worker, no lock that another thread may hold."""
        self._outbox = Outbox(self._max_queue_size, self._on_drop, self._refuse)
        self._sender = Sender(
            self._outbox,
            self._exporter,
            max_batch_size=self._max_batch_size,
            mask=self._mask,
            on_error=self._on_error,
            clock=self._clock,
        )
        self._inbox = self._outbox.inbox
        self._starting = SteadyLock()
        self._worker: threading.Thread | None = None
        self._ended: threading.Thread | None = None
        self._patience: Patience | None = None
        self._make_waits()
        self._wake_at = 1
        self._nudged = object()
        self._hurry_through = 0
        self._pid = os.getpid()

    def _make_waits(self) -> None:
        """What threads wait on for long, made of what the modules hold at this moment."""
        self._sending = SteadyLock()
        self._wake_up = WakeUp()
        self._left_by_parent: queue.SimpleQueue[None] = queue.SimpleQueue()

    def retire(self) -> None:
        """Sends what is left in the background, for half a minute at most, and ends the thread. Safe in a finalizer."""
        self._retired_until = clock.monotonic() + _RETIRING_SECONDS
        if self._worker is not None or self._outbox.queued or self._inbox:
            self._start_worker()
        self._wake_up.give()

    def _send_here(self, through: int, deadline: float) -> None:
        """Sends on the calling thread: at the interpreter's exit Python starts no more threads."""
        token = _suppress_instrumentation()
        pause = 0.0
        try:
            while self._outbox.oldest <= through:
                now = clock.monotonic()
                pause = max(pause, self._sender.hold_until - now, self._sender.wait())
                if now >= deadline or self._sender.hold_until > deadline:
                    return
                WakeUp().wait(min(pause, deadline - now))  # not time.sleep, which tests replace
                sent = self._sending.run_within(deadline - clock.monotonic(), lambda: self._send_until(deadline))
                if sent is None:
                    return
                pause = sent
        finally:
            otel_context.detach(token)

    def _send_until(self, deadline: float) -> float:
        millis = max(1, int((deadline - clock.monotonic()) * 1000))
        return self._sender.send(min(millis, self._send_timeout_millis or millis))

    def _start_worker(self) -> bool:
        """Starts the worker where there is none; False where no thread can be started, or none may be."""
        process.finish_in_child()
        self._patience = process.patience()
        if self._is_working:
            return True
        if not self._legacy.starts_threads(self._outbox):
            return False
        return self._starting.run(self._make_worker)

    @property
    def _is_working(self) -> bool:
        """Whether there is a worker. Thread.is_alive is not asked: interrupted, it takes a thread for dead that is not."""
        return self._worker is not None and self._worker is not self._ended

    def _make_worker(self) -> bool:
        if self._is_working:
            return True
        if not self._wake_up.is_current:
            # gevent was put in place of threads since: a greenlet that waits on the thread's kind holds up all others.
            self._make_waits()
        # Known before it runs: where the start is interrupted it may run all the same, and ends when it finds it is not this.
        # Its context is an empty one, for instrumentations of threads (and Python 3.14 without its lock) hand that of the
        # starter on: the worker outlives the request that recorded first, and is no part of its trace.
        empty = contextvars.Context()
        self._worker = threading.Thread(target=empty.run, args=(self._run,), name="failpath-delivery", daemon=True)
        try:
            self._worker.start()
        except BaseException as error:
            self._worker = None
            if not isinstance(error, RuntimeError) or is_interruption(error):
                raise
            return False
        return True

    def _nudge(self, through: int) -> None:
        """Has the worker send everything up to this number without waiting for company or for the end of a backoff."""
        self._hurry_through = max(self._hurry_through, through)
        self._sender.hurry()
        self._nudged = object()
        self._wake_up.give()

    def _run(self) -> None:
        me = threading.current_thread()
        pid = self._pid
        try:
            _suppress_instrumentation()
            while self._worker is me:
                if self._retired_until is not None:
                    self._end_retired(self._retired_until)
                if self._closed and not self._outbox.queued:
                    self._close_exporter()
                    return
                self._survive(me)
        finally:
            self._ended = me
            if self._worker is me:
                self._wake_at = 1  # whatever ended the worker, the next event starts another
            elif self._pid != pid:
                # gevent takes greenlets along into a forked child, where the thread that this one was is unknown by now: its
                # end would be reported as a failure. So it has none.
                self._left_by_parent.get()

    def _end_retired(self, until: float) -> None:
        if clock.monotonic() > until or not (self._outbox.queued or self._inbox):
            self._closed = True
            self._outbox.close("shutdown")
            self._forgotten()

    def _survive(self, me: threading.Thread) -> None:
        """One round of work; whatever it raises, be it a callback's SystemExit, the worker goes on."""
        outbox = self._outbox
        try:
            self._await_batch(outbox, self._sender)
            if self._sender.wait() <= 0 and self._worker is me:
                pause = self._sending.run(self._sender.send, self._send_timeout_millis, BaseException)
                if pause:
                    self._back_off(pause)
        except BaseException:
            warn_once("worker", "delivery failed in an unexpected way and goes on", exc_info=True)
            outbox.give_back()
            self._wake_up.wait(_AFTER_A_FAULT_SECONDS)

    def _await_batch(self, outbox: Outbox, sender: Sender) -> None:
        outbox.admit()
        if (pause := sender.wait()) and not self._closed:
            self._sleep(1, min(pause, _IDLE_SECONDS))
            outbox.admit()
        missing = self._max_batch_size - sender.fresh
        if missing > 0 and sender.lingers and not self._closed and outbox.oldest > self._hurry_through:
            self._sleep(missing, self._linger_seconds)
            outbox.admit()

    def _sleep(self, wake_at: int, seconds: float) -> None:
        nudged, wake_up = self._nudged, self._wake_up
        self._wake_at = wake_at
        # Looked at after wake_at is set, and set by others before they look at it: one of the two sees the other.
        if len(self._inbox) < wake_at and not self._closed and self._nudged is nudged:
            wake_up.wait(seconds)
        if wake_up is self._wake_up:  # else a greenlet woke up in a forked child, where another worker sets this
            self._wake_at = NEVER

    def _back_off(self, seconds: float) -> None:
        """Waits before the next attempt. A flush cuts it short, unless the destination itself asked for the wait."""
        nudged = self._nudged
        until = clock.monotonic() + seconds
        while (now := clock.monotonic()) < until and self._outbox.queued:
            if self._nudged is not nudged:
                until = min(until, self._sender.hold_until)
            self._wake_up.wait(until - now)

    def _close_exporter(self) -> None:
        if self._starting.run(self._is_closed_here):
            return
        try:
            self._exporter.close()
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("close", "the exporter's close() raised", exc_info=True)

    def _is_closed_here(self) -> bool:
        before = self._exporter_closed
        self._exporter_closed = True
        return before

    def _made(self) -> None:
        """Called at the end of the construction."""

    def _forgotten(self) -> None:
        """Called when nobody is left who could record anything."""


def deadline_in(timeout_millis: float) -> float:
    """The moment (monotonic seconds) that is so far away."""
    return clock.monotonic() + max(0.0, min(timeout_millis, LONG_MILLIS)) / 1000


def _suppress_instrumentation() -> Token[otel_context.Context]:
    """Keeps our own requests out of the user's traces: both the key of today and the one that older instrumentations read."""
    context = otel_context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True)
    return otel_context.attach(otel_context.set_value("suppress_instrumentation", True, context))
