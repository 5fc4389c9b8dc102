"""gRPC: a run for each call of a server, and the current run in the metadata of a client's calls. Threads and asyncio.

The run travels as over HTTP, in W3C's ``traceparent`` and ``baggage``, as metadata. So it makes no difference to either side
whether OpenTelemetry's instrumentation of gRPC is there, on the other, or which language the other is written in.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from failpath_otel.client import FailpathClient
from failpath_otel.errors import ConfigError
from failpath_otel.events.translate import RunIdentity
from failpath_otel.integrations.optional import needed
from failpath_otel.integrations.requests import FlowOf, Request, RunChooser, RunIdOf, StepKeyOf
from failpath_otel.integrations.served import AsyncParts, Judge, Parts, Served, named_failure
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once
from failpath_otel.propagation.baggage import in_header

grpc: Any = needed("grpc", "grpcio")

# The one that grpc.aio goes by too: that of inspect sees functions that are marked as such from Python 3.12 on, where that of
# asyncio warns soon.
if sys.version_info >= (3, 12):
    from inspect import iscoroutinefunction
else:
    from asyncio import iscoroutinefunction

_FAILED: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The codes that say of a server that it failed; those of OpenTelemetry's conventions. The others are answers, as a 4xx is."""
_KINDS: Final = ("Unary Unary", "Unary Stream", "Stream Unary", "Stream Stream")
"""What there is of calls: request and answer."""
_NAMES: Final[dict[int, str]] = {code.value[0]: code.name for code in grpc.StatusCode}

_NOT_TOLD: Final = (AttributeError, NotImplementedError, RuntimeError)
"""What a context of another interceptor raises that does not hand this on."""

Behavior = Callable[[Any, Any], Any]
Fields = Iterable[tuple[str, Any]]


# Servers


def server_interceptor(
    client: FailpathClient,
    *,
    flow: FlowOf[Any] | None = None,
    run_id: RunIdOf[Any] = "x-request-id",
    accept_incoming: bool | None = None,
    step_key: StepKeyOf[Any] | None = None,
) -> Any:
    """Makes a run current while a server's handler works on a call, up to the last message of its answer.

    ::

        server = grpc.server(pool, interceptors=[server_interceptor(failpath, flow={"/shop.Stock/Reserve": "checkout"})])

    Args:
        client: The client whose runs these are.
        flow: A flow's slug; slugs by the full name of the method, with ``*`` and ``?``; or a function of the
            `grpc.HandlerCallDetails`, as those below are.
        run_id: The key of the metadata with the run's id, or a function.
        accept_incoming: Go on with a caller's run; without it as FAILPATH_ACCEPT_INCOMING says.
        step_key: The key of the step that each call is, or a function. A step's error is the exception that left the handler,
            or the code with which it ended the call, named ``gRPC UNAVAILABLE``; codes that do not say of the server that it
            failed, such as ``NOT_FOUND``, are a success.

    Raises:
        ConfigError: An argument is of another kind than these.
    """
    return _ServerInterceptor(RunChooser(client, flow, run_id, accept_incoming=accept_incoming, step_key=step_key))


def aio_server_interceptor(
    client: FailpathClient,
    *,
    flow: FlowOf[Any] | None = None,
    run_id: RunIdOf[Any] = "x-request-id",
    accept_incoming: bool | None = None,
    step_key: StepKeyOf[Any] | None = None,
) -> Any:
    """`server_interceptor` for ``grpc.aio.server(interceptors=[...])``.

    Args:
        client: As for `server_interceptor`, as all of these.
        flow: See there.
        run_id: See there.
        accept_incoming: See there.
        step_key: See there.

    Raises:
        ConfigError: An argument is of another kind than those.
    """
    return _AioServerInterceptor(RunChooser(client, flow, run_id, accept_incoming=accept_incoming, step_key=step_key))


class _ServerInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, choose: RunChooser[Any]) -> None:
        self._choose = choose

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        return _wrapped(handler, partial(_serving, partial(_begin, self._choose, handler_call_details)))


class _AioServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, choose: RunChooser[Any]) -> None:
        self._choose = choose

    async def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        return _wrapped(handler, partial(_serving_async, partial(_begin, self._choose, handler_call_details)))


def _begin(choose: RunChooser[Any], details: Any) -> Served | None:
    metadata: list[tuple[str, Any]] = list(details.invocation_metadata or ())

    def header(name: str) -> str | None:
        wanted = name.lower()
        found = [value for key, value in metadata if key == wanted and isinstance(value, str)]
        return ",".join(found) if found else None

    request = Request(details, "POST", str(details.method), header)
    return choose.begin(request, choose(request))


