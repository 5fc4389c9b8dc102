"""FailpathSpanProcessor: spans of any library that carry the three ``failpath.*`` attributes become step events.

Steps that ``run.step`` opened report themselves and are left alone here; they are known by their instrumentation scope.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import msgspec
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from failpath_otel.config import Options, resolve
from failpath_otel.delivery import DropReason, Sink, takeover
from failpath_otel.delivery.factory import open_sink
from failpath_otel.delivery.fallback import prefer
from failpath_otel.delivery.process import EXIT_TIMEOUT_MILLIS
from failpath_otel.errors import EventError
from failpath_otel.events import semconv, translate
from failpath_otel.events.metadata import Rendered, render
from failpath_otel.events.step import STATUSES, StepError, StepEvent
from failpath_otel.events.text import identifier
from failpath_otel.events.translate import Identity, RunIdentity, SpanFacts
from failpath_otel.exporters import EventExporter
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once
from failpath_otel.rules.discovery import rules_in_use
from failpath_otel.rules.matching import CompiledRule, CompiledRules
from failpath_otel.rules.rule import SpanRule, SpanRules
from failpath_otel.tracing.ownership import SpanKey, ownership
from failpath_otel.tracing.provider import service_of
from failpath_otel.tracing.rule_state import RuleState
from failpath_otel.version import VERSION

_MAX_OPEN_STEPS: Final = 100_000
_FLOW_SLUG: Final = semconv.FLOW_SLUG
_OWN_SCOPE: Final = semconv.SCOPE_NAME


class FailpathSpanProcessor(SpanProcessor):
    """Turns the start of a step's span into ``running`` and its end into the outcome.

    A step is a span with ``failpath.flow.slug``, ``failpath.run.id`` and ``failpath.step.key``. Set at the start, they give
    both events, and the identity is kept from there, whatever is evicted or cut later; set later, they give the outcome alone.
    ``failpath.step.status`` is respected; without it the span is an error only by status ERROR. Spans without these attributes
    are steps where a rule says so (``docs/span-rules.md``). Other spans pass untouched.
    Where several processors see a span, the first that was added takes it. No method raises into the service.

    `FailpathClient` attaches one by itself. On its own it serves services that only map spans they have already::

        provider.add_span_processor(FailpathSpanProcessor())

    Its options are those of the same name of `FailpathClient`, with the same environment variables.

    Args:
        project_key: The project's key. Without one nothing goes to a remote host; an endpoint on loopback needs none.
        endpoint: Base URL that takes the events.
        certificate: PEM file of the authorities to trust at an https endpoint, in place of all others.
        client_certificate: PEM file of a certificate of our own, for an endpoint that demands one; its key may be in it.
        client_key: PEM file of that certificate's key, without a passphrase.
        enabled: False: functions still run, no span is opened and nothing is sent.
        default_metadata: Metadata of every event; run and step metadata win over it. In the environment as
            ``key=value,key=value``.
        capture_stack: Send the traceback with errors.
        send_timeout_millis: How long one request may take; 0: no limit.
        max_queue_size: How many events may wait or be in flight; beyond it events are dropped by rank and counted.
        on_error: Called with the exception of each failed attempt to send, from the worker's thread.
        on_drop: Called with each dropped event and the reason.
        mask: Called with each event before it leaves; returns the event that may leave. Spans are not masked.
        exporter: ``http``, ``otlp``, ``console``, ``jsonl`` (or ``jsonl:PATH``), ``memory``, ``none`` (spans only), or an
            exporter object.
        rules: Which spans of others are steps: path of spans.json, or rules; without it ``.failpath/spans.json`` is looked for
            from the working directory up. False: none.

    Raises:
        ConfigError: An option cannot be used.
    """

    def __init__(
        self,
        *,
        project_key: str | None = None,
        endpoint: str | None = None,
        certificate: str | os.PathLike[str] | None = None,
        client_certificate: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
        enabled: bool | None = None,
        default_metadata: Mapping[str, Any] | None = None,
        capture_stack: bool | None = None,
        send_timeout_millis: int | None = None,
        max_queue_size: int | None = None,
        on_error: Callable[[Exception], object] | None = None,
        on_drop: Callable[[StepEvent, DropReason], object] | None = None,
        mask: Callable[[StepEvent], StepEvent] | None = None,
        exporter: str | EventExporter | None = None,
        rules: str | os.PathLike[str] | SpanRules | Sequence[SpanRule] | Literal[False] | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        options = resolve(given)
        known = rules_in_use(options.rules)
        self._set_up(open_sink(options, f"failpath-otel/{VERSION}"), options, known, owns_sink=True)
        if self._sink is not None:
            prefer(self._sink)

    @classmethod
    def for_sink(cls, sink: Sink | None, options: Options, rules: CompiledRules | None = None) -> FailpathSpanProcessor:
        """A processor that puts its events where a client puts its own; the client keeps the sink's life in its hands."""
        processor = cls.__new__(cls)
        processor._set_up(sink, options, rules, owns_sink=False)  # noqa: SLF001 - its own class
        return processor

    def _set_up(self, sink: Sink | None, options: Options, rules: CompiledRules | None, *, owns_sink: bool) -> None:
        self._sink = sink
        self._owns_sink = owns_sink
        self._capture_stack = options.capture_stack
        self._default_metadata: Rendered = render(options.default_metadata)
        self._open_steps: OrderedDict[SpanKey, _OpenStep] = OrderedDict()
        self._rule_state = None if rules is None or sink is None else RuleState(rules)
        # Held here as well, since each look through another object counts for a span that is no step.
        self._unmatched_names = None if self._rule_state is None else self._rule_state.unmatched_names
        self._open_spans = {} if self._rule_state is None else self._rule_state.open_spans
        self._asks_parent = self._rule_state is not None and self._rule_state.asks_parent
        self._resource: Any = None
        self._service: str | None = None
        takeover.join(self)

    @property
    def sink(self) -> Sink | None:
        """Where the events go."""
        return self._sink

    def lend(self, sink: Sink) -> Callable[[], None]:
        """Gives its events to ``sink`` until what this returns is called."""
        before, self._sink = self._sink, sink
        return partial(setattr, self, "_sink", before)

    # These two run for every span of the service; what they cost is in docs/performance.md. span.attributes builds a view at
    # each access, and a look-up of a missing key in it raises and catches in Python code: together more than all the rest of
    # what a foreign span costs. So they look at what is private to the SDK; where an SDK keeps it in another place, the
    # AttributeError leads to the slow path, which uses the public way.

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Records ``running`` where the span is a step from its start."""
        try:
            raw: Any = span
            if _FLOW_SLUG not in raw._attributes._dict:  # noqa: SLF001
                unmatched_names = self._unmatched_names
                if unmatched_names is None:
                    return
                scope, name = raw._instrumentation_scope, raw._name  # noqa: SLF001
                if unmatched_names.get(name, 0) is scope and not self._open_spans:
                    return
                if self._rule_state is not None and self._rule_state.passes(raw, scope, name):
                    return
            elif not self._asks_parent and raw._instrumentation_scope.name == _OWN_SCOPE:  # noqa: SLF001
                return
        except Exception as error:
            if is_interruption(error):
                raise
            # else the public way is taken instead
        self._guarded(self._started, span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Records the outcome where the span is a step."""
        try:
            raw: Any = span
            if _FLOW_SLUG in raw._attributes._dict:  # noqa: SLF001
                if raw._instrumentation_scope.name == _OWN_SCOPE:  # noqa: SLF001
                    if self._open_spans:
                        self._open_spans.pop(_key_of(span), None)
                    return
            elif not self._open_steps or _attempt_of(span) not in self._open_steps:
                unmatched_names = self._unmatched_names
                if unmatched_names is None:
                    return
                if unmatched_names.get(raw._name, 0) is raw._instrumentation_scope:  # noqa: SLF001
                    if self._open_spans:
                        self._open_spans.pop(_key_of(span), None)
                    return
        except Exception as error:
            if is_interruption(error):
                raise
            # else the public way is taken instead
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

    @property
    def has_open_steps(self) -> bool:
        """Whether spans are open that are steps, whose outcomes are yet to come."""
        return bool(self._open_steps)

    def leave_alone(self) -> None:
        """From now on no span is looked at, at no cost."""
        nothing: Any = _nothing
        self.on_start = self.on_end = nothing  # type: ignore[method-assign]

    def _guarded(self, handle: Callable[..., None], *seen: Any) -> None:
        try:
            handle(*seen)
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("processor", "a span could not be looked at", exc_info=True)

    def _started(self, span: Span, parent_context: Context | None) -> None:
        sink = self._sink
        key = _attempt_of(span)
        attributes = _attributes_of(span)
        if sink is None or sink.closed or key in self._open_steps:
            return
        if _is_own(span):
            self._enter(span, _identity(attributes))
            return
        step, rule = _identity(attributes), None
        if step is None and self._rule_state is not None:
            match = self._rule_state.begins(span, attributes, parent_context)
            step, rule = (None, None) if match is None else (match.step, match.rule)
        if step is None or not ownership.claim(key, self):
            return
        facts = self._facts(span, attributes if rule is None else rule.outcome.begun(attributes), ended=False)
        event = translate.span_started(step, _above(self._default_metadata, facts))
        self._open_steps[key] = _OpenStep(step, translate.metadata_of(facts.attributes), os.getpid(), rule)
        self._enter(span, step)
        if len(self._open_steps) > _MAX_OPEN_STEPS:
            forgotten, _ = self._open_steps.popitem(last=False)
            ownership.end(forgotten)
            warn_once("open-spans", "more than %d step spans are open; the oldest will give no outcome", _MAX_OPEN_STEPS)
        if event is not None:
            sink.record(event)

    def _ended(self, span: ReadableSpan) -> None:
        sink = self._sink
        key = _attempt_of(span)
        known = self._open_steps.pop(key, None) if self._open_steps else None
        attributes = _attributes_of(span)
        try:
            found = self._found_at_end(span, attributes) if known is None else known
        finally:
            self._open_spans.pop(_key_of(span), None)
        if known is None and (sink is None or sink.closed or found is None or not ownership.claim(key, self)):
            return
        ownership.end(key)
        if sink is None or found is None or found.pid != os.getpid():
            return  # a forked child ends its parent's span, of which the parent will tell
        facts = self._facts(span, attributes, ended=True)
        if found.rule is not None:
            facts = found.rule.outcome.ended(facts)
        event = translate.span_ended(found.step, _above({**self._default_metadata, **found.metadata}, facts))
        if known is None or event.is_outcome:  # a span that only ever says ``running`` has said so at its start
            sink.record(event)

    def _found_at_end(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> _OpenStep | None:
        """The step of a span of which no event was recorded at its start."""
        if _is_own(span):
            return None
        step = _identity(attributes)
        if step is not None:
            return _OpenStep(step, {}, os.getpid())
        match = None if self._rule_state is None else self._rule_state.ends(span, attributes)
        if match is not None and match.lacking:
            warn_once(f"rule-{match.rule.number}", "a span matches %r, but has no %s: it is no step", match.rule, match.lacking)
        return None if match is None or match.step is None else _OpenStep(match.step, {}, os.getpid(), match.rule)

    def _enter(self, span: ReadableSpan, step: Identity | None) -> None:
        if self._rule_state is not None and step is not None:
            self._rule_state.enter(_key_of(span), RunIdentity(step.flow_key, step.run_id))

    def _facts(self, span: ReadableSpan, attributes: Mapping[str, Any], *, ended: bool) -> SpanFacts:
        context = span.get_span_context()
        if context is None:
            raise EventError("a span without a context")
        started_at = span.start_time or 0
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


def _nothing(*args: Any, **kwargs: Any) -> None:
    """In place of a processor's methods."""


@dataclass(frozen=True)
class _OpenStep:
    """What is kept of a step's span from its start."""

    step: Identity
    metadata: Rendered
    pid: int
    rule: CompiledRule | None = None


def _attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def _is_own(span: ReadableSpan) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name == semconv.SCOPE_NAME


def _key_of(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    return (context.trace_id, context.span_id) if context is not None else (0, 0)


def _attempt_of(span: ReadableSpan) -> SpanKey:
    return *_key_of(span), span.start_time or 0


def _identity(attributes: Mapping[str, Any]) -> Identity | None:
    """The step that the attributes name. Within the service ids are mended as `run.step` mends them, not refused."""
    if semconv.FLOW_SLUG not in attributes:
        return None  # the fast path asks for no other, and what is warned of must not depend on the path
    values = [attributes.get(name) for name in (semconv.FLOW_SLUG, semconv.RUN_ID, semconv.STEP_KEY)]
    if None in values:
        warn_once("incomplete", "a span lacks some of failpath.flow.slug, failpath.run.id, failpath.step.key: it is no step")
        return None
    flow_key, run_id, step_key = (identifier(value) for value in values)
    if not (flow_key and run_id and step_key):
        warn_once("empty-id", "a span has an empty failpath.flow.slug, failpath.run.id or failpath.step.key and so is no step")
        return None
    return Identity(flow_key, run_id, step_key)


def _above(metadata: Rendered, facts: SpanFacts) -> SpanFacts:
    """The facts with this metadata, over which that of the span wins."""
    if not metadata:
        return facts
    beneath = {semconv.METADATA_PREFIX + key: value for key, value in metadata.items()}
    return msgspec.structs.replace(facts, attributes={**beneath, **facts.attributes})


def _with_known_status(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without a status that is none of the four: within the service the span's own outcome is better than none."""
    status = attributes.get(semconv.STEP_STATUS)
    if status is None or (isinstance(status, str) and status in STATUSES):
        return attributes
    warn_once("status", "a span has %s %r, which is no status", semconv.STEP_STATUS, status)
    return {name: value for name, value in attributes.items() if name != semconv.STEP_STATUS}
