"""A run for each request of a Django project, by its list of middlewares, so that Django's test client passes through it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final, cast

from failpath_otel.client import FailpathClient
from failpath_otel.errors import ConfigError
from failpath_otel.integrations.optional import needed
from failpath_otel.integrations.requests import Request, RunChooser
from failpath_otel.integrations.served import AsyncParts, Parts, Served, failure_of
from failpath_otel.nearest import nearest

_OPTIONS: Final = ("client", "flow", "run_id", "accept_incoming", "step_key")
_RAISED: Final = "_failpath_raised"
"""The attribute of a request that is a step: a list for what its view raises."""


class FailpathMiddleware:
    """Makes a run current while Django serves a request, up to the last byte of its answer. For WSGI and ASGI alike.

    In the settings::

        MIDDLEWARE = ["failpath_otel.integrations.django.FailpathMiddleware", ...]  # the first, or after OpenTelemetry's
        FAILPATH = {"client": "shop.steps.failpath", "flow": {"POST /checkout": "checkout"}}

    ``FAILPATH`` has these keys, of which ``client`` has to be there:

    - ``client``: the `FailpathClient`, or the dotted path to it.
    - ``flow``, ``run_id``, ``accept_incoming``, ``step_key``: as for `failpath_otel.integrations.asgi.FailpathMiddleware`;
      functions are given the `django.http.HttpRequest`. Where the view raised what Django answers with a 500, the step's error
      has the name and the message of that exception.

    Args:
        get_response: Django gives it.

    Raises:
        ConfigError: ``FAILPATH`` is missing or cannot be used.
        ImportError: Django is not installed.
    """

    sync_capable: ClassVar[bool] = True
    async_capable: ClassVar[bool] = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response = get_response
        self._files: type[object] = needed("django.http", "django").FileResponse
        self._choose = _chooser(getattr(needed("django.conf", "django").settings, "FAILPATH", None))
        asgiref = needed("asgiref.sync", "asgiref")
        self._is_async: bool = asgiref.iscoroutinefunction(get_response)
        if self._is_async:
            asgiref.markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serves one request."""
        if self._is_async:
            return self._serve(request)
        served = self._begin(request)
        if served is None:
            return self._get_response(request)
        with served:
            answer = self._get_response(request)
        failure = _failure(request, answer)
        if not self._goes_on(answer, served, failure):
            served.end(failure)
        return answer

    async def _serve(self, request: Any) -> Any:
        served = self._begin(request)
        get_response = cast("Callable[[Any], Awaitable[Any]]", self._get_response)
        if served is None:
            return await get_response(request)
        with served:
            try:
                await served.started()
                answer = await get_response(request)
            except BaseException as error:
                await served.aend(error)
                raise
            failure = _failure(request, answer)
            if not self._goes_on(answer, served, failure):
                await served.aend(failure)
            return answer

    def _begin(self, request: Any) -> Served | None:
        asked = Request(request, str(request.method or "").upper(), request.path, request.headers.get)
        served = self._choose.begin(asked, self._choose(asked))
        if served is not None and served.is_step:
            setattr(request, _RAISED, [])
        return served

    def process_exception(self, request: Any, exception: BaseException) -> None:
        """Called by Django with what a view raised; it is answered elsewhere."""
        raised: list[BaseException] | None = getattr(request, _RAISED, None)
        if raised is not None:
            raised[:] = [exception]

    def _goes_on(self, answer: Any, served: Served, failure: BaseException | None) -> bool:
        """Whether the answer is yet to be made, as it is sent: then its parts are made within the run, and end the step."""
        if not getattr(answer, "streaming", False) or isinstance(answer, self._files):
            return False
        parts = AsyncParts if getattr(answer, "is_async", False) else Parts
        answer.streaming_content = parts(served, answer.streaming_content, lambda error: failure if error is None else error)
        return True


def _failure(request: Any, answer: Any) -> BaseException | None:
    raised: list[BaseException] = getattr(request, _RAISED, [])
    exception = raised.pop() if raised else None  # which holds the request by its traceback, so it is not kept
    failure = failure_of(getattr(answer, "status_code", None))
    return failure if failure is None or exception is None else exception


def _chooser(given: Any) -> RunChooser[Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"settings.FAILPATH must be a dict such as {{'client': 'shop.steps.failpath'}}, got {given!r}")
    options = dict(cast("Mapping[str, Any]", given))
    for name in options:
        if name not in _OPTIONS:
            meant = nearest(str(name), _OPTIONS)
            hint = "" if meant is None else f" (did you mean {meant!r}?)"
            raise ConfigError(f"settings.FAILPATH has {name!r}, which is none of {', '.join(_OPTIONS)}{hint}")
    client = options.get("client")
    if isinstance(client, str):
        client = needed("django.utils.module_loading", "django").import_string(client)
    if not isinstance(client, FailpathClient):
        raise ConfigError(f"settings.FAILPATH['client'] must be a FailpathClient or the dotted path to one, got {client!r}")
    return RunChooser(
        client,
        options.get("flow"),
        options.get("run_id", "x-request-id"),
        accept_incoming=options.get("accept_incoming"),
        step_key=options.get("step_key"),
    )
