"""Lost wake-ups, busy loops, signal handlers, finalizers, and what interrupts the machinery half-way."""

from __future__ import annotations

import gc
import hashlib
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from support.delivery import (
    ScriptedExporter,
    event,
    interrupted_in,
    no_thread,
    sooner_than,
    spent_by_others,
    until,
    until_others_rest,
)

from failpath_otel.delivery import Delivery
from failpath_otel.delivery import worker as worker_module
from failpath_otel.delivery.queue import EventQueue
from failpath_otel.errors import RetryableError

Deliver = Callable[..., Delivery]

needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")


@pytest.fixture
def without_a_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker does not look by itself, so that a lost wake-up stays lost."""
    # No option sets it, for no service has a use for one.
    monkeypatch.setattr(worker_module, "_IDLE_SECONDS", 3600.0)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("without_a_net", "hasty")
def test_no_wake_up_is_lost_between_thousands_of_tiny_bursts(deliver: Deliver) -> None:
    """Each burst is sent without flush, whatever the worker was doing when it came."""
    exporter = ScriptedExporter()
    delivery = deliver(exporter, max_batch_size=4, linger_millis=0)
    chosen = random.Random(7)
    recorded = 0
    for burst in range(3000):
        size = burst % 5 + 1
        for _ in range(size):
            recorded += 1
            delivery.record(event(recorded))
        if burst % 10 == 0:
            exporter.wait_for(recorded)
        elif burst % 3 == 0:
            exporter.wait_for(recorded - chosen.randrange(size + 1))  # the next burst meets the worker anywhere
    exporter.wait_for(recorded)
    assert exporter.numbers == list(range(1, recorded + 1))


@pytest.mark.usefixtures("without_a_net", "hasty")
def test_no_wake_up_is_lost_among_many_threads(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter, max_batch_size=3, linger_millis=1)

    def burst(base: int) -> None:
        for number in range(200):
            before = exporter.taken
            delivery.record(event(base + number))
            if number % 7 == 0:
                exporter.wait_for(before + 1)

    for round_ in range(5):
        threads = [threading.Thread(target=burst, args=(round_ * 10_000 + n * 1000,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        exporter.wait_for((round_ + 1) * 800)
    assert len(exporter.events) == 5 * 800


class Alarm(Exception):
    """What a signal handler raises."""


def record_but_raise(delivery: Delivery, number: int, at_line: int) -> bool:
    """Whether recording was interrupted, at the line of that number that it comes to."""
    left = at_line

    def trace(frame: FrameType, what: str, argument: object) -> object:
        nonlocal left
        if frame.f_code is not Delivery.record.__code__:
            return None
        if what == "line":
            left -= 1
            if left == 0:
                raise Alarm
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        delivery.record(event(number))
    except Alarm:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_wake_up_that_was_cut_off_is_made_good(deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by an alarm whose handler raises between a record and its signal; here at each of the lines of recording."""
    monkeypatch.setattr(worker_module, "_IDLE_SECONDS", 0.05)  # as above
    cut = recorded = 0
    interrupted = True
    while interrupted:
        cut += 1
        exporter = ScriptedExporter()
        delivery = deliver(exporter, linger_millis=0)
        delivery.record(event(1))
        assert delivery.flush(20_000)
        until_others_rest()
        interrupted = record_but_raise(delivery, 2, cut)
        if delivery.stats().recorded == 2:
            recorded += 1
            exporter.wait_for(2)
    assert cut > 5
    assert recorded > 2


def test_a_start_of_the_worker_that_was_cut_off_is_made_up_for_by_the_next_event(deliver: Deliver) -> None:
    """The first event of all is the one that starts it; whatever becomes of that one, the later ones are sent."""
    cut = 0
    interrupted = True
    while interrupted:
        cut += 1
        exporter = ScriptedExporter()
        delivery = deliver(exporter, linger_millis=0)
        interrupted = record_but_raise(delivery, 1, cut)
        delivery.record(event(2))
        until(lambda: 2 in exporter.numbers)  # noqa: B023 - called at once
    assert cut > 5


@pytest.mark.parametrize("state", ["idle", "backoff", "held"])
def test_waiting_takes_no_processor_time(deliver: Deliver, state: str) -> None:
    retry_after = 600.0 if state == "held" else None
    failures = [] if state == "idle" else [RetryableError("down", retry_after=retry_after)] * 20
    exporter = ScriptedExporter(*failures)
    delivery = deliver(exporter)
    delivery.record(event(1))
    if state == "backoff":
        until(lambda: delivery.flush(20) or len(exporter.calls) >= 7)  # from here on the worker waits for 5 to 10 s
    until(delivery.take_error if failures else lambda: delivery.stats().sent == 1)
    # Measured by what this thread takes itself, not by the clock, so that a busy machine changes nothing. To hash much data at
    # once leaves the interpreter to the other threads.
    block = bytes(1 << 20)
    before, start = spent_by_others(), time.thread_time()
    while time.thread_time() - start < 0.5:
        hashlib.sha256(block)
    assert spent_by_others() - before < 0.05


@pytest.mark.usefixtures("hasty")
@needs_signals
def test_a_signal_handler_may_record_flush_and_count_at_any_moment(deliver: Deliver) -> None:
    """While the main thread is inside delivery, most often with the queue full; nothing deadlocks, nothing is lost."""
    exporter = ScriptedExporter()
    delivery = deliver(exporter, max_queue_size=20, max_batch_size=5, linger_millis=0)
    handled = 0

    def handler(number: int, frame: object) -> None:
        nonlocal handled
        handled += 1
        delivery.record(event(1_000_000 + handled))
        if handled % 5 == 0:
            delivery.flush(1)
        delivery.stats()

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    recorded = 0
    try:
        while handled < 2000:
            for _ in range(50):
                recorded += 1
                delivery.record(event(recorded))
            delivery.stats()
            if recorded % 1000 == 0:
                delivery.flush(5)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    stats = delivery.flush(30_000)
    assert stats.pending == 0
    assert stats.recorded == recorded + handled
    assert len(exporter.events) == len({e.event_id for e in exporter.events}) == stats.sent


