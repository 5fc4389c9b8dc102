"""A run for each request of an ASGI application: FastAPI, Starlette, Django, Litestar and others."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from failpath_otel.client import FailpathClient
from failpath_otel.delivery.process import EXIT_TIMEOUT_MILLIS
from failpath_otel.integrations.requests import FlowOf, NoRun, Request, RunChooser, RunIdOf
from failpath_otel.steps.run import Run

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class FailpathMiddleware:
    """Makes a run current while a request is served, up to the last byte of its answer. Exceptions pass unchanged.

    ::

        app.add_middleware(FailpathMiddleware, client=failpath, flow={"POST /checkout": "checkout"}, run_id="x-request-id")

    A request that carries a run in its baggage goes on with that one; other requests begin a run of the flow that fits, and
    those that fit none have no run. A WebSocket has a run as a request has, for as long as it is open; its method is GET, as
    that of its handshake. It opens no span and records nothing: steps do.
    When the application shuts down, what was recorded is sent, for at most 3 seconds: uvicorn ends by a signal, past Python's
    exit handlers.

    Args:
        app: The application.
        client: The client whose runs these are.
        flow: A flow's slug (or `FlowKey`) for every request; a mapping of ``"/path"`` or ``"METHOD /path"``, with ``*`` and
            ``?``, to slugs, the first that fits; or a function of the ASGI scope that gives a slug or ``None``. Without it
            only runs of callers are gone on with.
        run_id: The header with the run's id, or a function of the scope. Without a value an id is made.
        accept_incoming: Go on with a caller's run. False at the edge, where callers are strangers. Without it the variable
            FAILPATH_ACCEPT_INCOMING says so; true without both.

    Raises:
        ConfigError: An argument is of another kind than these.
    """

    def __init__(
        self,
        app: App,
        client: FailpathClient,
        *,
        flow: FlowOf[Scope] | None = None,
        run_id: RunIdOf[Scope] = "x-request-id",
        accept_incoming: bool | None = None,
    ) -> None:
        self._app = app
        self._client = client
        self._choose: RunChooser[Scope] = RunChooser(client, flow, run_id, accept_incoming=accept_incoming)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection, or the application's lifespan."""
        if scope.get("type") == "lifespan":
            await self._app(scope, receive, self._flushing(send))
            return
        run = self._begin(scope) if scope.get("type") in ("http", "websocket") else None
        if run is None:
            await self._app(scope, receive, send)
            return
        with run:
            await self._app(scope, receive, send)

    def _begin(self, scope: Scope) -> Run[Any] | NoRun | None:
        request = _request(scope)
        run = self._choose(request)
        baggage = self._choose.baggage_within(request, run)
        if baggage is not None:
            others = [(key, value) for key, value in scope.get("headers", ()) if key.lower() != b"baggage"]
            # Not in a copy of the scope: middlewares around this one read there what the router finds.
            scope["headers"] = [*others, (b"baggage", baggage.encode("latin-1"))]
        return run

    def _flushing(self, send: Send) -> Send:
        async def flush_and_send(message: MutableMapping[str, Any]) -> None:
            if message.get("type") in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                with contextlib.suppress(Exception):  # raise_on_send_error is for the service's own calls
                    await self._client.aflush(EXIT_TIMEOUT_MILLIS)
            await send(message)

        return flush_and_send


def _request(scope: Scope) -> Request[Scope]:
    def header(name: str) -> str | None:
        wanted = name.lower().encode("latin-1", "replace")
        found = [value for key, value in scope.get("headers", ()) if key.lower() == wanted]
        # A field that comes in several lines is one list (RFC 9110, section 5.3).
        return b",".join(found).decode("latin-1") if found else None

    method = "GET" if scope.get("type") == "websocket" else str(scope.get("method", "")).upper()
    return Request(scope, method, str(scope.get("path", "")), header)
