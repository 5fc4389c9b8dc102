"""``@client.step(key)``: functions of every kind keep their kind, and each call is a step."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from support.tracing import Tracing, told

from failpath_otel import current_run
from failpath_otel.testing import RecordingClient

# Every kind of function


def test_a_decorated_function_is_a_step_of_the_current_run(client: RecordingClient) -> None:
    @client.step("charge")
    def charge(amount: int, *, tip: int = 0) -> int:
        """Charges."""
        return amount + tip

    assert (charge.__name__, charge.__doc__) == ("charge", "Charges.")
    with client.run("checkout", "1"):
        assert charge(1, tip=2) == 3
        assert charge(2) == 2
    with client.run("checkout", "2"):
        charge(3)
    assert client.story("checkout", "1") == "charge:success,success"
    assert client.story("checkout", "2") == "charge:success"


def test_decorated_functions_keep_their_kind(client: RecordingClient) -> None:
    step = client.step("any")

    @step
    def plain() -> None: ...

    @step
    async def coroutine() -> None: ...

    @step
    def generator() -> Iterator[int]:
        yield 1

    @step
    async def async_generator() -> AsyncIterator[int]:
        yield 1

    assert not inspect.iscoroutinefunction(plain)
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)


def test_a_decorated_coroutine_function_is_a_step(client: RecordingClient) -> None:
    @client.step("charge")
    async def charge(amount: int) -> int:
        await asyncio.sleep(0)
        return amount

    async def main() -> None:
        with client.run("checkout", "1"):
            pending = charge(5)
            assert client.events == []  # a coroutine begins when it is awaited
            assert await pending == 5

    asyncio.run(main())
    assert client.story("checkout") == "charge:success"


@pytest.mark.parametrize("kind", ["partial", "callable", "returns-awaitable"])
def test_what_gives_a_coroutine_in_another_way_is_awaited(client: RecordingClient, kind: str) -> None:
    async def charge(amount: int) -> int:
        await asyncio.sleep(0)
        return amount

    class Charge:
        async def __call__(self, amount: int) -> int:
            return await charge(amount)

    fn: Callable[[int], Any] = {
        "partial": functools.partial(charge),
        "callable": Charge(),
        "returns-awaitable": lambda amount: charge(amount),  # noqa: PLW0108 - no coroutine function, but it gives a coroutine
    }[kind]

    async def main() -> None:
        with client.run("checkout", "1"):
            assert await client.step("charge")(fn)(5) == 5

    asyncio.run(main())
    assert told(client.events) == ["charge:running", "charge:success"]


def test_methods_can_be_decorated(client: RecordingClient) -> None:
    class Shop:
        @client.step("charge")
        def charge(self, amount: int) -> tuple[Shop, int]:
            return self, amount

        @classmethod
        @client.step("refund")
        def refund(cls) -> type[Shop]:
            return cls

    shop = Shop()
    with client.run("checkout", "1"):
        assert shop.charge(5) == (shop, 5)
        assert Shop.refund() is Shop
    assert client.story("checkout") == "charge:success refund:success"


def test_the_run_of_the_call_counts_not_that_of_the_definition(client: RecordingClient) -> None:
    with client.run("checkout", "definition"):

        @client.step("charge")
        def charge() -> None: ...

    with client.run("checkout", "call"):
        charge()
    assert {event.run_id for event in client.events} == {"call"}


def test_a_step_of_a_certain_run_decorates_as_well(client: RecordingClient) -> None:
    @client.run("checkout", "1").step("charge", metadata={"a": 1})
    def charge() -> int:
        return 5

    assert charge() == 5
    assert client.story("checkout") == "charge:success"
    assert client.events[0].metadata == {"a": 1}


def test_a_decorated_function_that_calls_itself_gives_nested_steps(client: RecordingClient) -> None:
    @client.step("walk")
    def walk(depth: int) -> None:
        if depth:
            walk(depth - 1)

    with client.run("tree", "1"):
        walk(2)
    assert told(client.events) == ["walk:running"] * 3 + ["walk:success"] * 3


# Outside of a run


def test_outside_a_run_functions_run_nothing_is_recorded_and_one_warning_is_given(
    client: RecordingClient, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    @client.step("charge")
    def charge() -> int:
        return 5

    @client.step("charge")
    async def charge_later() -> int:
        return 6

    @client.step("charge")
    def charges() -> Iterator[int]:
        yield 7

    @client.step("charge")
    async def charges_later() -> AsyncIterator[int]:
        yield 8

    async def main() -> list[int]:
        async with client.step("charge") as step:
            step.set_metadata(a=1)
            assert not step.span.is_recording()
        return [await charge_later(), *[value async for value in charges_later()]]

    assert [charge(), *charges(), *asyncio.run(main())] == [5, 7, 6, 8]
    assert client.events == []
    assert tracing.spans == []
    (record,) = caplog.records
    assert "outside of a run" in record.getMessage()


def test_exceptions_and_values_pass_outside_a_run(client: RecordingClient) -> None:
    failure = ValueError("declined")

    @client.step("charge")
    def charges() -> Generator[int, int, str]:
        assert (yield 1) == 2
        raise failure

    generator = charges()
    assert next(generator) == 1
    with pytest.raises(ValueError, match="declined") as caught:
        generator.send(2)
    assert caught.value is failure


# Generators


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


# Asynchronous generators


def _async_values(client: RecordingClient) -> Callable[[], AsyncGenerator[Any, Any]]:
    @client.step("values")
    async def values() -> AsyncGenerator[Any, Any]:
        received = yield 1
        await asyncio.sleep(0)
        with contextlib.suppress(KeyError):
            received = yield received
        yield 3

    return values


def test_an_asynchronous_generator_is_a_step(client: RecordingClient) -> None:
    async def main() -> list[Any]:
        with client.run("flow", "1"):
            return [value async for value in _async_values(client)()]

    assert asyncio.run(main()) == [1, None, 3]
    assert client.story("flow") == "values:success"


def test_asend_and_athrow_reach_an_asynchronous_generator(client: RecordingClient) -> None:
    async def main() -> None:
        with client.run("flow", "1"):
            generator = _async_values(client)()
            assert await generator.asend(None) == 1
            assert await generator.asend("sent") == "sent"
            assert await generator.athrow(KeyError("handled")) == 3
            with pytest.raises(ValueError, match="thrown"):
                await generator.athrow(ValueError("thrown"))

    asyncio.run(main())
    assert client.story("flow") == "values:error(ValueError)"


@pytest.mark.parametrize("how", ["aclose", "another task", "collect"])
def test_an_asynchronous_generator_closed_early_succeeded(
    client: RecordingClient, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Left to the event loop it is closed in another task, and so in another context."""

    async def main() -> None:
        with client.run("flow", "1"):
            generator = _async_values(client)()
            async for _ in generator:
                break
            if how == "aclose":
                await generator.aclose()
            elif how == "another task":
                await asyncio.create_task(generator.aclose())
            else:
                del generator
                while len(client.events) < 2:  # noqa: ASYNC110 - the loop's own doing; nothing tells of it
                    await asyncio.sleep(0)
            assert not trace.get_current_span().is_recording()

    asyncio.run(main())
    assert client.story("flow") == "values:success"
    assert caplog.records == []


