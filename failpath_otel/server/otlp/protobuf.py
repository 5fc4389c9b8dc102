"""OTLP in protobuf → step events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from google.protobuf.message import DecodeError

from failpath_otel.errors import EventError
from failpath_otel.events import semconv
from failpath_otel.events.step import StepError
from failpath_otel.events.text import MAX_ID_CHARS
from failpath_otel.events.translate import LogFacts, SpanFacts, exception_of, log_recorded, span_ended
from failpath_otel.server.otlp import schema
from failpath_otel.server.otlp.item import (
    ERROR_CODE,
    FOREIGN,
    SPAN_ID_BYTES,
    TRACE_ID_BYTES,
    OpenedSpan,
    Passed,
    Reading,
    checked_id,
    checked_time,
    kind_of,
    matters,
    optional_id,
    step_of,
)

_EXCEPTION: Final = semconv.EXCEPTION_EVENT.encode()
_EVENT_NAME: Final = semconv.EVENT_NAME.encode()
_SERVICE_NAME: Final = semconv.SERVICE_NAME.encode()
_MARK: Final = b"failpath."

_names: Final[dict[bytes, str | None]] = {}
"""Attribute names seen before, ``None`` for those that do not matter: nearly all spans carry the same few."""
_MAX_NAMES: Final = 4096


def groups(body: bytes) -> Iterator[tuple[str | None, bytes, Iterable[bytes]]]:
    """The service of each resource, with each of its scopes and that scope's spans or log records, still encoded.

    Raises:
        EventError: The body is no OTLP request.
    """
    try:
        request = schema.Request.FromString(body)
    except DecodeError as error:
        raise EventError(f"the body is no OTLP protobuf message: {error}") from error
    return _scopes(request)


def scope_name(raw: bytes) -> str:
    """The name of an encoded instrumentation scope; empty where it has none or cannot be read."""
    try:
        return schema.InstrumentationScope.FromString(raw).name.decode("utf-8", "replace") if raw else ""
    except DecodeError:
        return ""


def open_span(raw: bytes, wanted: frozenset[str]) -> OpenedSpan:
    """An encoded span as rules look at it, with the ``wanted`` attributes and those that matter anyway.

    Raises:
        EventError: It cannot be decoded.
    """
    span = _parsed(schema.Span, "span", raw)
    attributes = {
        name: _value(pair.value)
        for pair in span.attributes
        if (name := pair.key.decode("utf-8", "replace")) in wanted or matters(name)
    }
    return OpenedSpan(
        name=span.name.decode("utf-8", "replace"),
        kind=kind_of(span.kind),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        attributes=attributes,
        facts=lambda service: _facts(span, attributes, service),
    )


def read_span(raw: bytes, service: str | None) -> Reading:
    """The event of an encoded span.

    Raises:
        EventError: The span breaks the contract.
    """
    if _MARK not in raw:
        return FOREIGN
    span = _parsed(schema.Span, "span", raw)
    attributes = _attributes(span.attributes)
    step = step_of(attributes)
    if isinstance(step, Passed):
        return step
    return span_ended(step, _facts(span, attributes, service))


def _facts(span: Any, attributes: Mapping[str, Any], service: str | None) -> SpanFacts:
    status = span.status
    failed = status.code == ERROR_CODE
    events = span.events
    started_at = checked_time("start_time_unix_nano", span.start_time_unix_nano)
    return SpanFacts(
        trace_id=checked_id("trace_id", span.trace_id, TRACE_ID_BYTES),
        span_id=checked_id("span_id", span.span_id, SPAN_ID_BYTES),
        attributes=attributes,
        started_at=started_at,
        ended_at=checked_time("end_time_unix_nano", span.end_time_unix_nano or started_at),
        failed=failed,
        status_message=status.message.decode("utf-8", "replace") if failed else "",
        exception=_exception(events) if events else None,
        service=service,
    )


def read_log(raw: bytes, service: str | None) -> Reading:
    """The event of an encoded log record.

    Raises:
        EventError: The record breaks the contract.
    """
    if _EVENT_NAME not in raw:
        return FOREIGN
    record = _parsed(schema.LogRecord, "log record", raw)
    if record.event_name != _EVENT_NAME and not _named_by_attribute(record.attributes):
        return FOREIGN
    attributes = _attributes(record.attributes)
    step = step_of(attributes)
    if isinstance(step, Passed):
        return step
    facts = LogFacts(
        trace_id=optional_id("trace_id", record.trace_id, TRACE_ID_BYTES),
        span_id=optional_id("span_id", record.span_id, SPAN_ID_BYTES),
        attributes=attributes,
        timestamp=checked_time("time_unix_nano", record.time_unix_nano or record.observed_time_unix_nano),
        service=service,
    )
    return log_recorded(step, facts)


def _scopes(request: Any) -> Iterator[tuple[str | None, bytes, Iterable[bytes]]]:
    for group in request.groups:
        service = _service(group.resource)
        for scope in group.scopes:
            yield service, scope.scope, scope.items


def _service(resource: Any) -> str | None:
    for raw in resource.attributes:
        if _SERVICE_NAME in raw:
            pair = _parsed(schema.KeyValue, "resource attribute", raw)
            value = _value(pair.value)
            if pair.key == _SERVICE_NAME and isinstance(value, str) and value:
                return value
    return None


def _parsed(message: Any, what: str, raw: bytes) -> Any:
    try:
        return message.FromString(raw)
    except DecodeError:
        raise EventError(f"the {what} cannot be decoded") from None


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    """The attributes that matter, in one pass; of two with one name the later stands."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key: bytes = pair.key
        name = _names[key] if key in _names else _name(key)
        if name is not None:
            value = pair.value
            text: bytes = value.string_value
            # Most values are text, and asking for the kind costs as much as all the rest.
            found[name] = text.decode("utf-8", "replace") if text else _value(value)
    return found


def _name(key: bytes) -> str | None:
    """The name as text where it matters, remembered for the next time."""
    name = key.decode("utf-8", "replace")
    known = name if matters(name) else None
    if len(_names) < _MAX_NAMES and len(key) <= MAX_ID_CHARS:
        _names[key] = known
    return known


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value.decode("utf-8", "replace")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key.decode("utf-8", "replace"): _value(pair.value) for pair in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)


def _exception(events: Any) -> StepError | None:
    """The last ``exception`` event."""
    for event in reversed(events):
        if event.name == _EXCEPTION:
            return exception_of(_attributes(event.attributes))
    return None


def _named_by_attribute(pairs: Iterable[Any]) -> bool:
    return any(pair.key == b"event.name" and pair.value.string_value == _EVENT_NAME for pair in pairs)
