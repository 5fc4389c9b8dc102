"""A run for each request of a WSGI application: Flask, Django, Bottle, Pyramid and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from failpath_otel.client import FailpathClient
from failpath_otel.integrations.requests import FlowOf, Request, RunChooser, RunIdOf, StepKeyOf
from failpath_otel.integrations.served import Served, failure_of

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class FailpathMiddleware:
    """Makes a run current while a request is served, up to the last byte of its answer. Exceptions pass unchanged.

    ::

        app.wsgi_app = FailpathMiddleware(app.wsgi_app, failpath, flow={"POST /checkout": "checkout"})  # Flask
        application = FailpathMiddleware(get_wsgi_application(), failpath, flow="checkout")  # Django's wsgi.py

    Args:
        app: The application.
        client, flow, run_id, accept_incoming, step_key: As for `failpath_otel.integrations.asgi.FailpathMiddleware`; functions
            are given the WSGI environ. The step of an answer that is a list or a file ends when the server gets it, since
            nothing of the application runs any more.

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
        step_key: StepKeyOf[Environ] | None = None,
    ) -> None:
        self._app = app
        self._choose: RunChooser[Environ] = RunChooser(client, flow, run_id, accept_incoming=accept_incoming, step_key=step_key)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serves one request."""
        request = _request(environ)
        run = self._choose(request)
        baggage = self._choose.baggage_within(request, run)
        if baggage is not None:
            environ["HTTP_BAGGAGE"] = baggage
        served = self._choose.begin(request, run)
        if served is None:
            return self._app(environ, start_response)
        answer = _StartedAnswer(served, start_response)
        with served:
            body = self._app(environ, answer.start if served.is_step else start_response)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            answer.end()
            return body  # nothing of the application runs any more, and servers send these two faster as they are
        return _Streamed(served, answer, body)


class _StartedAnswer:
    """What is known of an answer, for the step of its request."""

    def __init__(self, served: Served, start_response: Callable[..., Any]) -> None:
        self._served = served
        self._start_response = start_response
        self._status: int | None = None

    def start(self, status: str, *more: Any, **named: Any) -> Any:
        """Takes the place of the server's ``start_response``."""
        code = str(status)[:3]
        self._status = int(code) if code.isdecimal() else None
        return self._start_response(status, *more, **named)

    def end(self) -> None:
        """The answer is complete, or the client has gone; later calls do nothing."""
        self._served.end(failure_of(self._status))


class _Streamed:
    """A body that is made while it is sent, each part of it within the run."""

    def __init__(self, served: Served, answer: _StartedAnswer, body: Iterable[bytes]) -> None:
        self._served = served
        self._answer = answer
        self._body = body
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with self._served:
                if self._parts is None:
                    self._parts = iter(self._body)
                return next(self._parts)
        except StopIteration:
            self._answer.end()
            raise

    def close(self) -> None:
        close = cast("Callable[[], object] | None", getattr(self._body, "close", None))
        if close is not None:
            with self._served:
                close()
        self._answer.end()


def _request(environ: Environ) -> Request[Environ]:
    def header(name: str) -> str | None:
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value if isinstance(value, str) else None

    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    return Request(environ, str(environ.get("REQUEST_METHOD", "")).upper(), path, header)
