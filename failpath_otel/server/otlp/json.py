"""OTLP in JSON → step events.

Read by hand and item by item: protobuf's own JSON parser takes the hexadecimal ids for base64, without an error, and refuses
the whole body for one field of the wrong type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec

from failpath_otel.errors import EventError
from failpath_otel.events import semconv
from failpath_otel.events.step import StepError
from failpath_otel.events.text import clip
from failpath_otel.events.translate import LogFacts, SpanFacts, exception_of, log_recorded, span_ended
from failpath_otel.server.http.body import check_commas
from failpath_otel.server.http.tolerant_json import is_list, is_object, repaired
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

_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?")
"""Protobuf's JSON knows integers with a fraction of zeros or an exponent as well."""
_ERROR_CODES: Final = (ERROR_CODE, str(ERROR_CODE), "STATUS_CODE_ERROR")


class _Traces(msgspec.Struct, rename="camel"):
    resource_spans: list[msgspec.Raw] | None = None
    original: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="resource_spans")


class _Logs(msgspec.Struct, rename="camel"):
    resource_logs: list[msgspec.Raw] | None = None
    original: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="resource_logs")


class _ScopeGroup(msgspec.Struct, rename="camel"):
    resource: msgspec.Raw = msgspec.Raw()
    scope_spans: list[msgspec.Raw] | None = None
    scope_logs: list[msgspec.Raw] | None = None


class _Scope(msgspec.Struct, rename="camel"):
    scope: msgspec.Raw = msgspec.Raw()
    spans: list[msgspec.Raw] | None = None
    log_records: list[msgspec.Raw] | None = None


Groups = Iterator[tuple[str | None, bytes, Iterable[bytes | EventError]]]


def span_groups(body: bytes) -> Groups:
    """The service of each resource, with each of its scopes and that scope's spans, still encoded.

    What cannot be opened is an `EventError` in the place of its spans.

    Raises:
        EventError: The body is no OTLP request.
    """
    request = _outer(body, _Traces)
    return _scopes("resourceSpans", _groups("resourceSpans", request.resource_spans, request.original))


def log_groups(body: bytes) -> Groups:
    """Like `span_groups`, for log records."""
    request = _outer(body, _Logs)
    return _scopes("resourceLogs", _groups("resourceLogs", request.resource_logs, request.original))


def read_span(raw: bytes, service: str | None) -> Reading:
    """The event of an encoded span.

    Raises:
        EventError: The span breaks the contract.
    """
    # An escape could hide the name.
    if b"failpath." not in raw and b"\\u" not in raw:
        return FOREIGN
    span = _object("span", _decoded(raw))
    attributes = _attributes(_list("attributes", span.get("attributes")))
    step = step_of(attributes)
    if isinstance(step, Passed):
        return step
    return span_ended(step, _facts(span, attributes, service))


def scope_name(raw: bytes) -> str:
    """The name of an encoded instrumentation scope; empty where it has none or cannot be read."""
    try:
        return _text("name", _object("scope", _decoded(raw)).get("name")) if raw else ""
    except EventError:
        return ""


def open_span(raw: bytes, wanted: frozenset[str]) -> OpenedSpan:
    """An encoded span as rules look at it, with the ``wanted`` attributes and those that matter anyway.

    Raises:
        EventError: It cannot be read.
    """
    span = _object("span", _decoded(raw))
    attributes = _attributes(_list("attributes", span.get("attributes")), wanted)
    return OpenedSpan(
        name=_text("name", span.get("name")),
        kind=kind_of(span.get("kind")),
        trace_id=_text("traceId", span.get("traceId")).lower(),
        span_id=_text("spanId", span.get("spanId")).lower(),
        parent_span_id=_text("parentSpanId", span.get("parentSpanId")).lower(),
        attributes=attributes,
        facts=lambda service: _facts(span, attributes, service),
    )


def _facts(span: dict[str, Any], attributes: dict[str, Any], service: str | None) -> SpanFacts:
    status = _object("status", span.get("status"))
    failed = status.get("code") in _ERROR_CODES
    started_at = checked_time("startTimeUnixNano", _integer("startTimeUnixNano", span.get("startTimeUnixNano")))
    return SpanFacts(
        trace_id=checked_id("traceId", _hex("traceId", span.get("traceId")), TRACE_ID_BYTES),
        span_id=checked_id("spanId", _hex("spanId", span.get("spanId")), SPAN_ID_BYTES),
        attributes=attributes,
        started_at=started_at,
        ended_at=checked_time("endTimeUnixNano", _integer("endTimeUnixNano", span.get("endTimeUnixNano")) or started_at),
        failed=failed,
        status_message=_text("status.message", status.get("message")) if failed else "",
        exception=_exception(_list("events", span.get("events"))),
        service=service,
    )


def read_log(raw: bytes, service: str | None) -> Reading:
    """The event of an encoded log record.

    Raises:
        EventError: The record breaks the contract.
    """
    if semconv.EVENT_NAME.encode() not in raw and b"\\u" not in raw:
        return FOREIGN
    record = _object("log record", _decoded(raw))
    attributes = _attributes(_list("attributes", record.get("attributes")))
    if semconv.EVENT_NAME not in (record.get("eventName"), attributes.get("event.name")):
        return FOREIGN
    step = step_of(attributes)
    if isinstance(step, Passed):
        return step
    time = _integer("timeUnixNano", record.get("timeUnixNano"))
    facts = LogFacts(
        trace_id=optional_id("traceId", _hex("traceId", record.get("traceId")), TRACE_ID_BYTES),
        span_id=optional_id("spanId", _hex("spanId", record.get("spanId")), SPAN_ID_BYTES),
        attributes=attributes,
        timestamp=checked_time("timeUnixNano", time or _integer("observedTimeUnixNano", record.get("observedTimeUnixNano"))),
        service=service,
    )
    return log_recorded(step, facts)


