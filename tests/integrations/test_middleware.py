"""A run for each request, under ASGI and WSGI: which run, for how long, and that the application is served as ever."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from support.delivery import ScriptedExporter

from failpath_otel import ConfigError, ExportError, FailpathClient, FlowKey, current_run, notices
from failpath_otel.integrations import asgi, wsgi
from failpath_otel.testing import RecordingClient

CALLER = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "baggage": "failpath.flow.slug=checkout,failpath.run.id=theirs"}


@pytest.fixture
def client() -> Iterator[RecordingClient]:
    notices.forget()
    token = otel_context.attach(Context())
    with RecordingClient(flows=False) as client:
        yield client
    otel_context.detach(token)


class Asgi:
    """Serves one request by ASGI."""

    def __init__(self, client: RecordingClient, **options: Any) -> None:
        self.served: list[Any] = []
        self.middleware = asgi.FailpathMiddleware(self.app, client, **options)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.served.append(current_run())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        self.served.append(current_run())

    def __call__(self, method: str = "POST", path: str = "/checkout", headers: dict[str, str] | None = None) -> Any:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": method, "path": path, "headers": raw}
        asyncio.run(self.middleware(scope, _nothing, _taken))
        first, last = self.served
        assert first is last
        return first


class Wsgi:
    """Serves one request by WSGI, with a body that is made while it is sent."""

    def __init__(self, client: RecordingClient, **options: Any) -> None:
        self.served: list[Any] = []
        self.middleware = wsgi.FailpathMiddleware(self.app, client, **options)

    def app(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.served.append(current_run())
        return self.parts()

    def parts(self) -> Iterator[bytes]:
        try:
            self.served.append(current_run())
            yield b"a"
            self.served.append(current_run())
            yield b"b"
        finally:
            self.served.append(current_run())

    def __call__(self, method: str = "POST", path: str = "/checkout", headers: dict[str, str] | None = None) -> Any:
        environ = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path}
        environ |= {"HTTP_" + name.upper().replace("-", "_"): value for name, value in (headers or {}).items()}
        body: Any = self.middleware(environ, lambda *_: None)
        assert next(iter(body)) == b"a"
        body.close()
        assert len(set(self.served)) == 1, "the same run from the first line to the closing of the body"
        assert len(self.served) == 3
        return self.served[0]


async def _nothing() -> Any:
    return {}


async def _taken(message: Any) -> None:
    pass


@pytest.fixture(params=[Asgi, Wsgi])
def serving(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return request.param


@pytest.mark.parametrize(
    ("flow", "method", "path", "expected"),
    [
        ("checkout", "GET", "/", "checkout"),
        ({"/checkout": "checkout"}, "POST", "/checkout", "checkout"),
        ({"POST /checkout": "checkout"}, "POST", "/checkout", "checkout"),
        ({"post /checkout": "checkout"}, "POST", "/checkout", "checkout"),
        ({"POST /checkout": "checkout"}, "GET", "/checkout", None),
        ({"/orders/*": "order", "*": "other"}, "GET", "/orders/7", "order"),
        ({"/orders/*": "order", "*": "other"}, "GET", "/x", "other"),
        ({"/orders/*": "order"}, "GET", "/x", None),
        (lambda raw: "checkout", "GET", "/", "checkout"),
        (lambda raw: None, "GET", "/", None),
        (lambda raw: 1 / 0, "GET", "/", None),
        (None, "GET", "/", None),
    ],
)
def test_the_flow_is_that_of_the_first_route_that_fits(
    client: RecordingClient, serving: Any, flow: Any, method: str, path: str, expected: str | None
) -> None:
    run = serving(client, flow=flow)(method, path)
    assert (None if run is None else run.flow_key) == expected
    assert current_run() is None


def test_a_typed_flow_is_taken(client: RecordingClient, serving: Any) -> None:
    class _Checkout(FlowKey[Any]):
        pass

    assert serving(client, flow=_Checkout("checkout"))().flow_key == "checkout"


def test_the_run_id_is_that_of_the_header_of_any_case_or_made(client: RecordingClient, serving: Any) -> None:
    assert serving(client, flow="checkout")(headers={"X-Request-Id": "req_1"}).run_id == "req_1"
    assert serving(client, flow="checkout", run_id="X-Order")(headers={"x-order": "7"}).run_id == "7"
    made = {serving(client, flow="checkout")().run_id, serving(client, flow="checkout")(headers={"x-request-id": ""}).run_id}
    assert len(made) == 2
    assert "" not in made


def test_a_huge_header_gives_an_id_within_bounds(client: RecordingClient, serving: Any) -> None:
    assert len(serving(client, flow="checkout")(headers={"x-request-id": "x" * 100_000}).run_id) == 512


def test_the_run_id_may_be_a_function_of_the_request_and_one_that_raises_costs_the_run_alone(
    client: RecordingClient, serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert serving(client, flow="checkout", run_id=lambda raw: 7)().run_id == "7"
    assert serving(client, flow="checkout", run_id=lambda raw: raw["no such key"])() is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_callers_run_is_gone_on_with_whatever_the_route_in_its_trace(client: RecordingClient, serving: Any) -> None:
    run = serving(client, flow="inner")(headers=CALLER)
    assert (run.flow_key, run.run_id) == ("checkout", "theirs")
    with run:
        run.step("ship", lambda: None)
    assert client.events[0].trace_id == "1" * 32


def test_a_run_that_the_instrumentation_of_the_server_made_current_is_gone_on_with(
    client: RecordingClient, serving: Any
) -> None:
    from opentelemetry.propagate import extract

    token = otel_context.attach(extract(CALLER))
    try:
        assert serving(client)().run_id == "theirs"
    finally:
        otel_context.detach(token)


def test_at_the_edge_a_callers_run_is_not_believed(client: RecordingClient, serving: Any) -> None:
    run = serving(client, flow="checkout", accept_incoming=False)(headers={**CALLER, "x-request-id": "ours"})
    assert run.run_id == "ours"


def test_at_the_edge_a_request_without_a_flow_is_not_of_the_callers_run_either(client: RecordingClient, serving: Any) -> None:
    from opentelemetry.propagate import extract

    seen: list[object] = []

    class Looking(serving):
        def __init__(self) -> None:
            super().__init__(client, flow={"/other": "checkout"}, accept_incoming=False)

            # What a span processor, or a client of another service, would go by.
            class Served(list[Any]):
                def append(self, item: Any, /) -> None:
                    seen.append(client.current_run())
                    super().append(item)

            self.served = Served()

    token = otel_context.attach(extract(CALLER))
    try:
        assert Looking()(headers=CALLER) is None
        assert set(seen) == {None}
        assert client.current_run() is not None, "outside of the request all is as it was"
    finally:
        otel_context.detach(token)


@pytest.mark.parametrize(
    ("variable", "argument", "expected"),
    [("false", None, "ours"), ("0", None, "ours"), ("", None, "theirs"), ("false", True, "theirs"), ("true", False, "ours")],
)
def test_the_environment_says_whether_callers_are_believed_where_the_argument_does_not(
    client: RecordingClient,
    serving: Any,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    argument: bool | None,
    expected: str,
) -> None:
    monkeypatch.setenv("FAILPATH_ACCEPT_INCOMING", variable)
    asked = serving(client, flow="checkout", accept_incoming=argument)
    assert asked(headers={**CALLER, "x-request-id": "ours"}).run_id == expected


def test_a_variable_that_is_neither_true_nor_false_is_refused_at_construction(
    client: RecordingClient, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILPATH_ACCEPT_INCOMING", "perhaps")
    with pytest.raises(ConfigError, match="FAILPATH_ACCEPT_INCOMING must be true or false, got 'perhaps'"):
        serving(client)


def test_hostile_baggage_leaves_the_request_with_a_run_of_our_own(client: RecordingClient, serving: Any) -> None:
    baggage = {"baggage": "failpath.flow.slug=checkout,failpath.run.id=a%00"}
    assert serving(client, flow="checkout")(headers={**baggage, "x-request-id": "ours"}).run_id == "ours"


def test_exceptions_of_the_application_pass_as_the_same_object(client: RecordingClient) -> None:
    error = KeyError("x")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    def app_of_wsgi(environ: Any, start_response: Any) -> Any:
        raise error

    with pytest.raises(KeyError) as raised:
        asyncio.run(asgi.FailpathMiddleware(app, client, flow="checkout")({"type": "http"}, _nothing, _taken))
    assert raised.value is error
    with pytest.raises(KeyError) as raised:
        wsgi.FailpathMiddleware(app_of_wsgi, client, flow="checkout")({}, lambda *_: None)
    assert raised.value is error
    assert current_run() is None


@pytest.mark.parametrize("kind", ["lifespan", "something-new"])
def test_what_is_no_request_passes_by(client: RecordingClient, kind: str) -> None:
    serving = Asgi(client, flow="checkout")
    asyncio.run(serving.middleware({"type": kind, "path": "/"}, _nothing, _taken))
    assert serving.served == [None, None]


@pytest.mark.parametrize(
    ("flow", "headers", "expected"),
    [
        ({"/prices": "prices"}, {"x-request-id": "7"}, ("prices", "7")),
        ({"GET /prices": "prices"}, {"x-request-id": "7"}, ("prices", "7")),
        ({"POST /prices": "prices"}, {}, None),
        ("prices", CALLER, ("checkout", "theirs")),
    ],
)
def test_a_websocket_has_a_run_as_a_request_has(client: RecordingClient, flow: Any, headers: Any, expected: Any) -> None:
    seen: list[Any] = []

    async def prices(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            run = current_run()
            seen.append(None if run is None else (run.flow_key, run.run_id))

    said = iter(["websocket.connect", "websocket.receive", "websocket.disconnect"])

    async def receive() -> Any:
        return {"type": next(said)}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "websocket", "path": "/prices", "headers": raw}
    asyncio.run(asgi.FailpathMiddleware(prices, client, flow=flow)(scope, receive, _taken))
    assert seen == [expected, expected]


def test_lists_and_files_are_handed_to_the_server_as_they_are(client: RecordingClient) -> None:
    class FileWrapper:
        def __iter__(self) -> Iterator[bytes]:
            return iter(())

    for body in ([b"x"], (b"x",), FileWrapper()):
        middleware = wsgi.FailpathMiddleware(lambda *_, body=body: body, client, flow="checkout")  # type: ignore[misc]
        assert middleware({"wsgi.file_wrapper": FileWrapper}, lambda *_: None) is body


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow": 7}, "flow must be"),
        ({"flow": {"checkout": "checkout"}}, "'/checkout'"),
        ({"flow": {7: "checkout"}}, "got 7"),
        ({"run_id": ""}, "run_id must be"),
        ({"run_id": 7}, "run_id must be"),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_construction(
    client: RecordingClient, serving: Any, options: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        serving(client, **options)
    with pytest.raises(ConfigError, match="client must be"):
        serving("not a client")


@pytest.mark.parametrize("failure", [None, ExportError("refused")], ids=["sent", "refused"])
def test_the_end_of_the_lifespan_is_told_after_what_was_recorded_is_sent(failure: ExportError | None) -> None:
    exporter = ScriptedExporter(failure)
    said: list[tuple[str, bool]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        client.run("checkout", "1").step("pay", lambda: None)
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message: Any) -> None:
        said.append((message["type"], not client.stats().pending))

    with FailpathClient(exporter=exporter, flows=False, raise_on_send_error=True) as client:
        asyncio.run(asgi.FailpathMiddleware(app, client)({"type": "lifespan"}, _nothing, send))
        assert client.stats().recorded == 2
    assert said == [("lifespan.startup.complete", True), ("lifespan.shutdown.complete", True)]


async def answered(scope: Any, receive: Any, send: Any) -> None:
    """An application that a process can be handed."""
    run = current_run()
    await send({"type": "run", "run": run and (run.flow_key, run.run_id)})


def flow_of(scope: Any) -> str:
    return "checkout"


@pytest.mark.parametrize("flow", ["checkout", FlowKey("checkout"), {"POST /checkout": "checkout"}, flow_of])
def test_an_application_within_can_be_handed_to_another_process(client: RecordingClient, flow: Any) -> None:
    """As ``multiprocessing`` does it where it does not fork: pickled."""
    middleware = pickle.loads(pickle.dumps(asgi.FailpathMiddleware(answered, client, flow=flow)))
    told: list[Any] = []

    async def take(message: Any) -> None:
        told.append(message["run"])

    scope = {"type": "http", "method": "POST", "path": "/checkout", "headers": [(b"x-request-id", b"req_1")]}
    asyncio.run(middleware(scope, _nothing, take))
    assert told == [("checkout", "req_1")]
    pickle.loads(pickle.dumps(wsgi.FailpathMiddleware(flow_of, client, flow=flow)))  # type: ignore[arg-type]
