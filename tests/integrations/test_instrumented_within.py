"""A server that is instrumented within our middleware, as Flask and Django are, begins with what the headers say alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.propagate import extract

from failpath_otel.integrations import asgi, wsgi
from failpath_otel.propagation.baggage import MAX_HEADER_BYTES
from failpath_otel.testing import RecordingClient

STRANGER = "failpath.flow.slug=checkout,failpath.run.id=theirs"
Seen = dict[str, Any]


def instrumented(client: RecordingClient, headers: Mapping[str, str]) -> Seen:
    """What an application sees whose instrumentation attaches what the headers say, with nothing of the context before."""
    token = otel_context.attach(extract(headers))
    try:
        run = client.current_run()
        return {"run": run and (run.flow_key, run.run_id), "baggage": dict(baggage.get_all()), "headers": dict(headers)}
    finally:
        otel_context.detach(token)


def by_asgi(client: RecordingClient, headers: Mapping[str, str], **options: Any) -> Seen:
    seen: Seen = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(instrumented(client, {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}))

    async def nothing(*_: Any) -> Any:
        return {}

    raw = [(key.encode(), value.encode("latin-1")) for key, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/checkout", "headers": raw}
    asyncio.run(asgi.FailpathMiddleware(app, client, **options)(scope, nothing, nothing))
    return seen


def by_wsgi(client: RecordingClient, headers: Mapping[str, str], **options: Any) -> Seen:
    seen: Seen = {}

    def app(environ: dict[str, Any], _: Any) -> list[bytes]:
        there = {key[5:].lower().replace("_", "-"): value for key, value in environ.items() if key.startswith("HTTP_")}
        seen.update(instrumented(client, there))
        return []

    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/checkout"}
    environ |= {"HTTP_" + key.upper().replace("-", "_"): value for key, value in headers.items()}
    wsgi.FailpathMiddleware(app, client, **options)(environ, lambda *_: None)
    return seen


Serve = Callable[..., Seen]


@pytest.fixture(params=[by_asgi, by_wsgi])
def serve(request: pytest.FixtureRequest) -> Serve:
    return request.param


@pytest.fixture
def client() -> Iterator[RecordingClient]:
    token = otel_context.attach(Context())
    with RecordingClient(flows=False) as client:
        yield client
    otel_context.detach(token)


def test_the_run_of_the_request_is_current_below_the_instrumentation(client: RecordingClient, serve: Serve) -> None:
    assert serve(client, {"x-request-id": "a b,c"}, flow="checkout")["run"] == ("checkout", "a b,c")


def test_other_baggage_of_the_caller_stays(client: RecordingClient, serve: Serve) -> None:
    seen = serve(client, {"baggage": "tenant=7", "x-request-id": "r1"}, flow="checkout")
    assert seen["baggage"] == {"tenant": "7", "failpath.flow.slug": "checkout", "failpath.run.id": "r1"}


def test_a_run_of_a_stranger_is_not_believed_below_it_either(client: RecordingClient, serve: Serve) -> None:
    headers = {"baggage": f"tenant=7, {STRANGER}", "x-request-id": "ours"}
    assert serve(client, headers, flow="inner", accept_incoming=False)["run"] == ("inner", "ours")
    seen = serve(client, headers, flow={"/other": "inner"}, accept_incoming=False)
    assert (seen["run"], seen["baggage"]) == (None, {"tenant": "7"})


def test_the_callers_run_is_gone_on_with(client: RecordingClient, serve: Serve) -> None:
    assert serve(client, {"baggage": STRANGER}, flow="inner")["run"] == ("checkout", "theirs")


def test_a_header_that_would_be_too_long_with_the_run_holds_the_run_alone(client: RecordingClient, serve: Serve) -> None:
    seen = serve(client, {"baggage": "a=" + "b" * (MAX_HEADER_BYTES - 20), "x-request-id": "r1"}, flow="checkout")
    assert (seen["run"], len(seen["baggage"])) == (("checkout", "r1"), 2)


def test_without_propagation_no_run_is_put_into_the_headers(serve: Serve) -> None:
    with RecordingClient(flows=False, propagate=False) as client:
        assert serve(client, {"baggage": f"tenant=7,{STRANGER}"}, flow="inner")["headers"]["baggage"] == "tenant=7"


def test_headers_stay_as_they_are_where_the_instrumentation_is_outside(client: RecordingClient, serve: Serve) -> None:
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    with trace.use_span(span):
        assert serve(client, {"baggage": STRANGER}, flow="inner", accept_incoming=False)["headers"] == {"baggage": STRANGER}
