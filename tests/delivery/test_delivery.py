"""Batches, flush, failures and callbacks, with an exporter that does as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.delivery import OwnBase, ScriptedExporter, event, growth, sooner_than, until, until_others_rest

from failpath_otel.delivery import Delivery
from failpath_otel.errors import ExportError, RejectedError, RetryableError, UnauthorizedError
from failpath_otel.events.step import StepEvent

Deliver = Callable[..., Delivery]
Workers = list[threading.Thread]


def record(delivery: Delivery, *numbers: int) -> None:
    for number in numbers:
        delivery.record(event(number))


def test_there_is_no_thread_before_the_first_event(deliver: Deliver, workers: Workers) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter)
    delivery.flush(100)
    assert workers == []
    record(delivery, 1)
    assert delivery.flush(10_000)
    assert len(workers) == 1
    assert exporter.threads == {"failpath-delivery"}


def test_batches_are_bounded_and_keep_the_order(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter, max_batch_size=10, linger_millis=60_000)
    record(delivery, *range(1, 96))
    assert delivery.flush(10_000)
    assert exporter.numbers == list(range(1, 96))
    assert max(map(len, exporter.batches)) == 10
    assert len(exporter.batches) <= 11


def test_an_event_waits_for_company_no_longer_than_it_should(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter, linger_millis=1000)
    record(delivery, 1)
    assert delivery.flush(20_000)
    until_others_rest()
    record(delivery, 2, 3)
    until(lambda: exporter.numbers == [1, 2, 3])
    assert len(exporter.batches) == 2


def test_a_full_batch_does_not_wait_for_company(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter, max_batch_size=5, linger_millis=600_000)
    record(delivery, *range(1, 6))
    until(lambda: exporter.numbers == [1, 2, 3, 4, 5])


def test_flush_does_not_wait_for_company(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter, linger_millis=600_000)
    for number in (1, 2, 3):
        record(delivery, number)
        assert delivery.flush(20_000)
    assert exporter.numbers == [1, 2, 3]


def test_flush_waits_for_what_was_recorded_before_and_not_for_what_comes_after(deliver: Deliver) -> None:
    """Each batch that is sent brings another event, so that there is always one that waits; flush returns all the same."""
    flushed = threading.Event()

    class Endless(ScriptedExporter):
        def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
            super().export(batch, timeout_millis=timeout_millis)
            if not flushed.is_set():
                record(delivery, 1000 + len(self.batches))

    exporter = Endless()
    delivery = deliver(exporter, max_batch_size=50)
    record(delivery, 1, 2, 3)
    with sooner_than(30):
        assert delivery.flush(60_000).pending > 0
    flushed.set()
    assert {1, 2, 3} <= set(exporter.numbers)


def test_flush_waits_for_a_batch_in_flight(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    delivery = deliver(exporter)
    record(delivery, 1)
    assert exporter.entered.wait(10)
    assert not delivery.flush(1)
    with ThreadPoolExecutor(1) as pool:
        flushing = pool.submit(delivery.flush, 60_000)
        assert not flushing.done()
        exporter.gate.set()
        assert flushing.result(30)
    assert exporter.numbers == [1]


@pytest.mark.parametrize("timeout_millis", [-5, 0, 0.5, 1, 150])
@pytest.mark.parametrize("method", ["flush", "shutdown"])
def test_waiting_ends_at_its_deadline_while_the_exporter_hangs(deliver: Deliver, method: str, timeout_millis: float) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    delivery = deliver(exporter)
    record(delivery, 1, 2)
    getattr(delivery, method)(timeout_millis)
    assert exporter.batches == [], "the exporter's end was waited for, a minute later"
    stats = delivery.stats()
    assert (stats.pending, stats.dropped) == ((2, {}) if method == "flush" else (0, {"shutdown": 2}))


@pytest.mark.parametrize("timeout_millis", [10**18, float("inf")])
def test_an_endless_timeout_is_taken(deliver: Deliver, timeout_millis: float) -> None:
    delivery = deliver(ScriptedExporter())
    record(delivery, 1)
    assert delivery.flush(timeout_millis)  # type: ignore[arg-type]


def test_what_is_sent_after_shutdown_gave_it_up_is_not_counted_twice(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    delivery = deliver(exporter)
    record(delivery, 1, 2)
    assert exporter.entered.wait(10)
    delivery.shutdown(10)
    record(delivery, 3)
    exporter.gate.set()
    until(lambda: exporter.closed)
    stats = delivery.stats()
    assert (stats.sent, stats.pending, stats.dropped) == (0, 0, {"shutdown": 3})


def test_shutdown_sends_what_is_left_and_closes_the_exporter_once(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter, linger_millis=600_000)
    record(delivery, *range(1, 2001))
    delivery.shutdown(20_000)
    assert exporter.numbers == list(range(1, 2001))
    assert exporter.closed == 1
    delivery.shutdown(20_000)
    assert exporter.closed == 1
    assert delivery.closed


def test_shutdown_without_an_event_closes_the_exporter(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    deliver(exporter).shutdown(100)
    assert exporter.closed == 1


def test_after_shutdown_events_are_counted_and_no_thread_is_started(deliver: Deliver, workers: Workers) -> None:
    delivery = deliver(ScriptedExporter())
    record(delivery, 1)
    delivery.shutdown(20_000)
    (worker,) = workers
    until(lambda: not worker.is_alive())
    record(delivery, *range(2, 50))
    assert workers == [worker]
    assert delivery.stats().dropped == {"shutdown": 48}
    assert delivery.flush(1000)


def test_close_that_hangs_does_not_hold_shutdown_up(deliver: Deliver) -> None:
    released = threading.Event()

    class Hanging(ScriptedExporter):
        def close(self) -> None:
            released.wait(60)
            super().close()

    exporter = Hanging()
    delivery = deliver(exporter)
    record(delivery, 1)
    delivery.shutdown(200)
    assert not exporter.closed
    released.set()
    until(lambda: exporter.closed)


def test_close_that_raises_does_no_harm(deliver: Deliver) -> None:
    class Broken(ScriptedExporter):
        def close(self) -> None:
            raise RuntimeError("close")

    deliver(Broken()).shutdown(100)


# Failures


def test_a_retryable_failure_holds_the_batch_and_tries_again(deliver: Deliver) -> None:
    exporter = ScriptedExporter(RetryableError("a"), RetryableError("b"))
    delivery = deliver(exporter)
    record(delivery, 1, 2)
    until(lambda: exporter.numbers == [1, 2])
    until(lambda: delivery.stats().pending == 0)
    stats = delivery.stats()
    assert (stats.sent, stats.retries, stats.dropped) == (2, 2, {})
    assert exporter.calls[2] - exporter.calls[1] >= 0.24  # the second wait is 0.25 to 0.5 s


def test_order_is_kept_across_failures(deliver: Deliver) -> None:
    exporter = ScriptedExporter(*[RetryableError("down")] * 2)
    delivery = deliver(exporter, max_batch_size=7)
    record(delivery, *range(1, 100))
    until(lambda: len(exporter.numbers) == 99)
    assert exporter.numbers == list(range(1, 100))


def test_flush_cuts_a_backoff_short(deliver: Deliver) -> None:
    exporter = ScriptedExporter(*[RetryableError("down")] * 10)  # ten waits, which take at least 28 s by themselves
    delivery = deliver(exporter)
    record(delivery, 1)
    until(lambda: delivery.flush(20), 20)
    assert delivery.stats().retries == 10


def test_flush_does_not_cut_short_what_the_destination_asked_for(deliver: Deliver) -> None:
    exporter = ScriptedExporter(RetryableError("busy", retry_after=2))
    delivery = deliver(exporter)
    record(delivery, 1)
    until(delivery.take_error)
    for _ in range(5):
        delivery.flush(10)
    assert len(exporter.calls) == 1
    assert delivery.flush(20_000)
    assert exporter.calls[1] - exporter.calls[0] >= 1.99


@pytest.mark.parametrize("retry_after", [0, 0.0, -3, float("nan"), 1e-9, "5", None])
def test_a_retry_after_that_says_nothing_leaves_it_to_the_backoff(deliver: Deliver, retry_after: Any) -> None:
    """A server that answers 503 with Retry-After: 0 is not called without a pause."""
    exporter = ScriptedExporter(*[RetryableError("busy", retry_after=retry_after)] * 3)
    delivery = deliver(exporter)
    record(delivery, 1)
    until(lambda: exporter.numbers == [1])
    gaps = [later - earlier for earlier, later in zip(exporter.calls, exporter.calls[1:], strict=False)]
    assert all(gap >= 0.12 for gap in gaps), gaps


def test_shutdown_does_not_wait_for_a_destination_that_asked_for_longer(deliver: Deliver) -> None:
    exporter = ScriptedExporter(RetryableError("busy", retry_after=1000))
    delivery = deliver(exporter)
    record(delivery, 1)
    until(delivery.take_error)
    with sooner_than(30):
        delivery.shutdown(60_000)
    assert delivery.stats().dropped == {"shutdown": 1}
    assert exporter.closed == 1


def test_rejected_events_are_counted_and_the_others_are_sent(deliver: Deliver) -> None:
    exporter = ScriptedExporter(RejectedError({event(2).event_id: "too odd", "unknown": "?"}))
    dropped: list[tuple[StepEvent, str]] = []
    delivery = deliver(exporter, on_drop=lambda event, reason: dropped.append((event, reason)), linger_millis=100)
    record(delivery, 1, 2, 3)
    stats = delivery.flush(20_000)
    assert (stats.sent, stats.dropped) == (2, {"rejected": 1})
    until(lambda: dropped == [(event(2), "rejected")])


@pytest.mark.parametrize("failure", [ExportError("400"), ValueError("odd"), KeyError()])
def test_any_other_failure_drops_the_batch_and_goes_on(deliver: Deliver, failure: Exception) -> None:
    exporter = ScriptedExporter(failure)
    delivery = deliver(exporter)
    record(delivery, 1)
    assert delivery.flush(20_000).dropped == {"rejected": 1}
    record(delivery, 2)
    assert delivery.flush(20_000).sent == 1


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("str")


@pytest.mark.parametrize("failure", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), OwnBase("x"), Unspeakable()])
def test_the_worker_survives_whatever_an_exporter_raises(deliver: Deliver, failure: BaseException, workers: Workers) -> None:
    exporter = ScriptedExporter(failure)
    errors: list[Exception] = []
    delivery = deliver(exporter, on_error=errors.append)
    record(delivery, 1)
    assert delivery.flush(20_000).dropped == {"rejected": 1}
    record(delivery, 2)
    assert delivery.flush(20_000).sent == 1
    assert [worker.is_alive() for worker in workers] == [True]
    assert len(errors) == 1
    assert isinstance(errors[0], Exception)


def test_an_unauthorized_key_stops_sending_with_one_warning(deliver: Deliver, caplog: pytest.LogCaptureFixture) -> None:
    exporter = ScriptedExporter(UnauthorizedError("401"), UnauthorizedError("401"))
    delivery = deliver(exporter)
    record(delivery, 1, 2)
    assert delivery.flush(20_000).dropped == {"unauthorized": 2}
    record(delivery, 3)
    stats = delivery.flush(20_000)
    assert stats.dropped == {"unauthorized": 3}
    assert len(exporter.calls) == 1
    assert sum("sending stops" in message for message in caplog.messages) == 1


# Bounds


def test_a_queue_of_one_delivers_outcomes(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    delivery = deliver(exporter, max_queue_size=1)
    record(delivery, 1)
    assert exporter.entered.wait(10)
    delivery.record(event(2, "running"))
    record(delivery, 3)
    assert delivery.stats().dropped == {"queue_full": 2}
    exporter.gate.set()
    assert delivery.flush(20_000)
    record(delivery, 4)
    assert delivery.flush(20_000).sent == 2
    assert exporter.numbers == [1, 4]


def test_memory_stays_bounded_while_nothing_can_be_sent(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    dropped = 0

    def on_drop(event: StepEvent, reason: str) -> None:
        nonlocal dropped
        dropped += 1

    delivery = deliver(exporter, max_queue_size=100, on_drop=on_drop)
    record(delivery, 1)
    assert exporter.entered.wait(20)  # from here on the worker hangs, and all that is dropped is dropped while it is recorded
    recorded = most = 1

    def record_many() -> None:
        nonlocal recorded, most
        for _ in range(20_000):
            recorded += 1
            delivery.record(event(recorded, "running" if recorded % 2 else "success"))
            most = max(most, recorded - dropped)

    assert growth(record_many) < 50_000
    assert most <= 101
    stats = delivery.stats()
    assert (stats.pending, stats.recorded) == (100, 40_001)


def test_refused_events_start_no_thread(deliver: Deliver, workers: Workers) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter, refuse="no_project_key")
    record(delivery, 1, 2)
    assert delivery.flush(1000).dropped == {"no_project_key": 2}
    assert workers == []
    assert exporter.calls == []


def test_exporters_get_the_send_timeout(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    delivery = deliver(exporter, send_timeout_millis=0)
    record(delivery, 1)
    assert delivery.flush(20_000)
    assert exporter.timeouts == [0]


def test_counts_of_any_moment_add_up(deliver: Deliver) -> None:
    """While four threads record and the exporter fails now and then."""

    def sometimes(batch: Sequence[StepEvent]) -> None:
        raise RejectedError({batch[0].event_id: "no"})

    exporter = ScriptedExporter(*[None, sometimes] * 50)
    delivery = deliver(exporter, max_queue_size=50, max_batch_size=10, linger_millis=0)
    threads = [threading.Thread(target=record, args=(delivery, *range(n * 10_000, n * 10_000 + 500))) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = delivery.flush(20_000)
    assert stats.recorded == 2000
    assert stats
    assert len(exporter.events) + stats.dropped.get("rejected", 0) <= 2000
    assert exporter.overlaps == 0