@needs_signals
def test_a_signal_handler_may_raise_at_any_moment(deliver: Deliver) -> None:
    """As alarms used for timeouts do. What was recorded is told at least once, and delivery goes on."""

    class Alarm(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Alarm

    exporter = ScriptedExporter()
    delivery = deliver(exporter, max_queue_size=1000, max_batch_size=50, linger_millis=0)
    before = signal.signal(signal.SIGALRM, handler)
    # The worker runs already: an alarm within Thread.start is more than Python itself can bear.
    delivery.record(event(1))
    assert delivery.flush(20_000)
    completed = [1]
    number, alarms = 1, 0

    def record_until_the_alarm() -> None:
        nonlocal number
        signal.setitimer(signal.ITIMER_REAL, random.Random(number).random() * 0.003 + 1e-5)
        for _ in range(20_000):  # and on to the end of these, should the alarm be raised where nobody minds
            number += 1
            delivery.record(event(number))
            completed.append(number)
            if number % 100 == 0:
                delivery.flush(1)
        signal.setitimer(signal.ITIMER_REAL, 0)

    # An alarm in a callback of the collector (Hypothesis has one) could be raised to nobody.
    gc.disable()
    try:
        while alarms < 1000:
            try:
                record_until_the_alarm()
            except Alarm:
                alarms += 1
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, before)
    delivery.record(event(number + 1))
    completed.append(number + 1)
    stats = delivery.flush(30_000)
    assert stats.pending == 0
    assert stats.recorded >= len(set(completed))
    if not stats.dropped:
        assert set(completed) <= set(exporter.numbers)


def test_a_finalizer_may_record_at_any_moment(deliver: Deliver) -> None:
    """Garbage is collected in the middle of delivery's own work, and finalizers run there."""
    exporter = ScriptedExporter()
    delivery = deliver(exporter, max_queue_size=30, max_batch_size=10, linger_millis=0)
    finalized = 0

    class Cyclic:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            nonlocal finalized
            finalized += 1
            delivery.record(event(1_000_000 + finalized))
            delivery.stats()

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        for number in range(1, 3000):
            Cyclic()
            delivery.record(event(number))
            if number % 50 == 0:
                delivery.flush(50)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    stats = delivery.flush(30_000)
    assert finalized == 2999
    assert stats.pending == 0
    assert stats.recorded == 2999 * 2


def test_recording_while_this_thread_holds_the_lock_does_not_wait(deliver: Deliver) -> None:
    """A handler that interrupts the holder of the lock: what it cannot do there, it leaves to others."""
    exporter = ScriptedExporter()
    delivery = deliver(exporter, max_queue_size=2)

    def handler() -> None:
        for number in range(1, 5):
            delivery.record(event(number))
        delivery.flush(60_000)
        delivery.stats()
        delivery.shutdown(60_000)

    with sooner_than(30), interrupted_in(EventQueue.add_from, handler):
        delivery.stats()
    stats = delivery.flush(20_000)
    assert stats.recorded == 4
    assert stats.pending == 0


@pytest.mark.usefixtures("without_a_net")
def test_a_thread_that_cannot_be_started_now_is_started_later(deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is flushed in between is sent from the calling thread."""
    exporter = ScriptedExporter(RetryableError("once"))
    delivery = deliver(exporter)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        delivery.record(event(1))
        assert delivery.flush(20_000).sent == 1
        assert exporter.threads == {threading.current_thread().name}
        assert delivery.record_and_wait(event(2), 20_000) is None
        assert exporter.numbers == [1, 2]
        delivery.record(event(3))
    delivery.record(event(4))
    until(lambda: exporter.numbers == [1, 2, 3, 4])


def test_sending_from_the_calling_thread_holds_to_deadlines_and_to_retry_after(
    deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    exporter = ScriptedExporter(RetryableError("busy", retry_after=0.3), RetryableError("busy", retry_after=600))
    delivery = deliver(exporter)
    delivery.record(event(1))
    with sooner_than(30):
        assert not delivery.flush(60_000)
        assert len(exporter.calls) == 2
        assert exporter.calls[1] - exporter.calls[0] >= 0.29
        delivery.flush(60_000)
        assert len(exporter.calls) == 2
        delivery.shutdown(60_000)
    assert exporter.closed == 1


@needs_signals
def test_keyboard_interrupt_while_sending_from_the_calling_thread_passes(
    deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its batch is kept."""
    exporter = ScriptedExporter(KeyboardInterrupt())
    delivery = deliver(exporter)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        delivery.record(event(1))
        with pytest.raises(KeyboardInterrupt):
            delivery.flush(5_000)
        assert delivery.stats().pending == 1
    assert delivery.flush(20_000).sent == 1


@needs_signals
def test_keyboard_interrupt_in_flush_leaves_delivery_alive(deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    delivery = deliver(exporter)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)  # so that the exporter is called by reason of the flush alone
        delivery.record(event(1))
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        if exporter.entered.wait(20):
            until_others_rest()
            signal.pthread_kill(main, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        delivery.flush(60_000)
    interrupting.join()
    exporter.gate.set()
    delivery.record(event(2))
    assert delivery.flush(20_000).sent == 2
