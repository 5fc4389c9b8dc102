"""``@client.step(key)`` on generator functions: a step from the first to the last value, contexts kept apart."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

import pytest
from opentelemetry import baggage, context, trace
from support.tracing import Tracing, told

from failpath_otel import current_run
from failpath_otel.testing import RecordingClient


@pytest.fixture
def values(client: RecordingClient) -> Callable[[], Generator[int, Any, str]]:
    @client.step("values")
    def values() -> Generator[int, Any, str]:
        received = yield 1
        with contextlib.suppress(KeyError):
            received = yield received
        yield 3
        return "done"

    return values


def test_a_generator_is_a_step_from_its_first_to_its_last_value(
    client: RecordingClient, values: Callable[[], Generator[int, Any, str]]
) -> None:
    with client.run("flow", "1"):
        generator = values()
        assert client.events == []
        assert next(generator) == 1
        assert told(client.events) == ["values:running"]
        assert list(generator) == [None, 3]
    assert client.story("flow") == "values:success"


def test_a_generators_return_value_is_passed_through(
    client: RecordingClient, values: Callable[[], Generator[int, Any, str]]
) -> None:
    def delegate() -> Generator[int, Any, None]:
        assert (yield from values()) == "done"

    with client.run("flow", "1"):
        list(delegate())
    assert client.story("flow") == "values:success"


def test_send_reaches_a_generator(client: RecordingClient, values: Callable[[], Generator[int, Any, str]]) -> None:
    with client.run("flow", "1"):
        generator = values()
        next(generator)
        assert generator.send("sent") == "sent"


def test_throw_reaches_a_generator_which_may_handle_it(
    client: RecordingClient, values: Callable[[], Generator[int, Any, str]]
) -> None:
    with client.run("flow", "1"):
        generator = values()
        next(generator)
        next(generator)
        assert generator.throw(KeyError("handled")) == 3
        assert list(generator) == []
    assert client.story("flow") == "values:success"


def test_throw_that_a_generator_does_not_handle_is_its_error(
    client: RecordingClient, values: Callable[[], Generator[int, Any, str]]
) -> None:
    failure = ValueError("thrown")
    with client.run("flow", "1"):
        generator = values()
        next(generator)
        with pytest.raises(ValueError, match="thrown") as caught:
            generator.throw(failure)
    assert caught.value is failure
    assert client.story("flow") == "values:error(ValueError)"


def test_stop_iteration_thrown_into_a_generator_is_what_it_is_without_us(
    client: RecordingClient, values: Callable[[], Generator[int, Any, str]]
) -> None:
    with client.run("flow", "1"):
        generator = values()
        next(generator)
        with pytest.raises(RuntimeError, match="StopIteration"):
            generator.throw(StopIteration())
    assert client.story("flow") == "values:error(RuntimeError)"


@pytest.mark.parametrize("how", ["close", "collect"])
def test_a_generator_closed_early_succeeded(
    client: RecordingClient, values: Callable[[], Generator[int, Any, str]], how: str
) -> None:
    with client.run("flow", "1"):
        generator = values()
        next(generator)
        if how == "close":
            generator.close()
            generator.close()
        else:
            del generator
            gc.collect()
    assert client.story("flow") == "values:success"
    assert len(client.events) == 2


def test_closing_a_generator_runs_its_finally_blocks_within_the_step(client: RecordingClient, tracing: Tracing) -> None:
    seen = []

    @client.step("values")
    def values() -> Iterator[int]:
        try:
            yield 1
        finally:
            seen.append(trace.get_current_span().get_span_context().span_id)

    with client.run("flow", "1"):
        generator = values()
        next(generator)
        generator.close()
    assert seen == [tracing.span.context.span_id]


def test_a_generator_that_ends_as_it_is_closed_does_so_as_without_us(client: RecordingClient) -> None:
    """`close` returns its value from Python 3.13 on, and a block whose exception it takes goes on after it."""

    def values() -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            return "closed"  # type: ignore[return-value]

    step = client.step("values")(values)
    with client.run("flow", "1"):
        without, within = values(), step()
        next(without)
        next(within)
        assert cast("Any", within).close() == cast("Any", without).close()
        for function in values, step:
            with contextlib.contextmanager(function)():
                raise GeneratorExit
    assert client.story("flow") == "values:success,success"


def test_a_generator_that_fails_while_it_is_closed_is_an_error(client: RecordingClient) -> None:
    @client.step("values")
    def values() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise OSError("while closing")

    @client.step("stubborn")
    def stubborn() -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    with client.run("flow", "1"):
        for function, error, message in ((values, OSError, "while closing"), (stubborn, RuntimeError, "ignored GeneratorExit")):
            generator = function()
            next(generator)
            with pytest.raises(error, match=message):
                generator.close()
    assert client.story("flow") == "values:error(OSError) stubborn:error(RuntimeError)"


def test_a_generator_that_is_never_begun_is_no_step(
    client: RecordingClient, values: Callable[[], Generator[int, Any, str]]
) -> None:
    with client.run("flow", "1"):
        values().close()
        values()
        gc.collect()
    assert client.events == []


def test_between_a_generators_values_the_consumers_context_is_current(client: RecordingClient, tracing: Tracing) -> None:
    seen = []

    @client.step("values")
    def values() -> Iterator[int]:
        for value in range(3):
            seen.append(trace.get_current_span())
            yield value

    with client.run("flow", "1"), tracing.tracer.start_as_current_span("consumer") as consumer:
        for _ in values():
            assert trace.get_current_span() is consumer
            with tracing.tracer.start_as_current_span("child of the consumer"):
                pass
        assert trace.get_current_span() is consumer
    assert len(set(seen)) == 1
    assert seen[0] is not consumer
    children = [span for span in tracing.spans if span.name == "child of the consumer"]
    assert [child.parent and child.parent.span_id for child in children] == [consumer.get_span_context().span_id] * 3


def test_what_a_generators_body_attached_survives_a_yield(client: RecordingClient, tracing: Tracing) -> None:
    seen = []

    @client.step("values")
    def values() -> Iterator[int]:
        with tracing.tracer.start_as_current_span("of the body") as span:
            token = context.attach(baggage.set_baggage("who", "body"))
            yield 1
            seen.append(trace.get_current_span() is span)
            seen.append(baggage.get_baggage("who"))
            context.detach(token)
            yield 2
            seen.append(trace.get_current_span() is span)
            seen.append(baggage.get_baggage("who"))
        seen.append(trace.get_current_span() is not span)

    with client.run("flow", "1"):
        for _ in values():
            assert not trace.get_current_span().is_recording()
            assert baggage.get_baggage("who") is None
    assert seen == [True, "body", True, None, True]


def test_the_consumer_may_change_its_context_between_values(client: RecordingClient, tracing: Tracing) -> None:
    """What was current at the first value is not brought back at a later one."""

    @client.step("values")
    def values() -> Iterator[int]:
        yield from range(3)

    with client.run("flow", "1"):
        generator = values()
        next(generator)
        with tracing.tracer.start_as_current_span("later") as later:
            next(generator)
            assert trace.get_current_span() is later
        next(generator)
        assert not trace.get_current_span().is_recording()


def test_two_generators_read_in_turn_keep_their_contexts_apart(client: RecordingClient) -> None:
    seen: dict[str, set[int]] = {"a": set(), "b": set()}

    def make(name: str) -> Iterator[int]:
        @client.step(name)
        def values() -> Iterator[int]:
            for value in range(3):
                seen[name].add(trace.get_current_span().get_span_context().span_id)
                yield value

        return values()

    with client.run("flow", "1"):
        assert list(zip(make("a"), make("b"), strict=True)) == [(0, 0), (1, 1), (2, 2)]
    assert len(seen["a"]) == len(seen["b"]) == 1
    assert seen["a"] != seen["b"]
    assert client.story("flow") == "a:success b:success"


def test_a_generator_within_a_generator_nests(client: RecordingClient, tracing: Tracing) -> None:
    @client.step("inner")
    def inner() -> Iterator[int]:
        yield from range(2)

    @client.step("outer")
    def outer() -> Iterator[int]:
        yield from inner()

    with client.run("flow", "1"):
        assert list(outer()) == [0, 1]
    parent = tracing.named("flow/inner").parent
    assert parent is not None
    assert parent.span_id == tracing.named("flow/outer").context.span_id


def test_a_generator_used_as_a_context_manager_is_a_step(client: RecordingClient) -> None:
    @contextlib.contextmanager
    @client.step("transaction")
    def transaction() -> Iterator[int]:
        yield 1

    with client.run("flow", "1"):
        with transaction() as value:
            assert value == 1
        with pytest.raises(ValueError, match="rollback"), transaction():
            raise ValueError("rollback")
    assert client.story("flow") == "transaction:success,error(ValueError)"


def test_a_body_sees_its_run_across_values(client: RecordingClient) -> None:
    @client.step("values")
    def values() -> Iterator[Any]:
        yield current_run()
        yield current_run()

    first, second = client.run("flow", "1"), client.run("flow", "2")
    with first:
        generator = values()
        assert next(generator) is first
        with second:
            assert next(generator) is first
