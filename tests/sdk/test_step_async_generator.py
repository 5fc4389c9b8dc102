"""``@client.step(key)`` on asynchronous generator functions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest
from opentelemetry import trace
from support.tracing import Tracing

from failpath_otel.testing import RecordingClient


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


@pytest.mark.parametrize("how", ["decorator", "call"])
def test_an_asynchronous_generator_that_is_open_as_the_loop_ends_is_closed_once(
    client: RecordingClient, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Its loop closes all generators that it knows, which is one that is a step, not two."""
    open_still = []

    async def values() -> AsyncGenerator[Any, Any]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)

    async def main() -> None:
        with client.run("flow", "1") as run:
            generator: Any = client.step("values")(values)() if how == "decorator" else run.step("values", values)
            open_still.append(generator)
            await generator.__anext__()

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


async def _anext(generator: Any) -> Any:
    return await generator.__anext__()
