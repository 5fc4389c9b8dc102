"""A run for each request of a WSGI application: Flask, Django, Bottle, Pyramid and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from failpath_otel.client import FailpathClient
from failpath_otel.integrations.requests import FlowOf, NoRun, Request, RunChooser, RunIdOf
from failpath_otel.steps.run import Run

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class FailpathMiddleware:
    """Makes a run current while a request is served, up to the last byte of its answer. Exceptions pass unchanged.

    ::

        app.wsgi_app = FailpathMiddleware(app.wsgi_app, failpath, flow={"POST /checkout": "checkout"})  # Flask
        application = FailpathMiddleware(get_wsgi_application(), failpath, flow="checkout")  # Django's wsgi.py

    Args:
        app: The application.
        client, flow, run_id, accept_incoming: As for `failpath_otel.integrations.asgi.FailpathMiddleware`; functions are
            given the WSGI environ.

    Raises:
        ConfigError: An argument is of another kind than these.
    """

    def __init__(
        self,
        app: App,
        client: FailpathClient,
        *,
        flow: FlowOf[Environ] | None = None,
        run_id: RunIdOf[Environ] = "x-request-id",
        accept_incoming: bool | None = None,
    ) -> None:
        self._app = app
        self._choose: RunChooser[Environ] = RunChooser(client, flow, run_id, accept_incoming=accept_incoming)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serves one request."""
        request = _request(environ)
        run = self._choose(request)
        baggage = self._choose.baggage_within(request, run)
        if baggage is not None:
            environ["HTTP_BAGGAGE"] = baggage
        if run is None:
            return self._app(environ, start_response)
        with run:
            body = self._app(environ, start_response)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            return body  # nothing of the application runs any more, and servers send these two faster as they are
        return _Streamed(run, body)


class _Streamed:
    """A body that is made while it is sent, each part of it within the run."""

    def __init__(self, run: Run[Any] | NoRun, body: Iterable[bytes]) -> None:
        self._run = run
        self._body = body
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._run:
            if self._parts is None:
                self._parts = iter(self._body)
            return next(self._parts)

    def close(self) -> None:
        close = cast("Callable[[], object] | None", getattr(self._body, "close", None))
        if close is not None:
            with self._run:
                close()


def _request(environ: Environ) -> Request[Environ]:
    def header(name: str) -> str | None:
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value if isinstance(value, str) else None

    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    return Request(environ, str(environ.get("REQUEST_METHOD", "")).upper(), path, header)
