"""WebSockets of FastAPI under uvicorn, over real sockets: each has a run, and a step that ends with the connection."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.delivery import until
from support.web import asgi_server

from failpath_otel import notices
from failpath_otel.integrations.asgi import FailpathMiddleware
from failpath_otel.testing import RecordingClient


@pytest.fixture
def client(needs: Callable[..., None]) -> Iterator[RecordingClient]:
    needs("fastapi", "uvicorn", "websockets")
    notices.forget()
    with RecordingClient(flows=False) as client:
        yield client


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("leave", "success"),  # the endpoint does not catch WebSocketDisconnect
        ("close 1000", "success"),
        ("close 1011", "error(WebSocket 1011)"),
        ("raise", "error(ValueError)"),
    ],
)
def test_a_websocket_is_a_step_of_its_run_from_the_handshake_to_its_end(
    client: RecordingClient, said: str, outcome: str
) -> None:
    from fastapi import FastAPI, WebSocket
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    look_up = client.step("look-up")(lambda: None)
    app = FastAPI()

    @app.websocket("/prices")
    async def prices(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            heard = await socket.receive_text()
            look_up()
            if heard.startswith("close"):
                await socket.close(int(heard.split()[1]))
                return
            if heard == "raise":
                raise ValueError("declined")
            await socket.send_text("told")

    middleware: Any = FailpathMiddleware(app, client, flow={"GET /prices": "prices"}, step_key="serve-prices")
    with asgi_server(middleware, ws="websockets-sansio") as url:
        address = f"{url.replace('http', 'ws')}/prices"
        with connect(address, additional_headers={"x-request-id": "req_1"}) as socket, contextlib.suppress(ConnectionClosed):
            socket.send("ask")
            assert socket.recv(timeout=60) == "told"
            assert client.story("prices", "req_1").startswith("serve-prices:running")
            if said != "leave":
                socket.send(said)
                socket.recv(timeout=60)
        looked = "success" if said == "leave" else "success,success"
        until(lambda: client.story("prices", "req_1") == f"serve-prices:{outcome} look-up:{looked}")


def test_a_client_that_goes_away_while_it_is_told_something_is_no_failure(client: RecordingClient) -> None:
    from fastapi import FastAPI, WebSocket
    from websockets.sync.client import connect

    app = FastAPI()

    @app.websocket("/prices")
    async def prices(socket: WebSocket) -> None:
        await socket.accept()
        while True:  # never asks what the client says; uvicorn refuses to send any more
            await socket.send_text("told")
            await asyncio.sleep(0)

    middleware: Any = FailpathMiddleware(app, client, flow={"GET /prices": "prices"}, step_key="serve-prices")
    with asgi_server(middleware, ws="websockets-sansio") as url:
        with connect(f"{url.replace('http', 'ws')}/prices", additional_headers={"x-request-id": "req_1"}) as socket:
            assert socket.recv(timeout=60) == "told"
        until(lambda: client.story("prices", "req_1") == "serve-prices:success")
