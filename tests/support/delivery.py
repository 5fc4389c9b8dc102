"""What tests of delivery share: events, an exporter that does as it is told, waiting for conditions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

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
            self.batches.append(list(batch))
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


def until(done: Callable[[], object], timeout: float = 20) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.002)


class OwnBase(BaseException):
    pass
