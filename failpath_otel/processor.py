"""FailpathSpanProcessor: spans of any library that carry the three ``failpath.*`` attributes become step events.

Steps that ``run.step`` opened report themselves and are left alone here; they are known by their instrumentation scope.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from failpath_otel.config import Options, resolve
from failpath_otel.delivery import Sink
from failpath_otel.delivery.opening import open_sink
from failpath_otel.delivery.process import EXIT_TIMEOUT_MILLIS
from failpath_otel.delivery.stand_in import take_over
from failpath_otel.errors import EventError
from failpath_otel.events import semconv, translate
from failpath_otel.events.metadata import Rendered, render
from failpath_otel.events.step import STATUSES, StepError, StepEvent
from failpath_otel.events.text import identifier
from failpath_otel.events.translate import Identity, SpanFacts
from failpath_otel.notices import warn_once
from failpath_otel.tracing import behind, service_of
from failpath_otel.version import VERSION

_MAX_OPEN_SPANS: Final = 100_000
_FLOW_SLUG: Final = semconv.FLOW_SLUG
_OWN_SCOPE: Final = semconv.SCOPE_NAME
_SpanKey = tuple[int, int]


class FailpathSpanProcessor(SpanProcessor):
    """Turns the start of a step's span into ``running`` and its end into the outcome.

    A step is a span with ``failpath.flow.slug``, ``failpath.run.id`` and ``failpath.step.key``. Set at the start, they give
    both events, and the identity is kept from there, whatever is evicted or cut later; set later, they give the outcome alone.
    ``failpath.step.status`` is respected; without it the span is an error only by status ERROR. Other spans pass untouched.
    Where several processors see a span, the first that was added takes it. No method raises into the service.

    `FailpathClient` attaches one by itself. On its own it serves services that only map spans they have already::

        provider.add_span_processor(FailpathSpanProcessor())

    Args:
        project_key, endpoint, enabled, default_metadata, capture_stack, send_timeout_millis, max_queue_size, on_error, on_drop,
            mask, exporter: As for `FailpathClient`, with the same environment variables.

    Raises:
        ConfigError: An option cannot be used.
    """

    def __init__(
        self,
        *,
        project_key: str | None = None,
        endpoint: str | None = None,
        enabled: bool | None = None,
        default_metadata: Mapping[str, Any] | None = None,
        capture_stack: bool | None = None,
        send_timeout_millis: int | None = None,
        max_queue_size: int | None = None,
        on_error: Callable[[Exception], object] | None = None,
        on_drop: Callable[..., object] | None = None,
        mask: Callable[[StepEvent], StepEvent] | None = None,
        exporter: Any = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        options = resolve(given)
        self._set_up(open_sink(options, f"failpath-otel/{VERSION}"), options, owns_sink=True)
        if self._sink is not None:
            take_over(self._sink)

    @classmethod
    def for_sink(cls, sink: Sink | None, options: Options) -> FailpathSpanProcessor:
        """A processor that puts its events where a client puts its own; the client keeps the sink's life in its hands."""
        processor = cls.__new__(cls)
        processor._set_up(sink, options, owns_sink=False)  # noqa: SLF001 - its own class
        return processor

    def _set_up(self, sink: Sink | None, options: Options, *, owns_sink: bool) -> None:
        self._sink = sink
        self._owns_sink = owns_sink
        self._capture_stack = options.capture_stack
        self._default_metadata: Rendered = render(options.default_metadata)
        self._open: OrderedDict[_SpanKey, _OpenSpan] = OrderedDict()
        self._resource: Any = None
        self._service: str | None = None

    @property
    def sink(self) -> Sink | None:
        """Where the events go."""
        return self._sink

    # These two run for every span of the service; what they cost is in docs/performance.md. span.attributes builds a view at
    # each access, and a look-up of a missing key in it raises and catches in Python code: together more than all the rest of
    # what a foreign span costs. So they look at what is private to the SDK; where an SDK keeps it in another place, the
    # AttributeError leads to the slow path, which uses the public way.

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Records ``running`` where the span is a step from its start."""
        try:
            raw: Any = span
            if _FLOW_SLUG not in raw._attributes._dict or raw._instrumentation_scope.name == _OWN_SCOPE:  # noqa: SLF001
                return
        except Exception:  # noqa: S110 - the public way is taken instead
            pass
        self._guarded(self._started, span)

    def on_end(self, span: ReadableSpan) -> None:
        """Records the outcome where the span is a step."""
        try:
            raw: Any = span
            if _FLOW_SLUG in raw._attributes._dict:  # noqa: SLF001
                if raw._instrumentation_scope.name == _OWN_SCOPE:  # noqa: SLF001
                    return
            elif not self._open or _key_of(span) not in self._open:
                return
        except Exception:  # noqa: S110 - the public way is taken instead
            pass
        self._guarded(self._ended, span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Waits until what was recorded is sent or dropped; False when the time was not enough."""
        return self._sink is None or bool(self._sink.flush(timeout_millis))

    def shutdown(self) -> None:
        """Sends what is left, within 3 seconds, where the processor stands on its own.

        A client's processor leaves that to the client, which may outlive this provider and has its own deadline at exit.
        """
        if self._sink is not None and self._owns_sink:
            self._sink.shutdown(EXIT_TIMEOUT_MILLIS)

    def _guarded(self, handle: Callable[[Any], None], span: Any) -> None:
        try:
            handle(span)
        except Exception:
            warn_once("processor", "a span could not be looked at", exc_info=True)

    def _started(self, span: Span) -> None:
        sink = self._sink
        if sink is None or sink.closed or _is_own(span):
            return
        attributes = _attributes_of(span)
        step = _identity(attributes)
        key = _key_of(span)
        if step is None or key in self._open or not _claims.take(key, self):
            return
        event = translate.span_started(step, self._facts(span, attributes, ended=False))
        self._open[key] = _OpenSpan(step, translate.metadata_of(attributes), os.getpid())
        if len(self._open) > _MAX_OPEN_SPANS:
            forgotten, _ = self._open.popitem(last=False)
            _claims.end(forgotten)
            warn_once("open-spans", "more than %d step spans are open; the oldest will give no outcome", _MAX_OPEN_SPANS)
        if event is not None:
            sink.record(event)

    def _ended(self, span: ReadableSpan) -> None:
        sink = self._sink
        key = _key_of(span)
        known = self._open.pop(key, None) if self._open else None
        attributes = _attributes_of(span)
        if known is None:
            step = None if semconv.FLOW_SLUG not in attributes or _is_own(span) else _identity(attributes)
            if sink is None or sink.closed or step is None or not _claims.take(key, self):
                return
            metadata: Rendered = {}
        else:
            step, metadata = known.step, known.metadata
        _claims.end(key)
        if sink is None or (known is not None and known.pid != os.getpid()):
            return  # a forked child ends its parent's span, of which the parent will tell
        event = translate.span_ended(step, self._facts(span, {**_as_attributes(metadata), **attributes}, ended=True))
        if known is None or event.is_outcome:  # a span that only ever says ``running`` has said so at its start
            sink.record(event)

    def _facts(self, span: ReadableSpan, attributes: Mapping[str, Any], *, ended: bool) -> SpanFacts:
        context = span.get_span_context()
        if context is None:
            raise EventError("a span without a context")
        started_at = span.start_time or 0
        if self._default_metadata:
            attributes = {**_as_attributes(self._default_metadata), **attributes}
        return SpanFacts(
            trace_id=f"{context.trace_id:032x}",
            span_id=f"{context.span_id:016x}",
            attributes=_with_known_status(attributes),
            started_at=started_at,
            ended_at=(span.end_time or started_at) if ended else 0,
            failed=ended and span.status.status_code.name == "ERROR",
            status_message=(span.status.description or "") if ended else "",
            exception=self._exception(span) if ended else None,
            service=self._service_of(span),
        )

    def _exception(self, span: ReadableSpan) -> StepError | None:
        for event in reversed(span.events):
            if event.name == semconv.EXCEPTION_EVENT:
                error = translate.exception_of(event.attributes or {})
                if error is not None and not self._capture_stack:
                    return StepError(error.name, error.message)
                return error
        return None

    def _service_of(self, span: ReadableSpan) -> str | None:
        resource = span.resource
        if resource is not self._resource:
            self._resource, self._service = resource, service_of(resource)
        return self._service


