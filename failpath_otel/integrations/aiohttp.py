"""A run for each request of an aiohttp server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from failpath_otel.client import FailpathClient
from failpath_otel.integrations.optional import needed
from failpath_otel.integrations.requests import FlowOf, Request, RunChooser, RunIdOf, StepKeyOf
from failpath_otel.integrations.served import failure_of

Handler = Callable[[Any], Awaitable[Any]]


class FailpathMiddleware:
    """Makes a run current while a handler serves a request, until it returns. Exceptions pass unchanged.

    ::

        app = web.Application(middlewares=[FailpathMiddleware(failpath, flow={"POST /checkout": "checkout"})])

    Give it as the first of the middlewares. A WebSocket's run lasts as long as its handler.

    Args:
        client, flow, run_id, accept_incoming, step_key: As for `failpath_otel.integrations.asgi.FailpathMiddleware`; functions
            are given the `aiohttp.web.Request`. An `aiohttp.web.HTTPException` that is raised is an answer with its status.

    Raises:
        ConfigError: An argument is of another kind than these.
        ImportError: aiohttp is not installed.
    """

    __middleware_version__: Final = 1  # by which aiohttp knows middlewares of its current kind

    def __init__(
        self,
        client: FailpathClient,
        *,
        flow: FlowOf[Any] | None = None,
        run_id: RunIdOf[Any] = "x-request-id",
        accept_incoming: bool | None = None,
        step_key: StepKeyOf[Any] | None = None,
    ) -> None:
        self._http_exception: type[BaseException] = needed("aiohttp.web", "aiohttp").HTTPException
        self._choose: RunChooser[Any] = RunChooser(client, flow, run_id, accept_incoming=accept_incoming, step_key=step_key)

    async def __call__(self, request: Any, handler: Handler) -> Any:
        """Serves one request."""
        asked = _request(request)
        served = self._choose.begin(asked, self._choose(asked))
        if served is None:
            return await handler(request)
        with served:
            try:
                await served.started()
                answer = await handler(request)
            except BaseException as error:
                await served.aend(self._failure(request, error))
                raise
            # What is no answer aiohttp answers for.
            await served.aend(failure_of(getattr(answer, "status", None) if hasattr(answer, "prepare") else 500))
            return answer

    def _failure(self, request: Any, error: BaseException) -> BaseException | None:
        if isinstance(error, self._http_exception):
            return failure_of(getattr(error, "status", None))
        # To write is refused where the client has gone; a request of the handler's own may be reset as well.
        gone = isinstance(error, ConnectionResetError) and request.transport is None
        return None if gone else error


def _request(request: Any) -> Request[Any]:
    def header(name: str) -> str | None:
        found = request.headers.getall(name, ())
        return ",".join(found) if found else None

    return Request(request, request.method.upper(), request.path, header)
