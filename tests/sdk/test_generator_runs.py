"""The run of a decorated generator's body: that of the call, wherever it is iterated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from opentelemetry import context, trace

from failpath_otel import Run, current_run
from failpath_otel.events.translate import RunIdentity
from failpath_otel.propagation import baggage
from failpath_otel.testing import RecordingClient


def test_the_run_of_its_call_is_current_in_a_decorated_generators_body(client: RecordingClient) -> None:
    """So what the body calls is of that run, too, here and in the services behind."""

    @client.step("write")
    def write() -> None:
        pass

    @client.step("stream")
    def rows() -> Iterator[dict[str, str]]:
        for _ in range(2):
            write()
            yield client.run("x").carrier()

    @client.step("stream-async")
    async def rows_async() -> AsyncIterator[None]:
        write()
        yield

    async def main() -> None:
        with client.run("checkout", "2"):
            generator = rows_async()
        async for _ in generator:
            pass

    with client.run("checkout", "1"):
        generator = rows()
    with client.run("middleware", "m") as middleware, trace.get_tracer("service").start_as_current_span("request"):
        next(generator)
        assert current_run() is middleware
        list(generator)
        assert current_run() is middleware
    asyncio.run(main())
    assert client.story("checkout", "1") == "stream:success write:success,success"
    assert client.story("checkout", "2") == "stream-async:success write:success"
    assert client.story("middleware") == ""
    assert current_run() is None


def test_the_run_that_a_caller_named_is_that_of_a_decorated_generators_body(client: RecordingClient) -> None:
    """It came in baggage alone, with the instrumentation of the server."""

    @client.step("stream")
    def rows() -> Iterator[Run[Any] | None]:
        yield client.current_run()

    with client.run("checkout", "1") as run:
        within = baggage.write(RunIdentity(run.flow_key, run.run_id), context.Context())
    token = context.attach(within)
    generator = rows()
    context.detach(token)
    (seen,) = generator  # outside of it
    assert seen is not None
    assert (seen.flow_key, seen.run_id) == ("checkout", "1")
    assert client.story("checkout") == "stream:success"
