"""A real aiohttp server: each request has a run, and its outcome, whether or not OpenTelemetry instruments the server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from failpath_otel import current_run, notices
from failpath_otel.integrations.aiohttp import FailpathMiddleware
from failpath_otel.testing import RecordingClient

CALLER = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "baggage": "failpath.flow.slug=order,failpath.run.id=theirs"}
# Of the instrumentation's own, which aiohttp does not like.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class _InstrumentedApplication:DeprecationWarning")
Ask = Callable[[Any, str], Awaitable[None]]


@pytest.fixture
def client(needs: Callable[..., None]) -> Iterator[RecordingClient]:
    needs("aiohttp")
    notices.forget()
    with RecordingClient(flows=False) as client:
        yield client


@pytest.fixture(params=[False, True], ids=["bare", "instrumented"])
def instrumented(request: pytest.FixtureRequest, needs: Callable[..., None]) -> Iterator[None]:
    if not request.param:
        yield
        return
    needs("opentelemetry.instrumentation.aiohttp_server")
    from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor

    AioHttpServerInstrumentor().instrument()
    yield
    AioHttpServerInstrumentor().uninstrument()


def serve(client: RecordingClient, ask: Ask, **options: Any) -> None:
    """Has ``ask`` call a server with the handlers below, by a session and the server's address."""
    from aiohttp import ClientSession, web

    step = client.step("look-up")(lambda: None)
    raised: dict[str, type[Exception]] = {
        "raises": ValueError,
        "reset": ConnectionResetError,
        "raise-503": web.HTTPServiceUnavailable,
        "raise-404": web.HTTPNotFound,
    }

    async def checkout(request: web.Request) -> web.Response:
        step()
        how = request.query.get("how", "200")
        if how in raised:
            raise raised[how]
        if how == "forgets":
            return None  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
        return web.Response(status=int(how))

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(2):
            await answer.write(b"x")
            step()
        return answer

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x")
            await asyncio.sleep(0)

    async def prices(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            step()
            await socket.send_str("told")
        return socket

    async def main() -> None:
        app = web.Application(middlewares=[FailpathMiddleware(client, **{"flow": {"/*": "checkout"}, **options})])
        app.add_routes([web.post("/checkout", checkout), web.get("/stream", stream), web.get("/prices", prices)])
        app.add_routes([web.get("/endless", endless)])
        runner = web.AppRunner(app, shutdown_timeout=5)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            async with ClientSession() as session:
                await ask(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await runner.cleanup()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("200", "success"),
        ("404", "success"),
        ("503", "error(HTTP 503)"),
        ("raise-404", "success"),
        ("raise-503", "error(HTTP 503)"),
        ("raises", "error(ValueError)"),
        ("reset", "error(ConnectionResetError)"),
        ("forgets", "error(HTTP 500)"),
    ],
)
@pytest.mark.usefixtures("instrumented")
def test_a_request_is_a_step_of_its_run_with_the_outcome_of_its_answer(client: RecordingClient, how: str, outcome: str) -> None:
    async def ask(session: Any, url: str) -> None:
        async with session.post(f"{url}/checkout?how={how}", headers={"x-request-id": "req_1"}):
            pass

    serve(client, ask, step_key="take-order")
    client.assert_story("checkout", f"take-order:{outcome} look-up:success", "req_1")
    assert current_run() is None


@pytest.mark.usefixtures("instrumented")
def test_a_callers_run_is_gone_on_with_where_that_is_allowed(client: RecordingClient) -> None:
    async def ask(session: Any, url: str) -> None:
        async with session.post(f"{url}/checkout", headers={**CALLER, "x-request-id": "ours"}):
            pass

    serve(client, ask)
    client.assert_story("order", "look-up:success", "theirs")
    assert {event.trace_id for event in client.events} == {"1" * 32}
    client.reset()
    serve(client, ask, accept_incoming=False)
    client.assert_story("checkout", "look-up:success", "ours")


def test_streams_and_websockets_have_the_run_until_their_end(client: RecordingClient) -> None:
    async def ask(session: Any, url: str) -> None:
        async with session.get(f"{url}/stream", headers={"x-request-id": "stream"}) as answer:
            assert await answer.read() == b"xx"
        async with session.ws_connect(f"{url}/prices", headers={"x-request-id": "socket"}) as socket:
            for _ in range(2):
                await socket.send_str("ask")
                await socket.receive_str()

    serve(client, ask, step_key="take-order")
    for run_id in ("stream", "socket"):
        client.assert_story("checkout", "take-order:success look-up:success,success", run_id)


def test_a_client_that_goes_away_is_no_failure(client: RecordingClient) -> None:
    async def ask(session: Any, url: str) -> None:
        ended = asyncio.Event()
        client.on_event = lambda event: ended.set() if event.status != "running" else None
        async with session.get(f"{url}/endless") as answer:
            await answer.content.read(1)
        await asyncio.wait_for(ended.wait(), 60)

    serve(client, ask, step_key="take-order")
    client.assert_story("checkout", "take-order:success")


def test_a_request_that_fits_no_flow_has_no_run(client: RecordingClient) -> None:
    async def ask(session: Any, url: str) -> None:
        async with session.post(f"{url}/checkout") as answer:
            assert answer.status == 200

    serve(client, ask, flow={"/other": "checkout"}, step_key="take-order")
    assert client.events == []


def test_without_aiohttp_the_error_says_what_to_install(client: RecordingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp.web", None)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ImportError, match="pip install aiohttp"):
        FailpathMiddleware(client)
