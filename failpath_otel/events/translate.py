"""The one translation: facts of a span or a log record → StepEvent.

Pure, and used by the span processor inside a service as well as by the server behind a Collector, so that both tell the
same story. Callers bring facts in plain Python types; where these come from (SDK objects, protobuf, JSON) is theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import msgspec

from failpath_otel.errors import EventError
from failpath_otel.events import semconv
from failpath_otel.events.metadata import render
from failpath_otel.events.step import STATUSES, Status, StepError, StepEvent, event_id
from failpath_otel.events.text import MAX_ID_CHARS, clip, clip_middle, scrub

IDENTITY = (semconv.FLOW_SLUG, semconv.RUN_ID, semconv.STEP_KEY)
_PREFIX_CHARS = len(semconv.METADATA_PREFIX)
_OUTCOME_ID = re.compile(r"((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-end")


class RunIdentity(NamedTuple):
    """Which run of which flow."""

    flow_key: str
    run_id: str


class Identity(msgspec.Struct, frozen=True):
    """Which step of which run."""

    flow_key: str
    run_id: str
    step_key: str


class SpanFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a step event needs to know of a span. Times are nanoseconds since the Unix epoch.

    Attributes:
        failed: The span's status code is ERROR.
        status_message: The description that came with that status.
        exception: The last ``exception`` event of the span, if it has one.
    """

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]
    started_at: int
    ended_at: int = 0
    failed: bool = False
    status_message: str = ""
    exception: StepError | None = None
    service: str | None = None


class LogFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a step event needs to know of a log record named ``failpath.step``. Ids are empty where the record has none."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any]
    timestamp: int
    service: str | None = None


def mentions_step(attributes: Mapping[str, Any]) -> bool:
    """True where at least one of the three identifying attributes is there."""
    return any(name in attributes for name in IDENTITY)


def identity(attributes: Mapping[str, Any]) -> Identity | None:
    """The step that these attributes name, or ``None`` where one of the three is missing.

    Raises:
        EventError: An id is empty, no text, or longer than 512 characters.
    """
    values = [attributes.get(name) for name in IDENTITY]
    if None in values:
        return None
    return Identity(*(_checked(name, value) for name, value in zip(IDENTITY, values, strict=True)))


def span_started(step: Identity, facts: SpanFacts) -> StepEvent | None:
    """The ``running`` event of a span that begins, or ``None`` where it already says how it ended."""
    if _declared_status(facts.attributes) not in (None, "running"):
        return None
    return StepEvent(
        event_id=event_id(facts.trace_id, facts.span_id, "running"),
        flow_key=step.flow_key,
        run_id=step.run_id,
        step_key=step.step_key,
        status="running",
        timestamp=facts.started_at,
        metadata=metadata_of(facts.attributes),
        trace_id=facts.trace_id,
        span_id=facts.span_id,
        service=facts.service,
    )


def span_ended(step: Identity, facts: SpanFacts) -> StepEvent:
    """The one event of a finished span: its outcome, or ``running`` where the span says that it recorded just that.

    ``failpath.step.status`` is respected. Without it the span failed only if its status is ERROR: an exception event
    under UNSET or OK was handled. An end before the start is taken as the start. A span that carries the id of another
    span's outcome, and when that began, ends the step of that span (`FailpathClient.complete`).

    Raises:
        EventError: ``failpath.step.status`` is none of the four.
    """
    status = _declared_status(facts.attributes) or ("error" if facts.failed else "success")
    running = status == "running"
    if not running:
        facts = _of_completed(facts)
    return StepEvent(
        event_id=event_id(facts.trace_id, facts.span_id, status),
        flow_key=step.flow_key,
        run_id=step.run_id,
        step_key=step.step_key,
        status=status,
        timestamp=facts.started_at if running else max(facts.started_at, facts.ended_at),
        started_at=None if running else facts.started_at,
        metadata=metadata_of(facts.attributes),
        error=_span_error(facts) if status == "error" else None,
        trace_id=facts.trace_id,
        span_id=facts.span_id,
        service=facts.service,
        skip_reason=_text(facts.attributes, semconv.SKIP_REASON) if status == "skipped" else None,
    )


