"""Lost wake-ups, busy loops, signal handlers, finalizers, and what interrupts the machinery half-way."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support.delivery import ScriptedExporter, event, until

from failpath_otel.delivery import Delivery
from failpath_otel.delivery import worker as worker_module
from failpath_otel.errors import RetryableError

Deliver = Callable[..., Delivery]

needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")


@pytest.fixture
def without_a_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker does not look by itself, so that a lost wake-up stays lost."""
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
    pause = random.Random(7)
    recorded = 0
    for burst in range(3000):
        size = burst % 5 + 1
        for _ in range(size):
            recorded += 1
            delivery.record(event(recorded))
        if burst % 10 == 0:
            expected = recorded
            until(lambda: delivery._sender is not None and len(exporter.events) >= expected)  # noqa: B023
        elif burst % 3 == 0:
            time.sleep(pause.random() * 0.0005)
    until(lambda: len(exporter.events) == recorded)
    assert exporter.numbers == list(range(1, recorded + 1))


@pytest.mark.usefixtures("without_a_net", "hasty")
def test_no_wake_up_is_lost_among_many_threads(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter, max_batch_size=3, linger_millis=1)

    def burst(base: int) -> None:
        for number in range(200):
            delivery.record(event(base + number))
            if number % 7 == 0:
                time.sleep(0.0002)

    for round_ in range(5):
        threads = [threading.Thread(target=burst, args=(round_ * 10_000 + n * 1000,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = (round_ + 1) * 800
        until(lambda: len(exporter.events) == expected)  # noqa: B023


def test_a_wake_up_that_was_cut_off_is_made_good(deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by an alarm whose handler raises between a record and its signal."""
    monkeypatch.setattr(worker_module, "_IDLE_SECONDS", 0.05)
    exporter = ScriptedExporter()
    delivery = deliver(exporter)
    delivery.record(event(1))
    until(lambda: exporter.numbers == [1])
    until(lambda: delivery._wake_at == 1)
    delivery._wake_at = 1 << 62
    delivery.record(event(2))
    until(lambda: exporter.numbers == [1, 2])


@pytest.mark.parametrize("state", ["idle", "backoff", "held"])
def test_waiting_takes_no_processor_time(deliver: Deliver, state: str) -> None:
    retry_after = 30.0 if state == "held" else None
    failures = [] if state == "idle" else [RetryableError("down", retry_after=retry_after)]
    delivery = deliver(ScriptedExporter(*failures))
    delivery._sender._attempts = 16  # a backoff of 5 to 10 s
    delivery.record(event(1))
    until(lambda: delivery._sender.failing if failures else delivery.stats().sent == 1)
    before = time.process_time()
    time.sleep(1.0)
    assert time.process_time() - before < 0.1


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
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
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
    assert handled > 100
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
    completed: list[int] = []
    number = alarms = 0
    deadline = time.monotonic() + 3

    def record_until_the_alarm() -> None:
        nonlocal number
        signal.setitimer(signal.ITIMER_REAL, random.Random(number).random() * 0.003 + 1e-5)
        while time.monotonic() < deadline:
            number += 1
            delivery.record(event(number))
            completed.append(number)
            if number % 100 == 0:
                delivery.flush(1)
        signal.setitimer(signal.ITIMER_REAL, 0)

    # An alarm in a callback of the collector (Hypothesis has one) could be raised to nobody.
    gc.disable()
    try:
        while time.monotonic() < deadline:
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
    assert alarms > 50
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
    with delivery._outbox._lock:
        for number in range(1, 5):
            delivery.record(event(number))
        delivery.flush(60_000)
        delivery.stats()
        delivery.shutdown(60_000)
    stats = delivery.flush(20_000)
    assert stats.recorded == 4
    assert stats.pending == 0


@pytest.mark.usefixtures("without_a_net")
def test_a_thread_that_cannot_be_started_now_is_started_later(deliver: Deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is flushed in between is sent from the calling thread."""

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

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
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    exporter = ScriptedExporter(RetryableError("busy", retry_after=0.3), RetryableError("busy", retry_after=60))
    delivery = deliver(exporter)
    delivery.record(event(1))
    started = time.monotonic()
    assert not delivery.flush(5_000)
    assert 0.29 < time.monotonic() - started < 3
    assert len(exporter.calls) == 2
    delivery.flush(5_000)
    assert len(exporter.calls) == 2
    delivery.shutdown(5_000)
    assert exporter.closed == 1


@needs_signals
def test_keyboard_interrupt_while_sending_from_the_calling_thread_passes(
    deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its batch is kept."""

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

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
def test_keyboard_interrupt_in_flush_leaves_delivery_alive(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    delivery = deliver(exporter)
    delivery.record(event(1))
    threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        delivery.flush(20_000)
    exporter.gate.set()
    delivery.record(event(2))
    assert delivery.flush(20_000).sent == 2
