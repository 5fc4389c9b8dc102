"""A run on its way to a worker: a small mapping of text, in the forms of W3C trace context and baggage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.baggage import set_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from failpath_otel.events import semconv
from failpath_otel.events.translate import RunIdentity
from failpath_otel.propagation import baggage

_TRACE: Final = TraceContextTextMapPropagator()
_BAGGAGE: Final = W3CBaggagePropagator()
_MAX_CHARS: Final = 16_384


class Carried(NamedTuple):
    """What a carrier holds."""

    run: RunIdentity | None
    span_context: SpanContext | None


def pack(named: RunIdentity | None) -> dict[str, str]:
    """``named`` and the current span, so that a worker goes on with both. Nothing else of this context travels."""
    carrier: dict[str, str] = {}
    _TRACE.inject(carrier, otel_context.get_current())
    if named is None:
        return carrier
    if baggage.fits(named):
        _BAGGAGE.inject(carrier, baggage.write(named, Context()))
    else:  # a message has no bound as a header has
        carrier |= {semconv.FLOW_SLUG: named.flow_key, semconv.RUN_ID: named.run_id}
    return carrier


def unpack(carrier: object) -> Carried:
    """What ``carrier`` holds. Never raises: what cannot be read is not there."""
    if not isinstance(carrier, Mapping):
        return Carried(None, None)
    fields = {
        name.lower(): value
        for name, value in cast("Mapping[object, object]", carrier).items()
        if isinstance(name, str) and isinstance(value, str) and len(value) <= _MAX_CHARS
    }
    within = _BAGGAGE.extract(fields, Context())
    for name in (semconv.FLOW_SLUG, semconv.RUN_ID):
        if name in fields:
            within = set_baggage(name, fields[name], within)
    span_context = trace.get_current_span(_TRACE.extract(fields, Context())).get_span_context()
    return Carried(baggage.read(within), span_context if span_context.is_valid else None)
