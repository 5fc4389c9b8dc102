"""An exporter of one's own, in a dozen lines."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Sequence

import pytest
from support.delivery import until

from failpath_otel import FailpathClient, RejectedError, RetryableError, StepEvent
from failpath_otel.exporters import EventExporter

Client = Callable[..., FailpathClient]


class QueueExporter:
    """Puts events into a queue of bounded size; what finds no room is tried again."""

    def __init__(self, target: queue.Queue[StepEvent]) -> None:
        self.target = target

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        if self.target.qsize() + len(batch) > self.target.maxsize:
            raise RetryableError("the queue is full", retry_after=0.1)
        for event in batch:
            self.target.put(event)

    def close(self) -> None:
        pass


def test_a_dozen_lines_make_an_exporter(client: Client) -> None:
    target: queue.Queue[StepEvent] = queue.Queue(maxsize=10)
    exporter = QueueExporter(target)
    assert isinstance(exporter, EventExporter)
    failpath = client(exporter=exporter)
    for _ in range(5):
        failpath.run("checkout", "r1").step("pay", lambda: None)
    assert failpath.flush().sent == 10
    failpath.run("checkout", "r2").step("pay", lambda: None)
    assert not failpath.flush(200)
    while not target.empty():
        target.get()
    until(lambda: target.qsize() == 2)
    assert failpath.flush().sent == 12
    assert failpath.stats().retries >= 1


def test_it_may_reject_single_events(client: Client) -> None:
    class Picky(QueueExporter):
        def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
            raise RejectedError({event.event_id: "running" for event in batch if event.status == "running"})

    failpath = client(exporter=Picky(queue.Queue()))
    failpath.run("checkout", "r1").step("pay", lambda: None)
    result = failpath.flush()
    assert (result.sent, result.dropped) == (1, {"rejected": 1})


def test_it_may_use_an_event_loop_of_its_own(client: Client) -> None:
    seen: list[StepEvent] = []

    class Asynchronous(QueueExporter):
        def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
            async def send() -> None:
                await asyncio.sleep(0)
                seen.extend(batch)

            asyncio.run(asyncio.wait_for(send(), timeout_millis / 1000))

    failpath = client(exporter=Asynchronous(queue.Queue()))
    failpath.run("checkout", "r1").step("pay", lambda: None)
    assert failpath.flush()
    assert len(seen) == 2


@pytest.mark.parametrize("method", ["export", "close"])
def test_an_exporter_without_both_methods_is_refused(method: str) -> None:
    half = type("Half", (), {method: lambda *args, **kwargs: None})()
    with pytest.raises(ValueError, match=r"exporter must be one of .* export\(\) and close\(\)"):
        FailpathClient(exporter=half, flows=False)
