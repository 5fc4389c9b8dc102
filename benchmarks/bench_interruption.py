"""How many exceptions raised from outside are lost in a loop of steps, beside a loop of bare spans.

A signal handler, and another thread, raise into loops that do nothing else, so that nearly all meet the machinery. A bare span
loses some itself, for OpenTelemetry guards what it calls. That every step has an outcome is counted too.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence

from harness import QUICK, Row, report
from opentelemetry.sdk.trace import TracerProvider

from failpath_otel import FailpathClient, StepEvent

TIMES = 30 if QUICK else 300
FIRST_SECONDS, STEP_SECONDS = 0.0003, 0.00001


class LateError(Exception):
    """What is raised."""


class Kept:
    """An exporter that keeps which attempts began and which ended."""

    def __init__(self) -> None:
        self.begun: set[str | None] = set()
        self.ended: set[str | None] = set()

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Keeps them."""
        for event in batch:
            (self.ended if event.is_outcome else self.begun).add(event.span_id)

    def close(self) -> None:
        """Nothing is open."""


def by_signal(number: int, raised: threading.Event) -> None:
    """The alarm of this process, a little later each time."""

    def handler(*_: object) -> None:
        raised.set()
        raise LateError

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, FIRST_SECONDS + number % 37 * STEP_SECONDS)


def by_thread(number: int, raised: threading.Event) -> None:
    """Another thread, which sets the exception of this one."""
    me = ctypes.c_ulong(threading.get_ident())

    def set_it() -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(me, ctypes.py_object(LateError))
        raised.set()

    threading.Timer(FIRST_SECONDS + number % 37 * STEP_SECONDS, set_it).start()


def lost(act: Callable[[], object], raise_soon: Callable[[int, threading.Event], None]) -> int:
    """How many of the exceptions did not come out of the loop."""
    count = 0
    for number in range(TIMES):
        raised = threading.Event()
        try:
            raise_soon(number, raised)
            _go_round(act, raised)
        except LateError:
            continue
        count += 1
    return count


def _go_round(act: Callable[[], object], raised: threading.Event) -> None:
    while not raised.is_set():
        act()
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:  # it may be on its way
        act()


def main() -> None:
    logging.disable(logging.CRITICAL)
    provider, kept = TracerProvider(), Kept()
    client = FailpathClient(exporter=kept, tracer_provider=provider, flows=False, rules=False)
    tracer, run = provider.get_tracer("bench"), client.run("checkout", "r")

    def bare() -> None:
        with tracer.start_as_current_span("span", attributes={"key": "value"}):
            pass

    def block() -> None:
        with run.step("charge-card"):
            pass

    forms = {
        "a bare span": bare,
        "a block": block,
        "a call": lambda: run.step("charge-card", int),
        "a decorated function": run.step("charge-card")(lambda: None),
    }
    rows = []
    for how, raise_soon in (("a signal handler", by_signal), ("another thread", by_thread)):
        for name, act in forms.items():
            rows.append(Row(f"lost of {TIMES} that {how} raises, {name}", str(lost(act, raise_soon))))
    client.flush()
    open_steps = len(kept.begun - kept.ended)
    rows.append(Row(f"steps without an outcome, of {len(kept.begun)}", str(open_steps), "0", open_steps == 0))
    report("interruption", rows)


if __name__ == "__main__":
    main()
