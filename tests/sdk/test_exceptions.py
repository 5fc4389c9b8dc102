"""Exceptions: the same object goes on, and whatever it is, the step ends and its span can be exported."""

from __future__ import annotations

import asyncio
import inspect
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from support.tracing import Tracing, told

from failpath_otel import Run
from failpath_otel.events.wire import encode_event
from failpath_otel.testing import RecordingClient


class Declined(Exception):
    """One of the application's own."""


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class NoText(Exception):
    def __str__(self) -> Any:
        return 5  # noqa: PLE0307 - that is the case


class FailsToFormat(Exception):
    __notes__ = 5  # type: ignore[assignment]


def _way(name: str) -> Callable[[RecordingClient, BaseException], object]:
    """Raises the exception out of a step, in one of the forms a step has."""

    def call(client: RecordingClient, error: BaseException) -> object:
        return client.run("checkout", "1").step("charge", lambda: _raise(error))

    def block(client: RecordingClient, error: BaseException) -> object:
        with client.run("checkout", "1").step("charge"):
            _raise(error)
        return None

    def decorator(client: RecordingClient, error: BaseException) -> object:
        with client.run("checkout", "1"):
            return client.step("charge")(_raise)(error)

    return {"call": call, "block": block, "decorator": decorator}[name]


@pytest.mark.parametrize("way", ["call", "block", "decorator"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        Declined("no funds"),
        KeyboardInterrupt(),
        SystemExit(3),
        asyncio.CancelledError("stop"),
        GeneratorExit(),
        StopIteration(5),
        Silent(),
        NoText(),
        FailsToFormat(),
        RecursionError("deep"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_same_object_leaves_and_the_step_is_an_error_with_its_name(
    client: RecordingClient, tracing: Tracing, way: str, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught:
        _way(way)(client, error)
    assert caught.value is error
    assert told(client.events) == ["charge:running", "charge:error"]
    recorded = client.events[-1].error
    assert recorded is not None
    assert recorded.name == type(error).__name__
    assert recorded.stack is None
    assert tracing.span.status.status_code.name == "ERROR"
    assert encode_event(client.events[-1])
    assert encode_spans(tracing.spans).SerializeToString()


def test_the_traceback_leads_to_where_it_was_raised(client: RecordingClient) -> None:
    with pytest.raises(Declined) as caught:
        client.run("checkout", "1").step("charge", lambda: _raise(Declined()))
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "_raise"


def _decorated(fn: Callable[[], Any], run: Run[str]) -> Any:
    return run.step("pay")(fn)()


def _called(fn: Callable[[], Any], run: Run[str]) -> Any:
    return run.step("pay", fn)


def _declines() -> None:
    raise Declined


async def _declines_later() -> None:
    raise Declined


def _yields_and_declines() -> Iterator[int]:
    yield 1
    raise Declined


async def _yields_and_declines_later() -> AsyncIterator[int]:
    yield 1
    raise Declined


@pytest.mark.parametrize("way", [_decorated, _called])
@pytest.mark.parametrize("fn", [_declines, _declines_later, _yields_and_declines, _yields_and_declines_later])
def test_a_step_adds_one_frame_to_a_traceback_and_pytest_leaves_it_out(
    client: RecordingClient, way: Callable[[Callable[[], Any], Run[str]], Any], fn: Callable[[], Any]
) -> None:
    async def main() -> None:
        if fn is _yields_and_declines_later:
            async for _ in way(fn, client.run("checkout", "1")):
                pass
        elif fn is _yields_and_declines:
            list(way(fn, client.run("checkout", "1")))
        else:
            await way(fn, client.run("checkout", "1"))

    with pytest.raises(Declined) as raised:
        asyncio.run(main())
    ours = [entry for entry in raised.traceback if "failpath_otel" in str(entry.path)]
    assert len(ours) == 1
    assert all(entry.ishidden(raised) for entry in ours)
    assert raised.traceback[-1].name == fn.__name__


def test_an_exceptions_cause_and_context_stay(client: RecordingClient) -> None:
    cause = ValueError("cause")

    def charge() -> None:
        try:
            raise cause
        except ValueError as error:
            raise Declined from error

    with pytest.raises(Declined) as caught:
        client.run("checkout", "1").step("charge", charge)
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is cause


def test_what_is_on_its_way_outside_is_not_disturbed_by_a_step(client: RecordingClient) -> None:
    outer = Declined("outer")
    with pytest.raises(Declined) as caught:
        try:
            raise outer
        finally:
            client.run("checkout", "1").step("clean-up", lambda: None)
    assert caught.value is outer
    assert outer.__context__ is None
    assert client.story("checkout") == "clean-up:success"


def test_the_stack_is_sent_only_where_it_is_asked_for(tracing: Tracing) -> None:
    client = RecordingClient(tracer_provider=tracing.provider, flows=False, capture_stack=True)
    with pytest.raises(Declined):
        client.run("checkout", "1").step("charge", lambda: _raise(Declined("no funds")))
    error = client.events[-1].error
    assert error is not None
    assert error.stack is not None
    assert error.stack.startswith("Traceback")
    assert "in _raise" in error.stack
    assert error.stack.rstrip().endswith("Declined: no funds")


def test_the_stack_is_there_without_a_span_too() -> None:
    client = RecordingClient(flows=False, capture_stack=True)
    with pytest.raises(Declined):
        client.run("checkout", "1").step("charge", lambda: _raise(Declined()))
    error = client.events[-1].error
    assert error is not None
    assert "in _raise" in (error.stack or "")


def test_a_stack_of_thousands_of_frames_is_bounded(tracing: Tracing) -> None:
    client = RecordingClient(tracer_provider=tracing.provider, flows=False, capture_stack=True)

    def down(depth: int) -> None:
        if depth == 0:
            raise Declined("bottom " + "x" * 30_000)
        up(depth - 1)

    def up(depth: int) -> None:
        down(depth)

    with pytest.raises(Declined):
        client.run("checkout", "1").step("charge", lambda: down(sys.getrecursionlimit() // 4))
    error = client.events[-1].error
    assert error is not None
    assert len((error.stack or "").encode()) <= 16 * 1024
    assert "[cut " in (error.stack or "")
    assert len(error.message.encode()) <= 16 * 1024


def test_lone_surrogates_in_an_exception_do_not_cost_an_export(client: RecordingClient, tracing: Tracing) -> None:
    """The real encoder of the OTLP exporter, which raises over a lone surrogate and so loses the whole batch."""
    odd = type("Half", (Exception,), {"__module__": "mod\udfff"})
    run = client.run("flow\ud800", "run\udfff", metadata={"k\ud800": ["v\udfff"], "n": {"a\ud800": "b"}})
    with pytest.raises(odd):
        run.step("step\udc00", lambda: _raise(odd("broken \ud800")))
    run.skip("skip\ud800", reason="why\udfff")
    client.record_step(
        flow_key="f\ud800", run_id="r\ud800", step_key="s\ud800", status="error", error=odd("x\ud800"), metadata={"\udfff": 1}
    )
    assert len(tracing.spans) == 3
    assert encode_spans(tracing.spans).SerializeToString()
    for event in client.events:
        encode_event(event).decode()
    error = client.events[1].error
    assert error is not None
    assert (error.name, error.message) == ("Half", "broken �")


def test_a_nul_and_other_control_characters_pass(client: RecordingClient, tracing: Tracing) -> None:
    with pytest.raises(ValueError, match="a"):
        client.run("fl\x00ow", "r\x1b[31m").step("s\n", lambda: _raise(ValueError("a\x00b\x07")))
    assert encode_spans(tracing.spans).SerializeToString()
    assert encode_event(client.events[-1]).isascii()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_an_exception_group_is_an_error_with_its_name(client: RecordingClient) -> None:
    group = ExceptionGroup("several", [ValueError("a"), TypeError("b")])  # noqa: F821
    with pytest.raises(ExceptionGroup) as caught:  # noqa: F821
        client.run("checkout", "1").step("charge", lambda: _raise(group))
    assert caught.value is group
    assert client.story("checkout") == "charge:error(ExceptionGroup)"


def test_a_step_near_the_recursion_limit_lets_the_application_go_on(client: RecordingClient) -> None:
    """Where no room is left for our own calls, Python's RecursionError is raised, which the application has anyway."""
    run = client.run("deep", "1")
    limit = sys.getrecursionlimit()

    def down() -> None:
        run.step("down", down)

    sys.setrecursionlimit(len(inspect.stack(0)) + 200)
    try:
        with pytest.raises(RecursionError):
            down()
    finally:
        sys.setrecursionlimit(limit)
    run.step("after", lambda: None)
    assert told(client.events)[-2:] == ["after:running", "after:success"]
    outcomes = [event for event in client.events if event.is_outcome and event.step_key == "down"]
    assert outcomes
    assert {event.status for event in outcomes} == {"error"}


def test_a_step_that_fails_within_a_failing_step_tells_both(client: RecordingClient) -> None:
    run = client.run("checkout", "1")
    with pytest.raises(Declined):
        run.step("outer", lambda: run.step("inner", lambda: _raise(Declined())))
    assert client.story("checkout") == "outer:error(Declined) inner:error(Declined)"


def _raise(error: BaseException) -> Any:
    raise error