@dataclass(frozen=True)
class _OpenSpan:
    """What is kept of a step's span from its start."""

    step: Identity
    metadata: Rendered
    pid: int


class _Claims:
    """Which processor takes a span, where several see it: the first that was added, which is called first."""

    def __init__(self) -> None:
        self._holders: dict[_SpanKey, object] = {}
        self._ended: deque[_SpanKey] = deque()
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def take(self, key: _SpanKey, processor: object) -> bool:
        with self._lock:
            return self._holders.setdefault(key, processor) is processor

    def end(self, key: _SpanKey) -> None:
        # Kept for a while: the processors after this one, or this one added twice, are yet to see the same end.
        with self._lock:
            self._holders[key] = None
            self._ended.append(key)
            if len(self._ended) > 1024:
                self._holders.pop(self._ended.popleft(), None)

    def _forget(self) -> None:
        self._lock = threading.RLock()


_claims: Final = _Claims()


class Attachment:
    """Attaches one processor to each provider that comes into use, once."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._processor = processor
        # By identity, since logfire's provider cannot be hashed.
        self._known: dict[int, tuple[weakref.ref[Any]]] = {}

    def __call__(self, provider: Any) -> None:
        """Attaches to ``provider`` where it takes processors.

        By duck type: logfire's provider is no SDK provider, and ddtrace's takes no processors.
        """
        add = getattr(provider, "add_span_processor", None)
        if add is None:
            return
        target = behind(provider)
        mark = (weakref.ref(target),)
        # In one step, for the first steps of several threads may meet the same provider at once.
        known = self._known.setdefault(id(target), mark)
        if known is mark or known[0]() is not target:
            self._known[id(target)] = mark
            add(self._processor)


def _attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def _is_own(span: ReadableSpan) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name == semconv.SCOPE_NAME


def _key_of(span: ReadableSpan) -> _SpanKey:
    context = span.get_span_context()
    return (context.trace_id, context.span_id) if context is not None else (0, 0)


def _identity(attributes: Mapping[str, Any]) -> Identity | None:
    """The step that the attributes name. Within the service ids are mended as `run.step` mends them, not refused."""
    values = [attributes.get(name) for name in (semconv.FLOW_SLUG, semconv.RUN_ID, semconv.STEP_KEY)]
    if None in values:
        if translate.mentions_step(attributes):
            warn_once(
                "incomplete", "a span lacks some of failpath.flow.slug, failpath.run.id, failpath.step.key: it is no step"
            )
        return None
    flow_key, run_id, step_key = (identifier(value) for value in values)
    if not (flow_key and run_id and step_key):
        warn_once("empty-id", "a span has an empty failpath.flow.slug, failpath.run.id or failpath.step.key and so is no step")
        return None
    return Identity(flow_key, run_id, step_key)


def _as_attributes(metadata: Rendered) -> dict[str, Any]:
    return {semconv.METADATA_PREFIX + key: value for key, value in metadata.items()}


def _with_known_status(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without a status that is none of the four: within the service the span's own outcome is better than none."""
    status = attributes.get(semconv.STEP_STATUS)
    if status is None or (isinstance(status, str) and status in STATUSES):
        return attributes
    warn_once("status", "a span has %s %r, which is no status", semconv.STEP_STATUS, status)
    return {name: value for name, value in attributes.items() if name != semconv.STEP_STATUS}
