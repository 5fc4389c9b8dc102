"""A run for each request of an ASGI application: FastAPI, Starlette, Django, Litestar and others."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from failpath_otel.client import FailpathClient
from failpath_otel.delivery.process import EXIT_TIMEOUT_MILLIS
from failpath_otel.errors import DeliveryError
from failpath_otel.integrations.requests import FlowOf, Request, RunChooser, RunIdOf, StepKeyOf
from failpath_otel.integrations.served import Served, failure_of, named_failure

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CLIENT_LEFT: Final = frozenset({"ClientDisconnect", "WebSocketDisconnect"})
"""How frameworks tell an endpoint that its client has gone, by name, since there is one such type for each framework."""
_WEBSOCKET_FAILED: Final = range(1011, 1015)
"""The codes by which a server closes for a reason of its own: internal error, restart, overload, bad gateway."""


class FailpathMiddleware:
    """Makes a run current while a request is served, up to the last byte of its answer. Exceptions pass unchanged.

    ::

        app.add_middleware(FailpathMiddleware, client=failpath, flow={"POST /checkout": "checkout"}, run_id="x-request-id")

    A request that carries a run in its baggage goes on with that one; other requests begin a run of the flow that fits, and
    those that fit none have no run. A WebSocket has a run as a request has, for as long as it is open; its method is GET, as
    that of its handshake. Without ``step_key`` it opens no span and records nothing: steps do.
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
        step_key: Makes each request that has a run a step of it, so that what fails before the first step shows: the step's
            key, or a function of the scope that gives one or ``None``. It begins before the application and ends with the
            last byte of the answer; a WebSocket's with the connection. A status of 500 and above is an error named
            ``HTTP 503``, an exception one of its own name; a 4xx is an answer, and the step a success.

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
        step_key: StepKeyOf[Scope] | None = None,
    ) -> None:
        self._app = app
        self._client = client
        self._choose: RunChooser[Scope] = RunChooser(client, flow, run_id, accept_incoming=accept_incoming, step_key=step_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection, or the application's lifespan."""
        if scope.get("type") == "lifespan":
            await self._app(scope, receive, self._flushing(send))
            return
        served = self._begin(scope) if scope.get("type") in ("http", "websocket") else None
        if served is None:
            await self._app(scope, receive, send)
            return
        with served:
            if served.is_step:
                await _Exchange(served, receive, send).of(self._app, scope)
            else:
                await self._app(scope, receive, send)

    def _begin(self, scope: Scope) -> Served | None:
        request = _request(scope)
        run = self._choose(request)
        baggage = self._choose.baggage_within(request, run)
        if baggage is not None:
            others = [(key, value) for key, value in scope.get("headers", ()) if key.lower() != b"baggage"]
            # Not in a copy of the scope: middlewares around this one read there what the router finds.
            scope["headers"] = [*others, (b"baggage", baggage.encode("latin-1"))]
        return self._choose.begin(request, run)

    def _flushing(self, send: Send) -> Send:
        async def flush_and_send(message: MutableMapping[str, Any]) -> None:
            if message.get("type") in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                with contextlib.suppress(DeliveryError):  # raise_on_send_error is for the service's own calls
                    await self._client.aflush(EXIT_TIMEOUT_MILLIS)
            await send(message)

        return flush_and_send


class _Exchange:
    """What goes between server and application while a request is a step; by it is known when and how the step ends."""

    def __init__(self, served: Served, receive: Receive, send: Send) -> None:
        self._served = served
        self._receive_next = receive
        self._send_on = send
        self._answered = False
        self._complete = False
        self._trailers = False
        self._client_left = False
        self._told_by: OSError | None = None
        self._failure: Exception | None = None

    async def of(self, app: App, scope: Scope) -> None:
        """Serves ``scope``, and ends the step where the last byte has not done so."""
        try:
            await self._served.started()
            await app(scope, self._receive, self._send)
        except BaseException as error:
            went = self._client_left and (error is self._told_by or type(error).__name__ in _CLIENT_LEFT)
            await self._served.aend(None if went else error)
            raise
        await self._served.aend(self._failure or self._shortfall(scope))

    async def _receive(self) -> MutableMapping[str, Any]:
        message = await self._receive_next()
        if message.get("type") in ("http.disconnect", "websocket.disconnect"):
            self._client_left = True
        return message

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self._note(message)
        try:
            await self._send_on(message)
        except OSError as error:  # by which a server tells that the client has gone (ASGI 2.4)
            self._client_left, self._told_by = True, error
            raise
        # After an answer that tells of a failure the exception behind it may follow, which says more.
        if self._complete and self._failure is None:
            await self._served.aend()

    def _note(self, message: MutableMapping[str, Any]) -> None:
        kind = message.get("type")
        if kind in ("http.response.start", "websocket.http.response.start"):
            self._answered = True
            self._trailers = bool(message.get("trailers"))
            self._failure = failure_of(message.get("status"))
        elif kind == "http.response.body":
            self._complete = not message.get("more_body") and not self._trailers
        elif kind == "http.response.trailers":
            self._complete = not message.get("more_trailers")
        elif kind == "http.response.pathsend":
            self._complete = not self._trailers
        elif kind == "websocket.accept":
            self._answered = True
        elif kind == "websocket.close":
            self._answered = True
            code = message.get("code", 1000)
            if code in _WEBSOCKET_FAILED:
                self._failure = named_failure(f"WebSocket {code}", str(message.get("reason") or ""))

    def _shortfall(self, scope: Scope) -> Exception | None:
        """What is wrong with an application that returned without an exception."""
        if self._client_left or self._complete:
            return None
        if not self._answered:
            return failure_of(500)  # which the server answers then
        if scope.get("type") == "websocket":
            return None
        return named_failure("IncompleteAnswer", "the application returned before its answer was complete")


def _request(scope: Scope) -> Request[Scope]:
    def header(name: str) -> str | None:
        wanted = name.lower().encode("latin-1", "replace")
        found = [value for key, value in scope.get("headers", ()) if key.lower() == wanted]
        # A field that comes in several lines is one list (RFC 9110, section 5.3).
        return b",".join(found).decode("latin-1") if found else None

    method = "GET" if scope.get("type") == "websocket" else str(scope.get("method", "")).upper()
    return Request(scope, method, str(scope.get("path", "")), header)
