"""gRPC beside OpenTelemetry's instrumentation: whichever side has it, and in whatever order, the run goes along, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from support.delivery import until
from support.grpc_shop import KINDS, asyncio_handlers, asyncio_server, call, threaded_handlers, threaded_server
from support.tracing import Tracing

from failpath_otel import notices
from failpath_otel.integrations.grpc import aio_server_interceptor, client_interceptor, server_interceptor
from failpath_otel.testing import RecordingClient


@pytest.fixture
def tracing() -> Tracing:
    return Tracing()


@pytest.fixture
def client(tracing: Tracing, needs: Callable[..., None]) -> Iterator[RecordingClient]:
    needs("opentelemetry.instrumentation.grpc")
    notices.forget()
    token = otel_context.attach(Context())
    with RecordingClient(tracer_provider=tracing.provider, flows=False) as client:
        yield client
    otel_context.detach(token)


@pytest.mark.parametrize("caller", ["ours", "theirs", "ours, then theirs", "theirs, then ours"])
@pytest.mark.parametrize("server", ["ours", "ours within theirs", "ours within theirs, asyncio"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_run_and_the_trace_go_along(client: RecordingClient, tracing: Tracing, caller: str, server: str, kind: str) -> None:
    from opentelemetry.instrumentation.grpc import aio_server_interceptor as their_aio_server
    from opentelemetry.instrumentation.grpc import client_interceptor as their_client
    from opentelemetry.instrumentation.grpc import grpcext
    from opentelemetry.instrumentation.grpc import server_interceptor as their_server

    look_up = client.step("look-up")(lambda: None)
    options: dict[str, Any] = {"step_key": "reserve-stock"}
    if server.endswith("asyncio"):
        serving = asyncio_server(
            asyncio_handlers(look_up), [their_aio_server(tracing.provider), aio_server_interceptor(client, **options)]
        )
    else:
        theirs = [their_server(tracing.provider)] if server != "ours" else []
        serving = threaded_server(threaded_handlers(look_up), [*theirs, server_interceptor(client, **options)])
    wrappers: dict[str, Callable[[Any], Any]] = {
        "ours": lambda channel: grpc.intercept_channel(channel, client_interceptor(client)),
        "theirs": lambda channel: grpcext.intercept_channel(channel, their_client(tracing.provider)),
    }
    with serving as address, grpc.insecure_channel(address) as plain, client.run("order", "7") as run:
        channel = plain
        for name in reversed(caller.split(", then ")):
            channel = wrappers[name](channel)
        with run.step("ask-stock"):
            call(channel, kind, "")
        until(lambda: "reserve-stock:success" in client.story("order", "7"))
    assert {event.run_id for event in client.events} == {"7"}
    assert len({event.trace_id for event in client.events}) == 1
