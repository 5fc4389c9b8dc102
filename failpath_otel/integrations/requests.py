"""Which run a web request belongs to: that of the caller, or one of a flow of our own."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from contextvars import Token, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from failpath_otel.client import FailpathClient
from failpath_otel.config import accepts_incoming
from failpath_otel.errors import ConfigError
from failpath_otel.events.translate import RunIdentity
from failpath_otel.flow_key import FlowKey
from failpath_otel.integrations.served import Served
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once
from failpath_otel.propagation.baggage import in_header, remove
from failpath_otel.propagation.carrier import unpack
from failpath_otel.propagation.current import detach
from failpath_otel.steps.execution import Execution
from failpath_otel.steps.run import Run

R = TypeVar("R")
Flow = str | FlowKey[Any]
FlowOf = Flow | Mapping[str, Flow] | Callable[[R], "Flow | None"]
"""A flow for every request; flows by ``"/path"`` or ``"POST /path"`` with ``*`` and ``?``; or a function of the request."""
RunIdOf = str | Callable[[R], object]
"""A header's name, or a function of the request."""
StepKeyOf = str | Callable[[R], "str | None"]
"""The key of the step that each request is, or a function of the request that gives one or ``None``."""

_CARRIED: Final = ("traceparent", "tracestate", "baggage")
_MAX_ID_CHARS: Final = 4096


@dataclass(frozen=True)
class Request(Generic[R]):
    """What the choice of a run looks at. ``raw`` is what the server has, ``request_id`` what its platform calls the request."""

    raw: R
    method: str
    path: str
    header: Callable[[str], str | None]
    request_id: object = None


class NoRun:
    """A request that is to be of no run, whatever its caller says: within ``with``, the caller's is not in the baggage."""

    def __init__(self) -> None:
        self._tokens: list[Token[Context]] = []

    def __enter__(self) -> None:
        self._tokens.append(otel_context.attach(remove(otel_context.get_current())))

    def __exit__(self, *of_exception: object) -> None:
        detach(self._tokens.pop())


