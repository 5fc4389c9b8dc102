"""The request as a step, under real servers of ASGI and WSGI: when it begins and ends, and what its outcome is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from opentelemetry import trace
from support.delivery import ScriptedExporter, until
from support.tracing import Tracing, told
from support.web import asgi_server, wsgi_server

from failpath_otel import ConfigError, FailpathClient, current_run, notices, with_context
from failpath_otel.integrations import asgi, wsgi
from failpath_otel.testing import RecordingClient

DECLINED = ValueError("declined")


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    notices.forget()
    tracing = Tracing()
    yield tracing
    tracing.provider.shutdown()


@pytest.fixture
def client(tracing: Tracing) -> Iterator[RecordingClient]:
    with RecordingClient(tracer_provider=tracing.provider, flows=False) as client:
        yield client


class Shop:
    """One application in both worlds. Each path is a behaviour; `gate` opens what waits."""

    def __init__(self, client: RecordingClient) -> None:
        self.gate = threading.Event()
        self.waits = threading.Event()
        self.begun: list[list[str]] = []
        self.client = client

    def plan(self, path: str) -> tuple[int, list[bytes | Exception]]:
        """The status and the parts of an answer."""
        self.begun.append(told(self.client.events))
        self.client.step("look-up")(lambda: None)()
        if path == "/raises":
            raise DECLINED
        if path.startswith("/stream"):
            return 200, [b"a", DECLINED if path == "/stream-raises" else b"b"]
        return int(path[1:]), [b"x"]

    def make(self, part: bytes | Exception, number: int) -> bytes:
        if number:  # the first part is on its way
            self.waits.set()
            assert self.gate.wait(60)
        if isinstance(part, Exception):
            raise part
        self.client.step("make")(lambda: None)()
        return part * 100_000

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        status, parts = self.plan(environ["PATH_INFO"])
        start_response(f"{status} Whatever", [("Content-Type", "text/plain")])
        if len(parts) == 1:
            return [b"x"]
        return (self.make(part, number) for number, part in enumerate(parts))

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        status, parts = self.plan(scope["path"])
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        if len(parts) == 1:
            await send({"type": "http.response.body", "body": b"x"})
            return
        for number, part in enumerate(parts):
            body = await asyncio.get_running_loop().run_in_executor(None, with_context(self.make), part, number)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(params=["asgi", "wsgi"])
def serve(request: pytest.FixtureRequest, client: RecordingClient) -> Iterator[Callable[..., tuple[Shop, str]]]:
    """Serves the shop behind the middleware; gives it and its address."""
    with contextlib.ExitStack() as stack:

        def begin(**options: Any) -> tuple[Shop, str]:
            shop = Shop(client)
            stack.callback(shop.gate.set)
            options = {"flow": "checkout", "step_key": "handle-request", **options}
            if request.param == "asgi":
                return shop, stack.enter_context(asgi_server(asgi.FailpathMiddleware(shop.asgi, client, **options)))
            return shop, stack.enter_context(wsgi_server(wsgi.FailpathMiddleware(shop.wsgi, client, **options)))

        yield begin


@pytest.mark.parametrize(
    ("path", "outcome", "message"),
    [
        ("/200", "success", None),
        ("/404", "success", None),
        ("/499", "success", None),
        ("/500", "error(HTTP 500)", "Internal Server Error"),
        ("/503", "error(HTTP 503)", "Service Unavailable"),
        ("/599", "error(HTTP 599)", ""),
        ("/raises", "error(ValueError)", "declined"),
    ],
)
def test_the_step_begins_before_the_application_and_its_outcome_is_that_of_the_answer(
    serve: Any, client: RecordingClient, path: str, outcome: str, message: str | None
) -> None:
    shop, url = serve()
    with contextlib.suppress(httpx.TransportError):
        httpx.get(url + path, headers={"x-request-id": "req_1"})
    until(lambda: client.story("checkout", "req_1").startswith(f"handle-request:{outcome} look-up:success"))
    assert shop.begun == [["handle-request:running"]]
    (end,) = [event for event in client.events if event.step_key == "handle-request" and event.is_outcome]
    assert (None if end.error is None else end.error.message) == message


def test_steps_of_the_application_lie_within_the_step_of_the_request(
    serve: Any, client: RecordingClient, tracing: Tracing
) -> None:
    shop, url = serve()
    shop.gate.set()
    httpx.get(f"{url}/stream")
    until(lambda: told(client.events)[-1] == "handle-request:success")
    outer = tracing.named("checkout/handle-request")
    inner = [span for span in tracing.spans if span.name in ("checkout/look-up", "checkout/make")]
    assert len(inner) == 3
    assert {span.parent and span.parent.span_id for span in inner} == {outer.context and outer.context.span_id}


@pytest.mark.parametrize(("path", "outcome"), [("/stream", "success"), ("/stream-raises", "error")])
def test_a_stream_ends_the_step_with_its_last_byte(serve: Any, client: RecordingClient, path: str, outcome: str) -> None:
    shop, url = serve()
    with contextlib.suppress(httpx.TransportError), httpx.stream("GET", url + path) as answer:
        parts = answer.iter_bytes()
        assert next(parts)
        assert shop.waits.wait(60)
        assert client.story("checkout").startswith("handle-request:running")
        shop.gate.set()
        for _ in parts:
            pass
    until(lambda: told(client.events)[-1] == f"handle-request:{outcome}")


def test_a_client_that_goes_away_leaves_no_step_running(serve: Any, client: RecordingClient) -> None:
    shop, url = serve()
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert connection.recv(100)
        assert shop.waits.wait(60)
    shop.gate.set()
    until(lambda: any(event.step_key == "handle-request" and event.is_outcome for event in client.events))


def test_a_function_chooses_the_key_and_none_is_no_step(serve: Any, client: RecordingClient) -> None:
    def key(raw: Any) -> str | None:
        run = current_run()
        assert run is not None
        return f"{run.flow_key}-begins" if run.run_id == "first" else None

    _, url = serve(step_key=key)
    for run_id in ("first", "second"):
        httpx.get(f"{url}/200", headers={"x-request-id": run_id})
    until(lambda: client.story("checkout", "first") == "checkout-begins:success look-up:success")
    assert client.story("checkout", "second") == "look-up:success"


def test_a_function_that_raises_costs_the_step_alone(
    serve: Any, client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    _, url = serve(step_key=lambda raw: 1 / 0)
    assert httpx.get(f"{url}/404").status_code == 404
    assert client.story("checkout") == "look-up:success"
    assert "a request could not be made a step" in caplog.text


def test_a_request_without_a_run_is_no_step(serve: Any, client: RecordingClient) -> None:
    _, url = serve(flow={"/other": "checkout"})
    assert httpx.get(f"{url}/404").status_code == 404
    assert client.events == []


def test_a_callers_run_gets_the_step_too(serve: Any, client: RecordingClient) -> None:
    _, url = serve()
    caller = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "baggage": "failpath.flow.slug=order,failpath.run.id=theirs"}
    httpx.get(f"{url}/200", headers=caller)
    until(lambda: client.story("order", "theirs") == "handle-request:success look-up:success")
    assert {event.trace_id for event in client.events} == {"1" * 32}


@pytest.mark.parametrize("kind", [asgi, wsgi])
def test_a_key_that_cannot_be_one_is_refused_at_construction(client: RecordingClient, kind: Any) -> None:
    for wrong in ("", 7):
        with pytest.raises(ConfigError, match="step_key must be"):
            kind.FailpathMiddleware(lambda: None, client, step_key=wrong)


def test_a_client_that_is_switched_off_opens_no_step(tracing: Tracing) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    with FailpathClient(enabled=False, tracer_provider=tracing.provider) as off:
        middleware = asgi.FailpathMiddleware(app, off, flow="checkout", step_key="handle-request")
        asyncio.run(middleware({"type": "http"}, _hear(), _say))
    assert tracing.spans == []


# What only ASGI has


async def _say(message: Any) -> None:
    pass


def _hear(*kinds: str) -> Any:
    left = iter(kinds)

    async def receive() -> Any:
        return {"type": next(left)}

    return receive


def _exchange(client: RecordingClient, app: Any, receive: Any = None, kind: str = "http") -> None:
    middleware = asgi.FailpathMiddleware(app, client, flow="checkout", step_key="handle-request")
    asyncio.run(middleware({"type": kind, "path": "/"}, receive or _hear(), _say))


def test_what_runs_after_the_last_byte_is_of_the_run_and_keeps_its_own_context(client: RecordingClient) -> None:
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        before = trace.get_current_span()
        own = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
        with trace.use_span(own):
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})
            seen.append(trace.get_current_span() is own)
            client.step("send-mail")(lambda: None)()
        seen.append(trace.get_current_span() is before)

    _exchange(client, app)
    assert seen == [True, True]
    assert told(client.events) == ["handle-request:running", "handle-request:success", "send-mail:running", "send-mail:success"]


def test_an_exception_behind_an_answer_of_500_names_the_error(client: RecordingClient) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500})
        await send({"type": "http.response.body"})
        raise DECLINED

    with pytest.raises(ValueError, match="declined") as raised:
        _exchange(client, app)
    assert raised.value is DECLINED
    assert client.story("checkout") == "handle-request:error(ValueError)"


def test_a_cancelled_request_is_an_error_of_that_name(client: RecordingClient) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            asked.set()
            await asyncio.Event().wait()

        middleware = asgi.FailpathMiddleware(app, client, flow="checkout", step_key="handle-request")
        task = asyncio.create_task(middleware({"type": "http"}, _hear(), _say))
        await asked.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    assert client.story("checkout") == "handle-request:error(CancelledError)"


class WebSocketDisconnect(Exception):
    """As frameworks have it."""


@pytest.mark.parametrize(
    ("kind", "messages", "heard", "outcome"),
    [
        ("http", [], [], "error(HTTP 500)"),
        ("http", [], ["http.disconnect"], "success"),
        ("http", [{"type": "http.response.start", "status": 200}], [], "error(IncompleteAnswer)"),
        ("http", [{"type": "http.response.start", "status": 200}], ["http.disconnect"], "success"),
        (
            "http",
            [
                {"type": "http.response.start", "status": 200, "trailers": True},
                {"type": "http.response.body"},
                {"type": "http.response.trailers"},
            ],
            [],
            "success",
        ),
        ("http", [{"type": "http.response.start", "status": 200}, {"type": "http.response.pathsend"}], [], "success"),
        ("websocket", [], [], "error(HTTP 500)"),
        ("websocket", [{"type": "websocket.accept"}], ["websocket.disconnect"], "success"),
        ("websocket", [{"type": "websocket.close"}], [], "success"),
        ("websocket", [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1000}], [], "success"),
        ("websocket", [{"type": "websocket.accept"}, {"type": "websocket.close", "code": 1011}], [], "error(WebSocket 1011)"),
        ("websocket", [{"type": "websocket.http.response.start", "status": 403}], [], "success"),
        ("websocket", [{"type": "websocket.http.response.start", "status": 503}], [], "error(HTTP 503)"),
    ],
)
def test_an_application_that_returns_leaves_the_outcome_that_its_messages_tell(
    client: RecordingClient, kind: str, messages: list[Any], heard: list[str], outcome: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        for _ in heard:
            await receive()

    _exchange(client, app, _hear(*heard), kind)
    assert client.story("checkout") == f"handle-request:{outcome}"


@pytest.mark.parametrize(("heard", "outcome"), [(True, "success"), (False, "error(WebSocketDisconnect)")])
def test_what_frameworks_raise_because_the_client_has_gone_is_no_failure(
    client: RecordingClient, heard: bool, outcome: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        if heard:
            await receive()
        raise WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect):
        _exchange(client, app, _hear("websocket.disconnect"), "websocket")
    assert client.story("checkout") == f"handle-request:{outcome}"


@pytest.mark.parametrize("caught", [True, False], ids=["a framework", "a bare application"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_server_that_refuses_to_send_because_the_client_has_gone_tells_of_no_failure(
    client: RecordingClient, kind: str, caught: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200} if kind == "http" else {"type": "websocket.accept"})
        try:
            await send({"type": "http.response.body", "more_body": True} if kind == "http" else {"type": "websocket.send"})
        except OSError as error:
            if not caught:
                raise
            raise WebSocketDisconnect from error

    async def say(message: Any) -> None:
        if message["type"] in ("http.response.body", "websocket.send"):
            raise ConnectionResetError("the client has gone")

    middleware = asgi.FailpathMiddleware(app, client, flow="checkout", step_key="handle-request")
    with pytest.raises(WebSocketDisconnect if caught else ConnectionResetError):
        asyncio.run(middleware({"type": kind}, _hear(), say))
    assert client.story("checkout") == "handle-request:success"


def test_with_delivery_await_the_start_is_sent_before_the_application_is_asked_and_the_end_before_it_returns() -> None:
    exporter = ScriptedExporter()
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append(client.stats().sent)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        sent.append(client.stats().sent)

    with FailpathClient(exporter=exporter, flows=False, delivery="await") as client:
        middleware = asgi.FailpathMiddleware(app, client, flow="checkout", step_key="handle-request")
        asyncio.run(middleware({"type": "http"}, _hear(), _say))
    assert sent == [1, 2]
