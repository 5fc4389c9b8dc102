"""Delivery: takes events at the speed of a list append and gets them to an exporter from one background thread."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from contextvars import Token
from queue import Empty, SimpleQueue
from typing import Final

from opentelemetry import context as otel_context

from failpath_otel.delivery import process
from failpath_otel.delivery.counts import DropReason, FlushResult, Stats
from failpath_otel.delivery.masking import Mask
from failpath_otel.delivery.outbox import OnDrop, Outbox
from failpath_otel.delivery.sending import OnError, Sender
from failpath_otel.errors import DeliveryError
from failpath_otel.events.step import StepEvent
from failpath_otel.exporters.protocol import EventExporter
from failpath_otel.notices import warn_once

# The key has no public name, and instrumentations import it from here.
_SUPPRESS_INSTRUMENTATION_KEY: Final[str] = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
_NEVER: Final = 1 << 62
_AFTER_A_FAULT_SECONDS: Final = 1.0


class Delivery:
    """A bounded queue and the worker that empties it. See `Sink` for the promises of its methods.

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
        max_batch_size: int = 512,
        linger_millis: int = 200,
        refuse: DropReason | None = None,
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
        self._closed = False
        self._exporter_closed = False
        self._start_afresh()
        process.watch(self)

    def _start_afresh(self) -> None:
        """The state of a new process: nothing queued, no worker, no lock that another thread may hold."""
        self._pid = os.getpid()
        self._outbox = Outbox(self._max_queue_size, self._on_drop, self._refuse)
        self._sender = Sender(
            self._outbox,
            self._exporter,
            max_batch_size=self._max_batch_size,
            mask=self._mask,
            on_error=self._on_error,
        )
        self._inbox = self._outbox.inbox
        self._starting = threading.RLock()
        self._worker: threading.Thread | None = None
        # The worker sleeps on this queue, whose put() is safe in signal handlers and finalizers, unlike a Condition's notify().
        self._signal: SimpleQueue[None] = SimpleQueue()
        self._wake_at = 1
        self._nudges = 0
        self._hurry_through = 0

    def after_fork(self) -> None:
        """Called in a forked child: what was queued is the parent's to send, what it counted the parent's to tell."""
        self._start_afresh()
        if self._closed:
            self._outbox.close("shutdown")

    @property
    def closed(self) -> bool:
        """True from ``shutdown`` on."""
        return self._closed

    # Recording, on the application's threads.

    def record(self, event: StepEvent) -> None:
        """Takes an event and returns at once."""
        if self._pid != os.getpid():  # a fork that went round Python's hooks, such as uWSGI's
            self.after_fork()
        self._inbox.append(event)
        waiting = len(self._inbox)
        if waiting >= self._wake_at:
            self._wake_at = _NEVER
            self._start_worker()
            self._signal.put(None)
        if waiting + self._outbox.queued > self._max_queue_size or self._outbox.refuse:
            self._outbox.admit()

    def record_and_wait(self, event: StepEvent, timeout_millis: int) -> DeliveryError | None:
        """Takes an event and waits until it is sent, refused, or not sent for now; that failure is returned.

        While the destination is failing already, the event is queued and nothing is waited for.
        """
        if self._pid != os.getpid():
            self.after_fork()
        deadline = _deadline(timeout_millis) if timeout_millis else None
        sender = self._sender
        failing, failures = sender.failing, sender.failures
        number = self._outbox.add(event)
        if self._outbox.refuse:
            return DeliveryError(f"the event was dropped: {self._outbox.refuse}")
        if not failing and self._start_worker():
            self._nudge(number)
            self._outbox.wait(lambda: not self._outbox.holds(number) or sender.failures != failures, deadline)
        if self._outbox.holds(number):
            return sender.error or DeliveryError(f"not sent within {timeout_millis} ms; it is tried again in the background")
        return sender.error if sender.failures != failures else None

    # Waiting, on the application's threads.

    def flush(self, timeout_millis: int) -> FlushResult:
        """Waits until all that was recorded before is sent or dropped, or the time is over."""
        self._drain(_deadline(timeout_millis), give_up_when_held=False)
        return self.stats()

    def shutdown(self, timeout_millis: int) -> None:
        """Sends what is left, within the time; what comes later is counted as dropped."""
        if self._closed:
            return
        deadline = _deadline(timeout_millis)
        if self._pid == os.getpid():
            self._drain(deadline, give_up_when_held=True)
        self._closed = True
        self._outbox.close("shutdown")
        self._signal.put(None)
        if not self._sender.busy:
            self._close_exporter()
        process.forget(self)

    def stats(self) -> Stats:
        """The counts of this moment."""
        return self._outbox.stats(self._sender.retries, self._sender.mask_failures)

    def take_error(self) -> DeliveryError | None:
        """The failure since the last call, if there was one."""
        error, self._sender.error = self._sender.error, None
        return error

    def _drain(self, deadline: float, *, give_up_when_held: bool) -> None:
        outbox = self._outbox
        outbox.admit()
        through = outbox.recorded
        if outbox.oldest > through:
            return

        def done() -> bool:
            return outbox.oldest > through or (give_up_when_held and self._sender.hold_until > deadline)

        if self._start_worker():
            self._nudge(through)
            outbox.wait(done, deadline)
        else:
            self._send_here(through, deadline)

    def _send_here(self, through: int, deadline: float) -> None:
        """Sends on the calling thread: at the interpreter's exit Python starts no more threads."""
        token = _suppress_instrumentation()
        try:
            while self._outbox.oldest <= through:
                remaining = int((deadline - time.monotonic()) * 1000)
                if remaining <= 0 or self._sender.hold_until > deadline:
                    return
                pause = self._sender.send(min(remaining, self._send_timeout_millis or remaining))
                if pause:
                    time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        finally:
            otel_context.detach(token)

    # The worker.

    def _start_worker(self) -> bool:
        """Starts the worker where there is none; False where no thread can be started."""
        if self._worker is not None and self._worker.is_alive():
            return True
        with self._starting:
            if self._worker is not None and self._worker.is_alive():
                return True
            worker = threading.Thread(target=self._run, name="failpath-delivery", daemon=True)
            try:
                worker.start()
            except RuntimeError:
                return False
            self._worker = worker
        process.finish_in_child()
        return True

    def _nudge(self, through: int) -> None:
        """Has the worker send everything up to this number without waiting for company or for the end of a backoff."""
        self._hurry_through = max(self._hurry_through, through)
        self._nudges += 1
        self._signal.put(None)

    def _run(self) -> None:
        _suppress_instrumentation()
        signal = self._signal
        try:
            while signal is self._signal:
                self._await_batch()
                if self._outbox.queued:
                    pause = self._send()
                    if pause:
                        self._back_off(pause)
                elif self._closed:
                    self._close_exporter()
                    return
        finally:
            self._wake_at = 1  # whatever ended the worker, the next event starts another

    def _send(self) -> float:
        try:
            return self._sender.send(self._send_timeout_millis)
        except Exception:
            warn_once("worker", "delivery failed in an unexpected way and goes on", exc_info=True)
            return _AFTER_A_FAULT_SECONDS

    def _await_batch(self) -> None:
        outbox = self._outbox
        outbox.admit()
        if not outbox.queued and not self._closed:
            self._sleep(1, None)
            outbox.admit()
        missing = self._max_batch_size - outbox.queued
        if missing > 0 and outbox.queued and not self._closed and outbox.oldest > self._hurry_through:
            self._sleep(missing, self._linger_seconds)
            outbox.admit()

    def _sleep(self, wake_at: int, seconds: float | None) -> None:
        nudges = self._nudges
        self._wake_at = wake_at
        # Looked at after wake_at is set, and set by others before they look at it: one of the two sees the other.
        if len(self._inbox) < wake_at and not self._closed and self._nudges == nudges:
            with contextlib.suppress(Empty):
                self._signal.get(timeout=seconds)
        self._wake_at = _NEVER

    def _back_off(self, seconds: float) -> None:
        """Waits before the next attempt. A flush cuts it short, unless the destination itself asked for the wait."""
        nudges = self._nudges
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0 and self._outbox.queued:
            if self._nudges != nudges and self._sender.hold_until < until - 0.001:
                return
            try:
                self._signal.get(timeout=remaining)
            except Empty:
                return

    def _close_exporter(self) -> None:
        with self._starting:
            if self._exporter_closed:
                return
            self._exporter_closed = True
        try:
            self._exporter.close()
        except Exception:
            warn_once("close", "the exporter's close() raised", exc_info=True)


def _deadline(timeout_millis: float) -> float:
    return time.monotonic() + timeout_millis / 1000


def _suppress_instrumentation() -> Token[otel_context.Context]:
    """Keeps our own requests out of the user's traces: both the key of today and the one that older instrumentations read."""
    context = otel_context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True)
    return otel_context.attach(otel_context.set_value("suppress_instrumentation", True, context))