def test_between_an_asynchronous_generators_values_the_consumers_context_is_current(
    client: RecordingClient, tracing: Tracing
) -> None:
    seen = []

    @client.step("values")
    async def values() -> AsyncIterator[int]:
        with tracing.tracer.start_as_current_span("of the body") as span:
            for value in range(3):
                seen.append(trace.get_current_span() is span)
                await asyncio.sleep(0)
                yield value

    async def main() -> None:
        with client.run("flow", "1"), tracing.tracer.start_as_current_span("consumer") as consumer:
            async for _ in values():
                assert trace.get_current_span() is consumer

    asyncio.run(main())
    assert seen == [True] * 3
    body = tracing.named("of the body").parent
    assert body is not None
    assert body.span_id == tracing.named("flow/values").context.span_id


def test_an_asynchronous_generator_may_be_read_from_one_task_after_another(
    client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    seen = set()

    @client.step("values")
    async def values() -> AsyncIterator[int]:
        for value in range(3):
            seen.add(trace.get_current_span().get_span_context().span_id)
            yield value

    async def main() -> list[int]:
        with client.run("flow", "1"):
            generator = values()

            async def one() -> int:
                return await generator.__anext__()

            read = [await asyncio.create_task(one()) for _ in range(3)]
            with pytest.raises(StopAsyncIteration):
                await asyncio.create_task(_anext(generator))
            return read

    assert asyncio.run(main()) == [0, 1, 2]
    assert len(seen) == 1
    assert client.story("flow") == "values:success"
    assert caplog.records == []


def test_a_consumer_cancelled_within_an_asynchronous_generator_is_the_steps_error(client: RecordingClient) -> None:
    async def main() -> None:
        waiting = asyncio.Event()

        @client.step("values")
        async def values() -> AsyncIterator[int]:
            yield 1
            waiting.set()
            await asyncio.Event().wait()

        async def consume() -> None:
            with client.run("flow", "1"):
                async for _ in values():
                    pass

        task = asyncio.create_task(consume())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert client.story("flow") == "values:error(CancelledError)"


def test_an_asynchronous_generator_used_as_a_context_manager_is_a_step(client: RecordingClient) -> None:
    @contextlib.asynccontextmanager
    @client.step("transaction")
    async def transaction() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        with client.run("flow", "1"):
            async with transaction():
                pass
            with pytest.raises(ValueError, match="rollback"):
                async with transaction():
                    raise ValueError("rollback")

    asyncio.run(main())
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


async def _anext(generator: Any) -> Any:
    return await generator.__anext__()