class RunChooser(Generic[R]):
    """Gives the run of a request, or ``None`` for one that belongs to no flow. Never raises after construction.

    Raises:
        ConfigError: ``flow``, ``run_id``, ``accept_incoming`` or ``step_key`` is of another kind than these.
    """

    def __init__(
        self,
        client: FailpathClient,
        flow: FlowOf[R] | None,
        run_id: RunIdOf[R],
        *,
        accept_incoming: bool | None,
        step_key: StepKeyOf[R] | None = None,
    ) -> None:
        if not isinstance(client, FailpathClient):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"client must be a FailpathClient, got {client!r}")
        if not (isinstance(run_id, str) and run_id) and not callable(run_id):
            raise ConfigError(f"run_id must be a header's name or a function, got {run_id!r}")
        if not (isinstance(step_key, str) and step_key) and not callable(step_key) and step_key is not None:
            raise ConfigError(f"step_key must be a step's key or a function of the request, got {step_key!r}")
        self._client = client
        self._step_key = step_key
        self._flow_of = _flow_finder(flow)
        self._run_id = run_id
        self._accept_incoming = accepts_incoming(accept_incoming)

    def __call__(self, request: Request[R]) -> Run[Any] | NoRun | None:
        """The run of ``request``: the caller's, where there is one and it is accepted, else one of the flow that fits."""
        run = None
        try:
            run = self._choose(request)
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("middleware", "the run of a request could not be found; it is served without one", exc_info=True)
        return NoRun() if run is None and not self._accept_incoming else run

    def begin(self, request: Request[R], run: Run[Any] | NoRun | None) -> Served | None:
        """The request with ``run``, as `__call__` gave it, and with its step, which begins here; ``None`` without a run."""
        # In a copy of the context: whoever ends the step may be in another, and takes nothing off from his own.
        return None if run is None else copy_context().run(self._begin, request, run)

    def _begin(self, request: Request[R], run: Run[Any] | NoRun) -> Served:
        with run:
            execution = self._step_of(request, run) if isinstance(run, Run) else None
            if execution is not None:
                execution.start_call()
            return Served(otel_context.get_current(), execution)

    def _step_of(self, request: Request[R], run: Run[Any]) -> Execution | None:
        if self._step_key is None or not run.recorder.enabled:
            return None
        try:
            given = self._step_key(request.raw) if callable(self._step_key) else self._step_key
            if not given:
                return None
            key = run.recorder.identifier("step key", given)
            run.recorder.check_key(run.flow_key, key)
            return Execution(run.recorder, run.facts, key, {})
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("request-step", "a request could not be made a step; it is served without one", exc_info=True)
            return None

    def baggage_within(self, request: Request[R], run: Run[Any] | NoRun | None) -> str | None:
        """What the field ``baggage`` has to be for the application, ``None`` where it can stay as it is.

        Where the server is not instrumented outside of us, it may be within: that of Flask and Django begins with what the
        headers say and nothing else, so that neither our context nor our refusal of a caller's run would outlast it.
        """
        try:
            return self._baggage_within(request, run)
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("middleware-baggage", "the baggage of a request could not be changed", exc_info=True)
            return None

    def _baggage_within(self, request: Request[R], run: Run[Any] | NoRun | None) -> str | None:
        if trace.get_current_span() is not trace.INVALID_SPAN:
            return None
        header = request.header("baggage")
        if isinstance(run, Run):
            named = RunIdentity(run.flow_key, run.run_id) if run.recorder.propagates else None
            return in_header(header or "", named)
        return None if header is None or run is None else in_header(header, None)

    def _choose(self, request: Request[R]) -> Run[Any] | None:
        if self._accept_incoming and (incoming := self._incoming(request)) is not None:
            return incoming
        flow = self._flow_of(request)
        return None if flow is None else self._client.run(flow, self._id_of(request))

    def _incoming(self, request: Request[R]) -> Run[Any] | None:
        current = self._client.current_run()
        if current is not None:
            return current
        # Where the server is not instrumented nobody has looked at the headers yet.
        fields = {name: value for name in _CARRIED if (value := request.header(name))}
        return self._client.resume(fields) if unpack(fields).run is not None else None

    def _id_of(self, request: Request[R]) -> object:
        if callable(self._run_id):
            given = self._run_id(request.raw)
            return request.request_id if given is None else given
        value = request.header(self._run_id)
        return value[:_MAX_ID_CHARS] if value else request.request_id


def _flow_finder(flow: Any) -> Callable[[Request[Any]], Flow | None]:
    """The way from a request to its flow. A middleware is pickled where its application is handed to a process."""
    always: Any = flow  # the checks below would leave types that are half known
    if flow is None or isinstance(flow, str | FlowKey):
        return partial(_always, always)
    if isinstance(flow, Mapping):
        return partial(_routed, [_Route.of(pattern, slug) for pattern, slug in always.items()])
    if callable(flow):
        return partial(_asked, always)
    raise ConfigError(f"flow must be a flow's slug, a mapping of paths to slugs, or a function, got {flow!r}")


def _always(flow: Flow | None, _: Request[Any]) -> Flow | None:
    return flow


def _routed(routes: list[_Route], request: Request[Any]) -> Flow | None:
    return next((route.slug for route in routes if route.fits(request)), None)


def _asked(flow_of: Callable[[Any], Flow | None], request: Request[Any]) -> Flow | None:
    return flow_of(request.raw)


@dataclass(frozen=True)
class _Route:
    method: str
    path: str
    slug: Flow

    @classmethod
    def of(cls, pattern: Any, slug: Any) -> _Route:
        method, _, path = pattern.rpartition(" ") if isinstance(pattern, str) else ("", "", "")
        if not path.startswith(("/", "*")):
            raise ConfigError(f"flow must map paths such as '/checkout' or 'POST /orders/*' to slugs, got {pattern!r}")
        return cls(method.strip().upper(), path, slug)

    def fits(self, request: Request[Any]) -> bool:
        return self.method in ("", request.method) and fnmatch.fnmatchcase(request.path, self.path)