def log_recorded(step: Identity, facts: LogFacts) -> StepEvent:
    """The event that a log record named ``failpath.step`` carries.

    Raises:
        EventError: The status is missing or none of the four, or there is neither an event id nor a span to make it of.
    """
    attributes = facts.attributes
    status = _declared_status(attributes)
    if status is None:
        raise EventError(f"{semconv.STEP_STATUS} is missing")
    known_id = attributes.get(semconv.EVENT_ID)
    if known_id is None and not (facts.trace_id and facts.span_id):
        raise EventError(f"neither {semconv.EVENT_ID} nor a trace id and span id")
    started_at = attributes.get(semconv.STARTED_AT)
    started_at = started_at if isinstance(started_at, int) and started_at > 0 and status != "running" else None
    return StepEvent(
        event_id=event_id(facts.trace_id, facts.span_id, status) if known_id is None else _checked(semconv.EVENT_ID, known_id),
        flow_key=step.flow_key,
        run_id=step.run_id,
        step_key=step.step_key,
        status=status,
        timestamp=max(facts.timestamp, started_at or 0),
        started_at=started_at,
        metadata=metadata_of(attributes),
        error=exception_of(attributes) if status == "error" else None,
        trace_id=facts.trace_id or None,
        span_id=facts.span_id or None,
        service=facts.service,
        skip_reason=_text(attributes, semconv.SKIP_REASON) if status == "skipped" else None,
    )


def exception_of(attributes: Mapping[str, Any]) -> StepError | None:
    """The error that ``exception.*`` attributes describe."""
    kind = _text(attributes, semconv.EXCEPTION_TYPE)
    message = _text(attributes, semconv.EXCEPTION_MESSAGE)
    if kind is None and message is None:
        return None
    stack = attributes.get(semconv.EXCEPTION_STACKTRACE)
    return StepError(
        name=last_part(kind or "Error"),
        message=message or "",
        stack=clip_middle(stack) if isinstance(stack, str) and stack else None,
    )


def metadata_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The ``failpath.metadata.*`` attributes, without the prefix."""
    found = {
        name[_PREFIX_CHARS:]: value
        for name, value in attributes.items()
        if name.startswith(semconv.METADATA_PREFIX) and len(name) > _PREFIX_CHARS
    }
    return render(found) if found else {}


def last_part(type_name: str) -> str:
    """``Timeout`` of ``requests.exceptions.Timeout``."""
    return clip(type_name.rstrip(".").rpartition(".")[2], MAX_ID_CHARS) or "Error"


def _span_error(facts: SpanFacts) -> StepError:
    if facts.exception is not None:
        return facts.exception
    kind = facts.attributes.get(semconv.ERROR_TYPE)
    name = last_part(kind) if isinstance(kind, str) and kind else "Error"
    return StepError(name=name, message=clip(facts.status_message))


def _of_completed(facts: SpanFacts) -> SpanFacts:
    """The facts of the span that a completion speaks for, where this is one: it ends a step that began elsewhere."""
    named = facts.attributes.get(semconv.EVENT_ID)
    started_at = facts.attributes.get(semconv.STARTED_AT)
    found = _OUTCOME_ID.fullmatch(named) if isinstance(named, str) else None
    if found is None or not isinstance(started_at, int) or not 0 < started_at < 2**63:
        return facts
    return msgspec.structs.replace(facts, trace_id=found[1], span_id=found[2], started_at=started_at)


def _declared_status(attributes: Mapping[str, Any]) -> Status | None:
    status = attributes.get(semconv.STEP_STATUS)
    if status is None:
        return None
    if not isinstance(status, str) or status not in STATUSES:
        raise EventError(f"{semconv.STEP_STATUS} must be one of {', '.join(sorted(STATUSES))}, got {clip(repr(status), 64)}")
    return cast(Status, status)


def _checked(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise EventError(f"{name} must be text, got {type(value).__name__}")
    if not value:
        raise EventError(f"{name} is empty")
    if len(value) > MAX_ID_CHARS:
        raise EventError(f"{name} is {len(value)} characters long; at most {MAX_ID_CHARS} are taken")
    return scrub(value)


def _text(attributes: Mapping[str, Any], name: str) -> str | None:
    value = attributes.get(name)
    return clip(value) if isinstance(value, str) and value else None
