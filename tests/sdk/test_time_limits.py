"""Time limits and cancellation, raised into our code by a signal handler or another thread, reach the application."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from support.tracing import Tracing

from failpath_otel import FailpathClient
from failpath_otel.events.step import StepEvent
from failpath_otel.interruption import is_interruption
from failpath_otel.steps import attempt
from failpath_otel.steps.run import Run
from failpath_otel.testing import RecordingClient

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")


class SoftTimeLimit(Exception):
    """As Celery's, which `except Exception` takes."""


def raised(frame: FrameType) -> None:
    """As a signal handler raises: it is given the frame that it interrupts."""
    raise SoftTimeLimit


def set_from_outside(frame: FrameType) -> None:
    """As another thread raises, which hands over a class."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(SoftTimeLimit))


def block(client: RecordingClient) -> None:
    with client.run("checkout", "1").step("pay"):
        pass


def call(client: RecordingClient) -> None:
    client.run("checkout", "1").step("pay", lambda: None)


def failing_call(client: RecordingClient) -> None:
    def decline() -> None:
        raise LookupError("declined")

    with contextlib.suppress(LookupError):
        client.run("checkout", "1").step("pay", decline)


def decorated(client: RecordingClient) -> None:
    client.run("checkout", "1").step("pay")(lambda: None)()


def generator(client: RecordingClient) -> None:
    list(client.run("checkout", "1").step("pay")(lambda: (number for number in range(2)))())


def coroutine(client: RecordingClient) -> None:
    async def pay() -> None:
        pass

    with contextlib.suppress(StopIteration):
        client.run("checkout", "1").step("pay", pay).send(None)


def async_block(client: RecordingClient) -> None:
    async def main() -> None:
        async with client.run("checkout", "1").step("pay"):
            pass

    with contextlib.suppress(StopIteration):
        main().send(None)


def skipped(client: RecordingClient) -> None:
    client.run("checkout", "1").skip("pay", reason="free")


FORMS = (block, call, failing_call, decorated, generator, coroutine, async_block, skipped)


def is_called_by_nobody(frame: FrameType | None) -> bool:
    """Whether this is what a weak reference calls, at whatever moment: what interrupts that is lost, as Python has it."""
    while frame is not None:
        if frame.f_code.co_name == "dropped":
            return True
        frame = frame.f_back
    return False


UNGUARDED = {getattr(Run, name).__code__ for name in ("__exit__", "__aexit__", "_exit_async")}
"""What stands between the application and the first ``try`` of ours: nothing can be done there about what comes."""


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No finalizer of an earlier test runs within what is interrupted: what comes there is lost, as above."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def interrupted_at(line: int, how: Callable[[FrameType], None], act: Callable[[], None]) -> bool | None:
    """Whether the interruption reached us; ``None`` where ``act`` has fewer lines within our package."""
    left = line

    def trace(frame: FrameType, what: str, argument: object) -> object:
        nonlocal left
        if "failpath_otel" not in frame.f_code.co_filename or frame.f_code in UNGUARDED or is_called_by_nobody(frame):
            return None if what == "call" else trace
        if what == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                how(frame)
        return trace

    try:
        sys.settrace(trace)
        try:
            act()
        finally:
            sys.settrace(None)
    except SoftTimeLimit:
        return True
    return None if left > 0 else False


@pytest.mark.usefixtures("uncollected")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", [raised, set_from_outside], ids=["signal handler", "another thread"])
@pytest.mark.parametrize("form", FORMS, ids=[form.__name__ for form in FORMS])
def test_at_whatever_line_it_comes_it_passes_and_no_step_stays_open(
    client: RecordingClient, form: Callable[[RecordingClient], None], how: Callable[[FrameType], None]
) -> None:
    form(client)  # what is done but once is done
    for line in range(1, 2000):
        client.reset()
        reached = interrupted_at(line, how, lambda: form(client))
        if reached is None:
            break
        assert reached, f"line {line}"
        begun = {event.span_id for event in client.events if event.status == "running"}
        ended = {event.span_id for event in client.events if event.status != "running"}
        assert begun <= ended, f"line {line}: {client.events}"
        assert len({(event.span_id, event.status) for event in client.events if event.status != "running"}) <= len(ended), (
            "two ends"
        )
        assert client.current_run() is None
        client.reset()
        form(client)
        assert client.events[-1].status != "running", f"after line {line} steps go on"
    else:
        pytest.fail("the step has no end")
    assert line > 20


def within_run(client: RecordingClient) -> None:
    with client.run("checkout", "1"):
        pass


def within_run_async(client: RecordingClient) -> None:
    async def main() -> None:
        async with client.run("checkout", "1"):
            pass

    with contextlib.suppress(StopIteration):
        main().send(None)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("how", [raised, set_from_outside], ids=["signal handler", "another thread"])
@pytest.mark.parametrize("form", [block, within_run, within_run_async])
def test_a_block_that_is_interrupted_leaves_the_callers_context_current(
    client: RecordingClient, tracing: Tracing, form: Callable[[RecordingClient], None], how: Callable[[FrameType], None]
) -> None:
    form(client)  # what is done but once is done
    with tracing.tracer.start_as_current_span("request") as request:
        for line in range(1, 2000):
            if interrupted_at(line, how, lambda: form(client)) is None:
                break
            assert trace.get_current_span() is request, f"line {line}"
            assert client.current_run() is None, f"line {line}"
        assert line > 20


class Held:
    """An exporter that takes nothing for as long as it is held."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.events: list[StepEvent] = []

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        self.entered.set()
        self.gate.wait(60)
        self.events += batch

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """Sends the alarm to this thread."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimit

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident
    assert main is not None
    yield lambda: signal.pthread_kill(main, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_a_time_limit_ends_the_wait_of_a_step_that_is_sent_before_it_goes_on(
    tracing: Tracing, alarm: Callable[[], None]
) -> None:
    exporter = Held()
    with FailpathClient(
        exporter=exporter, delivery="await", send_timeout_millis=60_000, tracer_provider=tracing.provider, flows=False
    ) as client:
        interrupting = threading.Thread(target=lambda: exporter.entered.wait(60) and alarm())
        interrupting.start()
        with pytest.raises(SoftTimeLimit):
            client.run("checkout", "1").step("pay", lambda: None)
        exporter.gate.set()
        interrupting.join()
        client.flush()
    assert [event.status for event in exporter.events] == ["running", "error"]
    assert exporter.events[1].error is not None
    assert exporter.events[1].error.name == "SoftTimeLimit"


@pytest.mark.parametrize("method", ["set_attribute", "add_event", "set_status", "end"])
@pytest.mark.parametrize("locks_may_stay_held", [True, False])
def test_a_span_whose_call_was_interrupted_is_left_alone_where_that_may_have_left_its_lock_held(
    tracing: Tracing, monkeypatch: pytest.MonkeyPatch, alarm: Callable[[], None], method: str, locks_may_stay_held: bool
) -> None:
    """On Python 3.14 OpenTelemetry's own locks: to touch the span again would wait for ever."""
    calls: list[str] = []

    def recorded(name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(span: object, *args: object, **kwargs: object) -> None:
            calls.append(name)
            if name == method and name not in calls[:-1]:
                alarm()
            real(span, *args, **kwargs)

        return call

    for name in ("set_attribute", "add_event", "set_status", "end"):
        monkeypatch.setattr(Span, name, recorded(name, getattr(Span, name)))
    monkeypatch.setattr(attempt, "_LOCKS_MAY_STAY_HELD", locks_may_stay_held)  # no option: it is what Python does
    client = RecordingClient(tracer_provider=tracing.provider)
    with pytest.raises(SoftTimeLimit), client.run("checkout", "1").step("pay"):
        if method != "end":
            raise SoftTimeLimit
    assert client.story("checkout") == "pay:error(SoftTimeLimit)"
    assert calls[-1] == (method if locks_may_stay_held else "end")
    assert len(tracing.spans) == (0 if locks_may_stay_held else 1)


def test_a_cancellation_that_an_event_loop_is_told_of_by_a_signal_is_none_of_ours(client: RecordingClient) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, task.cancel)
        try:
            async with client.run("checkout", "1").step("pay"):
                signal.raise_signal(signal.SIGUSR1)
                await asyncio.Event().wait()
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert client.story("checkout") == "pay:error(CancelledError)"


