"""A server behind a bridge, within the process of the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from opentelemetry import context

from failpath_otel.errors import BatchRefusedError
from failpath_otel.events.step import StepEvent


class Behind:
    """An upstream within this process. ``gate`` holds its answers, ``fault`` is what they are."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.refused: set[str] = set()
        self.calls: list[list[str]] = []
        self.sizes: list[int] = []
        self.taken: set[str] = set()
        self.suppressed: set[object] = set()
        self.called = threading.Semaphore(0)
        self.closed = threading.Semaphore(0)

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        names = [one.event_id for one in batch]
        self.calls.append(names)
        self.sizes.append(sum(len(str(one.metadata)) for one in batch))
        # The key is OpenTelemetry's; its SDK and instrumentations have no other way to ask either.
        self.suppressed.add(context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY))
        self.called.release()
        assert self.gate.wait(120)
        if self.fault is not None:
            raise self.fault
        if self.refused & set(names):
            raise BatchRefusedError("bad")
        self.taken.update(names)

    def probe(self, *, timeout_millis: int) -> None:
        if self.fault is not None:
            raise self.fault

    def close(self) -> None:
        self.closed.release()

    async def until_called(self, times: int = 1) -> None:
        for _ in range(times):
            assert await asyncio.to_thread(self.called.acquire, timeout=30)