def _wrapped(handler: Any, wrap: Callable[[Behavior, bool], Behavior]) -> Any:
    """The handler of a method, with its behaviour wrapped."""
    if handler is None:
        return None
    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    behavior: Any = getattr(handler, kind)
    if getattr(behavior, "experimental_non_blocking", False):
        return handler  # of another form, and not public
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(
        wrap(behavior, handler.response_streaming),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _serving(begin: Callable[[], Served | None], behavior: Behavior, streams: bool) -> Behavior:
    def serve(request: Any, context: Any) -> Any:
        served = begin()
        if served is None:
            return behavior(request, context)
        judge = _judge(context)
        with served:
            try:
                answer = behavior(request, context)
            except BaseException as error:
                served.end(judge(error))
                raise
        if streams and answer is not None:
            return Parts(served, answer, judge)
        served.end(judge(None))
        return answer

    return serve


def _serving_async(begin: Callable[[], Served | None], behavior: Behavior, streams: bool) -> Behavior:
    async def serve(request: Any, context: Any) -> Any:
        served = begin()
        if served is None:
            return await behavior(request, context)
        judge = _judge(context)
        with served:
            try:
                await served.started()
                answer = await behavior(request, context)
            except BaseException as error:
                await served.aend(judge(error))
                raise
            await served.aend(judge(None))
            return answer

    async def stream(request: Any, context: Any) -> Any:
        served = begin()
        if served is None:
            async for part in behavior(request, context):
                yield part
            return
        await served.started()
        with served:
            given = behavior(request, context)  # a decorated one takes its run here
        parts = AsyncParts(served, given, _judge(context))
        try:
            async for part in parts:
                yield part
        finally:
            with served:
                await given.aclose()
            parts.close()

    if inspect.isasyncgenfunction(behavior):
        return stream
    if iscoroutinefunction(behavior):
        return serve
    return _serving(begin, behavior, streams)  # which grpc.aio runs in a thread


def _judge(context: Any) -> Judge:
    """What a call's error is: by the code that the handler set, and by what it raised."""

    def judge(error: BaseException | None) -> BaseException | None:
        code = _code(context)
        if error is not None and (code in (None, "OK") or not isinstance(error, Exception)):
            return error  # for which gRPC answers UNKNOWN
        if code not in _FAILED:
            return None
        # `abort` ends the handler by an exception that has nothing to say.
        aborts = type(error) is Exception or type(error).__name__ == "AbortError"
        return named_failure(f"gRPC {code}", _details(context)) if error is None or aborts else error

    return judge


def _code(context: Any) -> str | None:
    try:
        code = context.code()
    except _NOT_TOLD:
        return None
    return _NAMES.get(code) if isinstance(code, int) else getattr(code, "name", None)


def _details(context: Any) -> str:
    try:
        details = context.details()
    except _NOT_TOLD:
        return ""
    return details.decode("utf-8", "replace") if isinstance(details, bytes) else str(details or "")


# Clients


def client_interceptor(client: FailpathClient) -> Any:
    """Sends the current run along with each call, in its metadata. Not where ``propagate=False``.

    ::

        channel = grpc.intercept_channel(grpc.insecure_channel("stock:50051"), client_interceptor(failpath))

    OpenTelemetry's instrumentation of the client sends the run by itself; both together do no harm.

    Raises:
        ConfigError: ``client`` is no `FailpathClient`.
    """
    known = _checked(client)

    def intercept(_: Any, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(_CallDetails(details, _with_run(known, details.metadata)), request)

    return _client_interceptor(grpc, _KINDS, intercept)


def aio_client_interceptors(client: FailpathClient) -> list[Any]:
    """`client_interceptor` for ``grpc.aio.insecure_channel(target, interceptors=...)``, which wants one for each kind of call.

    Raises:
        ConfigError: ``client`` is no `FailpathClient`.
    """
    known = _checked(client)

    async def intercept(_: Any, continuation: Any, details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*_with_run(known, details.metadata))
        changed = grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        return await continuation(changed, request)

    # Of one that knows several kinds grpc.aio takes the first.
    return [_client_interceptor(grpc.aio, [kind], intercept) for kind in _KINDS]


def _checked(client: Any) -> FailpathClient:
    if not isinstance(client, FailpathClient):
        raise ConfigError(f"client must be a FailpathClient, got {client!r}")
    return client


def _with_run(client: FailpathClient, metadata: Fields | None) -> list[tuple[str, Any]]:
    """The metadata of a call, with the current run in place of any other, and with the current span where there is none."""
    pairs = list(metadata or ())
    try:
        run = client.current_run()
        if run is None or not (run.recorder.enabled and run.recorder.propagates):
            return pairs
        there = ",".join(value for key, value in pairs if key == "baggage" and isinstance(value, str))
        fields = {"baggage": in_header(there, RunIdentity(run.flow_key, run.run_id))}
        if all(key != "traceparent" for key, _ in pairs):
            fields |= {key: value for key, value in run.carrier().items() if key in ("traceparent", "tracestate")}
        kept = [(key, value) for key, value in pairs if key not in fields]
        return [*kept, *((key, value) for key, value in fields.items() if value)]
    except Exception as error:
        if is_interruption(error):
            raise
        warn_once("grpc-client", "a call is sent without its run", exc_info=True)
        return pairs


class _CallDetails(grpc.ClientCallDetails):  # type: ignore[misc]
    """The details of a call with other metadata."""

    def __init__(self, details: Any, metadata: Fields) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = tuple(metadata)
        self.credentials = details.credentials
        self.wait_for_ready = getattr(details, "wait_for_ready", None)
        self.compression = getattr(details, "compression", None)


def _client_interceptor(module: Any, kinds: Iterable[str], intercept: Callable[..., Any]) -> Any:
    """An interceptor for calls of these kinds; gRPC has a base class and a method for each."""
    bases = tuple(getattr(module, f"{request}{answer}ClientInterceptor") for request, answer in map(str.split, kinds))
    methods = {f"intercept_{kind.lower().replace(' ', '_')}": intercept for kind in kinds}
    return type("FailpathClientInterceptor", bases, methods)()
