"""A run for each invocation of an AWS Lambda function, or one like it, sent before the process is frozen."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar, cast

from failpath_otel.client import FailpathClient
from failpath_otel.delivery.counts import FlushResult
from failpath_otel.errors import ConfigError, DeliveryError
from failpath_otel.integrations.requests import FlowOf, Request, RunChooser, RunIdOf, StepKeyOf
from failpath_otel.integrations.served import failure_of
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once

R = TypeVar("R")
Handler = Callable[[Any, Any], R]


def handler(
    client: FailpathClient,
    *,
    flow: FlowOf[Any] | None = None,
    run_id: RunIdOf[Any] = "x-request-id",
    accept_incoming: bool | None = None,
    step_key: StepKeyOf[Any] | None = None,
    flush_timeout_millis: int = 1500,
    margin_millis: int = 100,
) -> Callable[[Handler[R]], Handler[R]]:
    """Decorates a function of event and context, sync or async: a run is current in it, and is sent before it returns.

    Errors pass unchanged.

    ::

        @handler(failpath, flow="photo-upload", run_id=lambda event: event["id"])
        def take_photo(event, context): ...

    What cannot be sent in time waits for the next invocation of the same process.

    Args:
        client: The client whose runs these are; one for the process, made outside of the function.
        flow: A flow's slug; slugs by ``"/path"`` or ``"METHOD /path"``, where the event is an HTTP request of API Gateway, a
            function URL or a load balancer; or a function of the event, as those below are.
        run_id: The header with the run's id, or a function. Without a value it is ``aws_request_id``, which stays the same
            when the platform tries an event again.
        accept_incoming: Go on with the run that the headers of an HTTP request name; without it as FAILPATH_ACCEPT_INCOMING
            says.
        step_key: The key of the step that each invocation is, or a function. A ``statusCode`` of 500 and above is an error
            named ``HTTP 503``, an exception one of its own name.
        flush_timeout_millis: How long sending may take at most; where the endpoint answers, it takes a few milliseconds.
        margin_millis: How much of ``get_remaining_time_in_millis()`` is left for the way back.

    Raises:
        ConfigError: An argument is of another kind than these.
    """
    for name, value in (("flush_timeout_millis", flush_timeout_millis), ("margin_millis", margin_millis)):
        if type(value) is not int or value < 0:
            raise ConfigError(f"{name} must be a whole number of milliseconds, at least 0, got {value!r}")
    choose: RunChooser[Any] = RunChooser(client, flow, run_id, accept_incoming=accept_incoming, step_key=step_key)

    def bound(context: Any) -> int:
        left = _left_millis(context)
        return flush_timeout_millis if left is None else max(0, min(flush_timeout_millis, left - margin_millis))

    def decorate(fn: Handler[R]) -> Handler[R]:
        @functools.wraps(fn)
        def invoked(event: Any, context: Any) -> R:
            try:
                return _serve(choose, fn, event, context)
            finally:
                with suppress(DeliveryError):  # raise_on_send_error is for the service's own calls
                    _said(client.flush(bound(context)))

        @functools.wraps(fn)
        async def invoked_async(event: Any, context: Any) -> Any:
            try:
                return await _serve_async(choose, cast("Handler[Awaitable[Any]]", fn), event, context)
            finally:
                with suppress(DeliveryError):
                    _said(await client.aflush(bound(context)))

        return cast("Handler[R]", invoked_async) if inspect.iscoroutinefunction(fn) else invoked

    return decorate


def _serve(choose: RunChooser[Any], fn: Handler[R], event: Any, context: Any) -> R:
    request = _request(event, context)
    served = choose.begin(request, choose(request))
    if served is None:
        return fn(event, context)
    with served:
        answer = fn(event, context)
    served.end(failure_of(_status(answer)))
    return answer


async def _serve_async(choose: RunChooser[Any], fn: Handler[Awaitable[Any]], event: Any, context: Any) -> Any:
    request = _request(event, context)
    served = choose.begin(request, choose(request))
    if served is None:
        return await fn(event, context)
    with served:
        try:
            await served.started()
            answer = await fn(event, context)
        except BaseException as error:
            await served.aend(error)
            raise
        await served.aend(failure_of(_status(answer)))
        return answer


def _status(answer: Any) -> int | None:
    status = str(_mapping(answer).get("statusCode"))  # which API Gateway takes as text too
    return int(status) if status.isdecimal() else None


def _left_millis(context: Any) -> int | None:
    """How much time is left, where the context tells; other platforms may not, and a test's may be a mock."""
    try:
        left = context.get_remaining_time_in_millis()
    except Exception as error:
        if is_interruption(error):
            raise
        return None
    return int(left) if isinstance(left, int | float) else None


def _said(flushed: FlushResult) -> None:
    if not flushed:
        warn_once("lambda-pending", "%d events wait for the next invocation of this process", flushed.pending)


def _request(event: Any, context: Any) -> Request[Any]:
    fields = _mapping(event)
    http = _mapping(_mapping(fields.get("requestContext")).get("http"))  # API Gateway's version 2, and function URLs
    headers = {str(name).lower(): value for name, value in _mapping(fields.get("headers")).items()}
    for name, values in _mapping(fields.get("multiValueHeaders")).items():  # version 1, and load balancers
        if isinstance(values, list):
            headers[str(name).lower()] = ",".join(map(str, cast("Iterable[object]", values)))

    def header(name: str) -> str | None:
        value = headers.get(name.lower())
        return value if isinstance(value, str) else None

    method = http.get("method") or fields.get("httpMethod") or ""
    path = http.get("path") or fields.get("path") or ""
    return Request(event, str(method).upper(), str(path), header, getattr(context, "aws_request_id", None))


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
