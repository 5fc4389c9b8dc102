"""What tests of delivery share: events, an exporter that does as it is told, waiting for conditions."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from failpath_otel.events.step import Status, StepError, StepEvent

OUTCOMES: tuple[Status, ...] = ("success", "error", "skipped")


def event(number: int = 1, status: Status = "success", **fields: object) -> StepEvent:
    """An event of the attempt with this number."""
    trace_id, span_id = f"{1:032x}", f"{number:016x}"
    values: dict[str, object] = {
        "event_id": f"{trace_id}-{span_id}-{'start' if status == 'running' else 'end'}",
        "flow_key": "checkout",
        "run_id": "r1",
        "step_key": f"step-{number}",
        "status": status,
        "timestamp": 1_700_000_000_000_000_000 + number,
        "trace_id": trace_id,
        "span_id": span_id,
        "error": StepError("Declined", "no") if status == "error" else None,
    }
    return StepEvent(**{**values, **fields})  # type: ignore[arg-type]


class ScriptedExporter:
    """Raises the given failures in turn, then takes every batch. ``gate`` closed, it holds whoever calls it.

    A failure may be an exception, or a function that is called with the batch.
    """

    def __init__(self, *failures: BaseException | Callable[[Sequence[StepEvent]], object] | None) -> None:
        self.failures = list(failures)
        self.batches: list[list[StepEvent]] = []
        self.calls: list[float] = []
        self.timeouts: list[int] = []
        self.threads: set[str] = set()
        self.closed = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.overlaps = 0
        self._inside = 0
        self._taken = 0
        self._changed = threading.Condition()

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        self._inside += 1
        self.overlaps += self._inside > 1
        self.calls.append(time.monotonic())
        self.timeouts.append(timeout_millis)
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        try:
            self.gate.wait(60)
            failure = self.failures.pop(0) if self.failures else None
            if isinstance(failure, BaseException):
                raise failure
            if failure is not None:
                failure(batch)
            with self._changed:
                self.batches.append(list(batch))
                self._taken += len(batch)
                self._changed.notify_all()
        finally:
            self._inside -= 1

    def close(self) -> None:
        self.closed += 1

    @property
    def events(self) -> list[StepEvent]:
        return [event for batch in self.batches for event in batch]

    @property
    def numbers(self) -> list[int]:
        """The attempts of the events that were taken, in the order in which they came."""
        return [int(event.span_id or "0", 16) for event in self.events]

    @property
    def taken(self) -> int:
        """How many events were taken."""
        return self._taken

    def wait_for(self, taken: int, timeout: float = 20) -> None:
        """Waits until so many events were taken, and not a moment longer."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._taken >= taken, timeout), f"{self._taken} of {taken} in {timeout} s"


def until(done: Callable[[], object], timeout: float = 20) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.002)


async def until_async(done: Callable[[], object], timeout: float = 20) -> None:
    """Waits for a condition beside an event loop."""
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        await asyncio.sleep(0)


def spent_by_others() -> float:
    """Processor time of the other threads, in seconds."""
    return time.process_time() - time.thread_time()


def until_others_rest() -> None:
    """Waits until the worker has nothing left to do and sleeps."""
    spent = -1.0

    def rest() -> bool:
        nonlocal spent
        before, spent = spent, spent_by_others()
        return spent - before < 1e-6

    until(rest)


@contextmanager
def sooner_than(seconds: float) -> Iterator[None]:
    """The block ends within this time: far more than it takes on a busy machine, far less than what it must not wait for."""
    started = time.monotonic()
    yield
    taken = time.monotonic() - started
    assert taken < seconds, f"{taken:.1f} s"


@contextmanager
def interrupted_in(function: Callable[..., object], handler: Callable[[], object]) -> Iterator[None]:
    """Calls ``handler`` once, on this thread, where ``function`` begins: as a signal or a finalizer that comes right then."""
    code = getattr(function, "__code__")  # noqa: B009 - a Callable need not have one
    called = False

    def trace(frame: FrameType, what: str, argument: object) -> None:
        nonlocal called
        if frame.f_code is code and not called:
            called = True
            handler()

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
    assert called, f"{function} was not called"


def growth(act: Callable[[], object]) -> int:
    """By how many bytes the memory in use is more after ``act``, done a second time: what is kept once does not count."""

    def in_use() -> int:
        act()
        until_others_rest()  # a worker may still hold what it sent last
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = in_use()
        return in_use() - before
    finally:
        tracemalloc.stop()


def no_thread(thread: threading.Thread) -> None:
    """In place of ``threading.Thread.start``: what that does where there is no room, and at the exit of newer Pythons."""
    raise RuntimeError("can't start new thread")


class OwnBase(BaseException):
    pass
