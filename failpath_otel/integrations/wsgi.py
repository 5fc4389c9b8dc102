"""A run for each request of a WSGI application: Flask, Django, Bottle, Pyramid and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from failpath_otel.client import FailpathClient
from failpath_otel.integrations.requests import FlowOf, Request, RunChooser, RunIdOf, StepKeyOf
from failpath_otel.integrations.served import Parts, failure_of

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
        answer = _StartedAnswer(start_response)
        with served:
            body = self._app(environ, answer.start if served.is_step else start_response)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            served.end(answer.judge(None))
            return body  # nothing of the application runs any more, and servers send these two faster as they are
        return Parts(served, body, answer.judge)


class _StartedAnswer:
    """What is known of an answer, for the step of its request."""

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start_response = start_response
        self._status: int | None = None

    def start(self, status: str, *more: Any, **named: Any) -> Any:
        """Takes the place of the server's ``start_response``."""
        code = str(status)[:3]
        self._status = int(code) if code.isdecimal() else None
        return self._start_response(status, *more, **named)

    def judge(self, error: BaseException | None) -> BaseException | None:
        """The step's error: the exception, or what the status tells where there is none."""
        return failure_of(self._status) if error is None else error


def _request(environ: Environ) -> Request[Environ]:
    def header(name: str) -> str | None:
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value if isinstance(value, str) else None

    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    return Request(environ, str(environ.get("REQUEST_METHOD", "")).upper(), path, header)
