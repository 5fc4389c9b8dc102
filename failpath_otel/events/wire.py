"""StepEvent ↔ JSON, as ``docs/wire.md`` describes it: camelCase names, RFC 3339 times with microseconds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec

from failpath_otel.errors import EventError
from failpath_otel.events.metadata import render
from failpath_otel.events.step import Status, StepError, StepEvent
from failpath_otel.events.text import MAX_ID_CHARS, clip, clip_middle, scrub

if not TYPE_CHECKING:
    # Where this is imported amid a freeze of freezegun's the name stands for a class of its own, unknown to msgspec.
    datetime = next(kind for kind in datetime.__mro__ if kind.__module__ == "datetime")

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_END_NS = 253_402_300_800 * 1_000_000_000  # the beginning of the year 10000

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]
_OptionalId = Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)] | None
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class WireError(msgspec.Struct, omit_defaults=True):
    """A step's error as it is written on the wire."""

    name: str
    message: str
    stack: str | None = None


class WireEvent(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A step event as it is written on the wire."""

    event_id: str
    flow_key: str
    run_id: str
    step_key: str
    status: Status
    timestamp: str
    started_at: str | None = None
    duration_ms: float | None = None
    metadata: dict[str, Any] = {}
    error: WireError | None = None
    trace_id: str | None = None
    span_id: str | None = None
    service: str | None = None
    skip_reason: str | None = None


class _Incoming(msgspec.Struct, rename="camel", kw_only=True):
    """A step event as it is read: unknown fields are passed over, ``durationMs`` follows from the times."""

    event_id: _Id
    flow_key: _Id
    run_id: _Id
    step_key: _Id
    status: Status
    timestamp: _Time
    started_at: _Time | None = None
    metadata: dict[str, Any] | None = None
    error: StepError | None = None
    trace_id: _OptionalId = None
    span_id: _OptionalId = None
    service: str | None = None
    skip_reason: str | None = None


class Envelope(msgspec.Struct):
    """The body of ``POST /v1/events``. Events stay raw, so that a bad one is refused alone."""

    events: list[msgspec.Raw]


_encoder = msgspec.json.Encoder(enc_hook=repr)
_event_decoder = msgspec.json.Decoder(_Incoming)
_envelope_decoder = msgspec.json.Decoder(Envelope)


def to_wire(event: StepEvent) -> WireEvent:
    """The event with its wire names and times."""
    started_at = None if event.started_at is None else format_time(event.started_at)
    error = None if event.error is None else WireError(event.error.name, event.error.message, event.error.stack)
    return WireEvent(
        event_id=event.event_id,
        flow_key=event.flow_key,
        run_id=event.run_id,
        step_key=event.step_key,
        status=event.status,
        timestamp=format_time(event.timestamp),
        started_at=started_at,
        duration_ms=None if started_at is None else event.duration_ms,
        metadata=event.metadata,
        error=error,
        trace_id=event.trace_id,
        span_id=event.span_id,
        service=event.service,
        skip_reason=event.skip_reason,
    )


def encode_event(event: StepEvent) -> bytes:
    """One event as JSON, without a line break."""
    return _encoder.encode(to_wire(event))


def join_events(encoded: Iterable[bytes]) -> bytes:
    """The body of ``POST /v1/events`` from events that are encoded already."""
    return b'{"events":[' + b",".join(encoded) + b"]}"


def split_events(body: bytes) -> Sequence[bytes | msgspec.Raw]:
    """The events within a body of ``POST /v1/events``, each still encoded.

    Raises:
        EventError: The body is no JSON object with a list ``events``.
    """
    try:
        return _envelope_decoder.decode(body).events
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"the body must be a JSON object with a list of events: {error}") from error


def decode_event(raw: bytes | msgspec.Raw) -> StepEvent:
    """Reads one event.

    Raises:
        EventError: A field is missing, of the wrong type, empty, too long, or no time; the message names it.
    """
    try:
        incoming = _event_decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise EventError(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        # A lone surrogate is legal in JSON text and no reason to lose an event.
        incoming = _decode_leniently(bytes(raw))
    return _from_wire(incoming)


def _decode_leniently(raw: bytes) -> _Incoming:
    try:
        return msgspec.convert(_scrubbed(json.loads(raw)), _Incoming)
    except (ValueError, RecursionError, OverflowError) as error:
        raise EventError(str(error)) from error


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(key): _scrubbed(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_scrubbed(item) for item in cast("Sequence[Any]", value)]
    return value


def _from_wire(incoming: _Incoming) -> StepEvent:
    timestamp = _checked_time("timestamp", incoming.timestamp)
    started_at = None
    if incoming.started_at is not None and incoming.status != "running":
        started_at = _checked_time("startedAt", incoming.started_at)
    return StepEvent(
        event_id=incoming.event_id,
        flow_key=incoming.flow_key,
        run_id=incoming.run_id,
        step_key=incoming.step_key,
        status=incoming.status,
        timestamp=timestamp if started_at is None else max(timestamp, started_at),
        started_at=started_at,
        metadata=render(incoming.metadata),
        error=_bounded(incoming.error) if incoming.status == "error" else None,
        trace_id=incoming.trace_id or None,
        span_id=incoming.span_id or None,
        service=clip(incoming.service) if incoming.service else None,
        skip_reason=clip(incoming.skip_reason) if incoming.skip_reason and incoming.status == "skipped" else None,
    )


def _bounded(error: StepError | None) -> StepError | None:
    if error is None:
        return None
    stack = clip_middle(error.stack) if error.stack else None
    return StepError(name=clip(error.name, MAX_ID_CHARS) or "Error", message=clip(error.message), stack=stack)


def _checked_time(name: str, time: datetime) -> int:
    time_ns = parse_time(time)
    # An offset can carry a time out of the years that can be written again; before 1970 there was nothing to report.
    if not 0 <= time_ns < _END_NS:
        raise EventError(f"{name} must lie in the years 1970 to 9999 in UTC, got {time.isoformat()}")
    return time_ns


def parse_time(time: datetime) -> int:
    """Nanoseconds since the Unix epoch, of a time with a timezone."""
    return (time - _EPOCH) // _MICROSECOND * 1000


def format_time(time_ns: int) -> str:
    """Nanoseconds since the Unix epoch as RFC 3339 text in UTC with microseconds; finer digits are cut off."""
    digits = str(time_ns).zfill(10)
    return f"{_second(digits[:-9])}{digits[-9:-3]}Z"


@lru_cache(maxsize=64)
def _second(seconds: str) -> str:
    # Events of one batch fall into few different seconds, and formatting these costs more than the rest of the event.
    return (_EPOCH + timedelta(seconds=int(seconds))).strftime("%Y-%m-%dT%H:%M:%S.")
