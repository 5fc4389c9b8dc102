"""One run across two services: real servers and sockets, OpenTelemetry's own instrumentation, W3C propagation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from support.tracing import Tracing
from support.web import asgi_server

from failpath_otel.integrations.asgi import FailpathMiddleware
from failpath_otel.testing import RecordingClient

Serve = Callable[[Any], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves an application on a socket of its own; gives its address."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(asgi_server(app))


def test_a_checkout_goes_on_in_the_service_behind_as_one_run_and_one_trace(serve: Serve) -> None:
    here, there = Tracing(), Tracing()
    shop = RecordingClient(tracer_provider=here.provider, flows=False)
    stock = RecordingClient(tracer_provider=there.provider, flows=False)

    behind = FastAPI()

    @stock.step("reserve-stock")
    def reserve() -> str:
        return "reserved"

    @behind.post("/reserve")
    async def reserve_route() -> str:
        return reserve()

    FastAPIInstrumentor.instrument_app(behind, tracer_provider=there.provider)
    address = serve(behind)

    front = FastAPI()
    front.add_middleware(FailpathMiddleware, client=shop, flow={"POST /checkout": "checkout"})

    @front.post("/checkout")
    async def checkout() -> str:
        async with httpx.AsyncClient() as client:
            HTTPXClientInstrumentor.instrument_client(client, tracer_provider=here.provider)
            run = shop.current_run()
            assert run is not None
            answer = await run.step("call-stock", lambda: client.post(f"{address}/reserve"))
        return answer.json()

    FastAPIInstrumentor.instrument_app(front, tracer_provider=here.provider)
    answer = httpx.post(f"{serve(front)}/checkout", headers={"X-Request-Id": "req_1"})

    assert answer.json() == "reserved"
    assert shop.story("checkout", "req_1") == "call-stock:success"
    assert stock.story("checkout", "req_1") == "reserve-stock:success"
    assert len({event.trace_id for event in [*shop.events, *stock.events]}) == 1
    for tracing in (here, there):
        tracing.provider.shutdown()
