"""gRPC over real sockets: calls have a run, in threads and in asyncio, and it goes along with the calls of a client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from support.delivery import until
from support.grpc_shop import (
    KINDS,
    acall,
    asyncio_handlers,
    asyncio_server,
    call,
    threaded_handlers,
    threaded_server,
)
from support.tracing import Tracing

from failpath_otel import ConfigError, current_run, notices
from failpath_otel.integrations.grpc import (
    aio_client_interceptors,
    aio_server_interceptor,
    client_interceptor,
    server_interceptor,
)
from failpath_otel.testing import RecordingClient

Serve = Callable[..., str]


@pytest.fixture
def client() -> Iterator[RecordingClient]:
    notices.forget()
    token = otel_context.attach(Context())
    tracing = Tracing()
    with RecordingClient(tracer_provider=tracing.provider, flows=False) as client:
        yield client
    otel_context.detach(token)


@pytest.fixture(params=["threads", "asyncio", "threads of asyncio"])
def serve(request: pytest.FixtureRequest, client: RecordingClient) -> Iterator[Serve]:
    """Serves the shop with our interceptor; gives its address."""
    look_up = client.step("look-up")(lambda: None)
    handlers = (asyncio_handlers if request.param == "asyncio" else threaded_handlers)(look_up)
    with contextlib.ExitStack() as stack:

        def begin(**options: Any) -> str:
            given = {"flow": {"/shop.Stock/*": "checkout"}, "step_key": "reserve-stock", **options}
            if request.param == "threads":
                return stack.enter_context(threaded_server(handlers, [server_interceptor(client, **given)]))
            return stack.enter_context(asyncio_server(handlers, [aio_server_interceptor(client, **given)]))

        yield begin


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("how", "outcome", "code"),
    [
        ("", "success", "OK"),
        ("sets NOT_FOUND", "success", "NOT_FOUND"),
        ("aborts NOT_FOUND", "success", "NOT_FOUND"),
        ("sets UNAVAILABLE", "error(gRPC UNAVAILABLE)", "UNAVAILABLE"),
        ("aborts INTERNAL", "error(gRPC INTERNAL)", "INTERNAL"),
        ("raises", "error(ValueError)", "UNKNOWN"),
    ],
)
def test_each_kind_of_call_is_a_step_of_its_run_with_the_outcome_that_its_code_tells(
    client: RecordingClient, serve: Serve, request: pytest.FixtureRequest, kind: str, how: str, outcome: str, code: str
) -> None:
    if "threads of asyncio" in request.node.name and (how.startswith("aborts") or how == "sets UNAVAILABLE"):
        pytest.skip("the context that grpc.aio gives to functions does not tell which code they set")
    with grpc.insecure_channel(serve()) as channel:
        try:
            call(channel, kind, how, metadata=[("x-request-id", "req_1")])
            ended = "OK"
        except grpc.RpcError as error:
            ended = error.code().name
    assert ended == code
    looked = "success" if kind.endswith("unary") else "success,success"
    until(lambda: client.story("checkout", "req_1") == f"reserve-stock:{outcome} look-up:{looked}")
    errors = {event.error.message for event in client.events if event.error is not None}
    assert errors <= {"as it was told", "declined"}


def test_a_streaming_handler_that_is_a_step_itself_is_one_of_the_calls_run(client: RecordingClient) -> None:
    @client.step("list-stock")
    async def listed(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        yield b"done"

    method = grpc.unary_stream_rpc_method_handler(listed)
    handlers = grpc.method_handlers_generic_handler("shop.Stock", {"unary_stream": method})
    interceptor = aio_server_interceptor(client, flow="checkout", step_key="reserve-stock")
    with asyncio_server(handlers, [interceptor]) as address, grpc.insecure_channel(address) as channel:
        assert call(channel, "unary_stream", "") == [b"first", b"done"]
    until(lambda: client.story("checkout") == "reserve-stock:success list-stock:success")


def test_a_client_that_cancels_leaves_no_step_running(
    client: RecordingClient, serve: Serve, request: pytest.FixtureRequest
) -> None:
    if "threads of asyncio" in request.node.name:
        pytest.skip("the thread of a generator hangs in grpc.aio then, with us or without")
    with grpc.insecure_channel(serve()) as channel:
        answer = channel.unary_stream("/shop.Stock/unary_stream")(b"endless", timeout=60)
        assert next(answer) == b"first"
        answer.cancel()
        until(lambda: any(event.step_key == "reserve-stock" and event.is_outcome for event in client.events))


@pytest.mark.parametrize("kind", KINDS)
def test_a_clients_run_goes_along_and_is_gone_on_with_in_its_trace(client: RecordingClient, serve: Serve, kind: str) -> None:
    with (
        grpc.insecure_channel(serve()) as plain,
        client.run("order", "7") as run,
        run.step("ask-stock"),
    ):
        call(grpc.intercept_channel(plain, client_interceptor(client)), kind, "", metadata=(("x-own", "kept"),))
    until(lambda: "reserve-stock:success" in client.story("order", "7"))
    assert len({event.trace_id for event in client.events}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_of_asyncio_sends_its_run_too(client: RecordingClient, serve: Serve, kind: str) -> None:
    async def main(address: str) -> None:
        async with grpc.aio.insecure_channel(address, interceptors=aio_client_interceptors(client)) as channel:
            with client.run("order", "7") as run:
                async with run.step("ask-stock"):
                    await acall(channel, kind, "")

    asyncio.run(main(serve()))
    until(lambda: "reserve-stock:success" in client.story("order", "7"))
    assert len({event.trace_id for event in client.events}) == 1


def test_at_the_edge_a_callers_run_is_not_believed(client: RecordingClient, serve: Serve) -> None:
    with grpc.insecure_channel(serve(accept_incoming=False)) as plain, client.run("order", "7"):
        call(grpc.intercept_channel(plain, client_interceptor(client)), "unary_unary", "", [("x-request-id", "ours")])
    until(lambda: client.story("checkout", "ours") == "reserve-stock:success look-up:success")


def test_a_method_without_a_flow_has_no_run_and_a_method_that_is_not_there_is_answered_as_ever(
    client: RecordingClient, serve: Serve
) -> None:
    with grpc.insecure_channel(serve(flow={"/other/*": "checkout"})) as channel:
        assert call(channel, "unary_stream", "") == [b"first", b"done"]
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/shop.Stock/nothing")(b"", timeout=60)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert client.events == []
    assert current_run() is None


def test_a_run_that_is_not_to_leave_the_service_is_not_sent(serve: Serve, client: RecordingClient) -> None:
    with (
        RecordingClient(flows=False, propagate=False) as private,
        grpc.insecure_channel(serve()) as plain,
        private.run("order", "7"),
    ):
        call(grpc.intercept_channel(plain, client_interceptor(private)), "unary_unary", "", [("x-request-id", "ours")])
    until(lambda: client.story("checkout", "ours") == "reserve-stock:success look-up:success")


def test_what_the_baggage_of_a_call_holds_besides_is_kept(client: RecordingClient) -> None:
    from failpath_otel.integrations.grpc import _with_run

    given = [("baggage", "tenant=7,failpath.run.id=other"), ("x-own", "kept"), ("traceparent", "of another")]
    with client.run("order", "ä b"):
        assert _with_run(client, given) == [
            ("x-own", "kept"),
            ("traceparent", "of another"),
            ("baggage", "failpath.flow.slug=order,failpath.run.id=%C3%A4+b,tenant=7"),
        ]
    assert _with_run(client, given) == given


@pytest.mark.parametrize("make", [server_interceptor, aio_server_interceptor, client_interceptor, aio_client_interceptors])
def test_what_is_no_client_is_refused(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ConfigError, match="client must be a FailpathClient"):
        make("not a client")
