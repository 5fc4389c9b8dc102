"""10,000 steps through a server that is down, then overloaded, then cuts connections, then works.

``benchmarks/bench_outage.py`` is the same with 10 s a phase, before the real server, and with figures.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sized

import pytest
from support.http_sink import HttpSink, Request, always, reset

from failpath_otel import FailpathClient, StepEvent

Client = Callable[..., FailpathClient]
STEPS = 10_000
PHASES = 4


def reset_after_storing(sink: HttpSink) -> Callable[[Request, socket.socket], None]:
    """Every second request is stored before its connection is cut, the first too, so that its events come again."""
    seen = 0

    def answer(request: Request, connection: socket.socket) -> None:
        nonlocal seen
        seen += 1
        if seen % 2:
            sink.store(request)
        reset(request, connection)

    return answer


@pytest.mark.parametrize("delivery", ["background", "await"])
def test_every_event_is_stored_exactly_once(sink: HttpSink, client: Client, delivery: str) -> None:
    failures: list[Exception] = []
    failpath = client(endpoint=sink.url, delivery=delivery, on_error=failures.append)
    run = failpath.run("checkout", "r1")
    numbers = iter(range(STEPS))
    most_queued = 0

    def record_until(seen: Sized, times: int) -> None:
        """A quarter of the steps, while the server is as it is; it stays so until that has been seen so many times more."""
        nonlocal most_queued
        enough = len(seen) + times
        for _ in range(STEPS // PHASES):
            number = next(numbers)
            run.step(f"step-{number}", lambda: None)
            if number % 100 == 0:
                most_queued = max(most_queued, failpath.stats().pending)
        while len(seen) < enough:
            failpath.flush(20)  # which ends a backoff

    sink.stop()
    record_until(failures, 2)
    sink.answer = always(503, b'{"title": "busy"}', Retry_After="1")
    sink.start()
    record_until(sink.requests, 1)
    sink.answer = reset_after_storing(sink)
    record_until(sink.requests, 2)
    sink.answer = None
    record_until((), 0)
    result = failpath.flush(60_000)
    assert (result.sent, result.pending, result.dropped) == (2 * STEPS, 0, {})
    assert len(sink.stored) == 2 * STEPS
    assert 0 < most_queued <= 2 * STEPS
    assert failpath.stats().retries > 0
    statuses = [event["status"] for event in sink.events]
    assert statuses.count("running") == statuses.count("success") == STEPS
    assert max(sink.arrivals.values()) > 1


def test_with_a_small_queue_outcomes_survive_and_every_event_is_accounted_for(sink: HttpSink, client: Client) -> None:
    # What is in flight counts and cannot be taken back: the queue is to fill up while nothing is, in the pause asked for. That
    # is long for what takes a tenth of a second.
    sink.answer = always(503, Retry_After="3")
    failed = threading.Event()
    dropped: list[StepEvent] = []
    failpath = client(
        endpoint=sink.url,
        max_queue_size=1000,
        on_drop=lambda event, reason: dropped.append(event),
        on_error=lambda error: failed.set(),
    )
    run = failpath.run("checkout", "r1")
    run.step("step-0", lambda: None)
    assert failed.wait(20)
    for number in range(1, 900):
        run.step(f"step-{number}", lambda: None)
    sink.answer = None
    result = failpath.flush(60_000)
    assert result.recorded == 1800
    assert result.sent == len(sink.stored) == 1000
    assert result.dropped == {"superseded": 800}
    assert len(dropped) == 800
    assert {event.status for event in dropped} == {"running"}
    assert len({event.event_id for event in dropped} | sink.stored.keys()) == 1800, "each event was sent or told as dropped"
    outcomes = [event for event in sink.events if event["status"] == "success"]
    assert len(outcomes) == 900
    assert all("startedAt" in event for event in outcomes)