class Broken(SpanProcessor):
    """A processor of others that raises what it is given."""

    def __init__(self, fail: Callable[[], object]) -> None:
        self.fail = fail

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.fail()

    def on_end(self, span: ReadableSpan) -> None:
        self.fail()


def own_raise() -> None:
    raise SoftTimeLimit("of its own")


def own_raise_without_words() -> None:
    raise SoftTimeLimit


@pytest.mark.parametrize(
    "fail",
    [
        own_raise,
        own_raise_without_words,
        pytest.param(lambda: int("x"), id="ValueError"),
        pytest.param(lambda: json.loads("{x"), id="JSONDecodeError"),
        pytest.param(lambda: msgspec.json.decode(b"{x"), id="msgspec.DecodeError"),
        pytest.param(lambda: {}["x"], id="KeyError"),
        pytest.param(lambda: next(iter(())), id="StopIteration"),
        pytest.param(lambda: 1 // 0, id="ZeroDivisionError"),
    ],
)
def test_what_other_processors_raise_does_not_reach_the_application(
    client: RecordingClient, tracing: Tracing, fail: Callable[[], object]
) -> None:
    tracing.provider.add_span_processor(Broken(fail))
    assert client.run("checkout", "1").step("pay", lambda: 7) == 7
    assert client.story("checkout") == "pay:success"


class Handlers:
    """Signal handlers of every form."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimit

    def method(self, number: int, frame: FrameType | None) -> None:
        raise SoftTimeLimit

    @staticmethod
    def deep(*args: object) -> None:
        own_raise()

    def forgetful(self, *args: object) -> None:
        del args
        raise SoftTimeLimit("which has words")


class ForgetfulHandler:
    """A signal handler that is an object and lets go of what it is given."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        frame = None
        raise SoftTimeLimit(frame)


@pytest.mark.parametrize(
    "handler",
    [
        Handlers(),
        Handlers().method,
        Handlers.deep,
        lambda *_: own_raise(),
        Handlers().forgetful,
        functools.partial(Handlers().forgetful, "more"),
        ForgetfulHandler(),
    ],
    ids=["object", "method", "any arguments", "lambda", "forgetful", "forgetful partial", "forgetful object"],
)
def test_every_form_of_signal_handler_is_known(handler: Callable[[int, FrameType | None], None]) -> None:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(SoftTimeLimit) as raised_:
            signal.raise_signal(signal.SIGUSR1)
        assert is_interruption(raised_.value)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_a_call_raises_is_no_interruption() -> None:
    def failing(frame: FrameType) -> None:
        raise SoftTimeLimit

    for act in (own_raise, lambda: failing(sys._getframe().f_back or sys._getframe()), lambda: int("x")):
        with pytest.raises((SoftTimeLimit, ValueError)) as raised_:
            act()
        assert not is_interruption(raised_.value)
