"""What `record_step` and `complete` are given, made safe: a status, an error, a time."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from failpath_otel import clock
from failpath_otel.events.step import STATUSES, Status, StepError
from failpath_otel.events.text import MAX_ID_CHARS, as_text, clip, clip_middle
from failpath_otel.events.wire import parse_time
from failpath_otel.notices import warn_once
from failpath_otel.steps.attempt import stack_of


def known_status(status: object) -> Status | None:
    """``status`` where it is one of the four; else a warning."""
    if isinstance(status, str) and status in STATUSES:
        return cast(Status, str.__str__(status))
    warn_once("status", "record_step records nothing: status must be one of %s, got %s", sorted(STATUSES), as_text(status))
    return None


def step_error(error: object, *, capture_stack: bool) -> StepError:
    """Why a step failed, of an exception, a `StepError` or anything that says it."""
    if isinstance(error, StepError):
        # The fields of a Struct are not checked when it is made.
        stack = clip_middle(as_text(error.stack)) if error.stack else None
        return StepError(clip(as_text(error.name), MAX_ID_CHARS) or "Error", clip(as_text(error.message)), stack)
    if isinstance(error, BaseException):
        stack = stack_of(error) if capture_stack else None
        return StepError(clip(type(error).__name__, MAX_ID_CHARS), clip(as_text(error)), stack)
    return StepError("Error", "" if error is None else clip(as_text(error)))


def nanoseconds(timestamp: int | datetime | None) -> int:
    """A time in nanoseconds since the Unix epoch; now, where ``timestamp`` is none that OTLP can hold."""
    if timestamp is None:
        return clock.time_ns()
    if isinstance(timestamp, datetime) and timestamp.utcoffset() is not None:
        nanoseconds = parse_time(timestamp)
    elif isinstance(timestamp, int) and not isinstance(timestamp, bool):
        nanoseconds = int(timestamp)
    else:
        nanoseconds = 0
    # OTLP holds a time in 64 bits without a sign: one beyond it would cost the exporter its whole batch.
    if 0 < nanoseconds < 2**63:
        return nanoseconds
    warn_once(
        "timestamp",
        "record_step takes nanoseconds since 1970 or a datetime with a time zone, up to the year 2262, not %s; now is recorded",
        as_text(timestamp),
    )
    return clock.time_ns()