def _outer(body: bytes, shape: type[Any]) -> Any:
    check_commas(body)
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.json.decode(repaired(body), type=shape)
    except ValueError as error:
        raise EventError(f"the body is no OTLP request in JSON: {clip(str(error), 512)}") from error


def _groups(name: str, groups: list[msgspec.Raw] | None, original: msgspec.Raw) -> list[msgspec.Raw]:
    if groups is None and bytes(original):
        # OTLP passes over unknown keys; all of the sender's data would be lost without a word.
        raise EventError(f"keys are in lowerCamelCase in OTLP's JSON, such as {name}; the names of protobuf are not read")
    return groups or []


def _scopes(name: str, groups: list[msgspec.Raw]) -> Groups:
    for raw in groups:
        try:
            group = msgspec.json.decode(raw, type=_ScopeGroup)
        except (ValueError, RecursionError) as error:
            yield None, b"", [EventError(f"{name} is malformed: {clip(str(error), 512)}")]
            continue
        service = _service(group.resource)
        for scope in group.scope_spans or group.scope_logs or ():
            yield (service, *_opened(name, scope))


def _opened(name: str, raw: msgspec.Raw) -> tuple[bytes, Iterable[bytes | EventError]]:
    try:
        scope = msgspec.json.decode(raw, type=_Scope)
    except (ValueError, RecursionError) as error:
        return b"", [EventError(f"a scope of {name} is malformed: {clip(str(error), 512)}")]
    return bytes(scope.scope), map(bytes, scope.spans or scope.log_records or ())


def _service(resource: msgspec.Raw) -> str | None:
    """``service.name``; a resource that cannot be read has none, and its spans stand without it."""
    encoded = bytes(resource)
    if not encoded:
        return None
    try:
        pairs = _list("attributes", _object("resource", _decoded(encoded)).get("attributes"))
        value = next((_value(pair["value"]) for pair in pairs if pair.get("key") == semconv.SERVICE_NAME), None)
    except (EventError, LookupError, AttributeError):
        return None
    return value if isinstance(value, str) and value else None


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return msgspec.json.decode(repaired(raw))
    except ValueError as error:
        raise EventError(f"malformed JSON: {clip(str(error), 512)}") from error


def _attributes(pairs: list[Any], wanted: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The attributes that matter, in one pass; of two with one name the later stands."""
    found: dict[str, Any] = {}
    for pair in pairs:
        entry = _object("attributes", pair)
        name = _text("an attribute's key", entry.get("key"))
        if matters(name) or name in wanted or name == "event.name":
            found[name] = _value(entry.get("value"))
    return found


def _value(value: Any) -> Any:
    """The plain value of an ``AnyValue``."""
    for kind, content in _object("an attribute's value", value).items():
        if content is None:
            continue
        if kind == "stringValue":
            return _text(kind, content)
        if kind == "intValue":
            return _integer(kind, content)
        if kind == "doubleValue":
            return _double(content)
        if kind == "boolValue":
            if not isinstance(content, bool):
                raise EventError(f"boolValue must be true or false, got {type(content).__name__}")
            return content
        if kind == "arrayValue":
            return [_value(item) for item in _list(kind, _object(kind, content).get("values"))]
        if kind == "kvlistValue":
            pairs = map(_pair, _list(kind, _object(kind, content).get("values")))
            return {_text("key", pair.get("key")): _value(pair.get("value")) for pair in pairs}
        if kind == "bytesValue":
            return _text(kind, content)
    return None


def _pair(value: Any) -> dict[str, Any]:
    return _object("kvlistValue", value)


def _exception(events: list[Any]) -> StepError | None:
    """The last ``exception`` event."""
    for event in reversed(events):
        entry = _object("events", event)
        if entry.get("name") == semconv.EXCEPTION_EVENT:
            return exception_of(_attributes(_list("attributes", entry.get("attributes"))))
    return None


def _object(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not is_object(value):
        raise EventError(f"{name} must be an object, got {type(value).__name__}")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not is_list(value):
        raise EventError(f"{name} must be a list, got {type(value).__name__}")
    return value


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise EventError(f"{name} must be text, got {type(value).__name__}")
    return value


def _integer(name: str, value: Any) -> int:
    """An integer, written as a number or as text; 0 where there is none."""
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        if len(value) <= 20 and value.isascii() and value.removeprefix("-").isdecimal():
            return int(value)
        if _NUMBER.fullmatch(value) and (number := Decimal(value)) == (whole := int(number)):
            return whole
    raise EventError(f"{name} must be an integer, got {clip(repr(value), 64)}")


def _double(value: Any) -> float:
    """A number; JSON writes NaN and the infinities as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    named = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    if isinstance(value, str) and value in named:
        return named[value]
    try:
        return float(_text("doubleValue", value))
    except ValueError:
        raise EventError(f"doubleValue must be a number, got {clip(repr(value), 64)}") from None


def _hex(name: str, value: Any) -> bytes:
    """An id of hexadecimal digits in any case."""
    text = _text(name, value)
    # bytes.fromhex() alone would pass over spaces.
    if _HEX.fullmatch(text) is None:
        raise EventError(f"{name} must be pairs of hexadecimal digits, got {clip(repr(text), 64)}")
    return bytes.fromhex(text)
