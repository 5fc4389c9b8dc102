"""What spans and log records have in common, whichever encoding they came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from failpath_otel.errors import EventError
from failpath_otel.events import semconv
from failpath_otel.events.step import StepEvent
from failpath_otel.events.translate import IDENTITY, Identity, SpanFacts, identity, mentions_step

TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8
MAX_TIME_NS: Final = 2**63 - 1
ERROR_CODE: Final = 2
"""``STATUS_CODE_ERROR``."""

EXCEPTION_NAMES: Final = frozenset({semconv.EXCEPTION_TYPE, semconv.EXCEPTION_MESSAGE, semconv.EXCEPTION_STACKTRACE})


MAX_KINDS: Final = 50
"""How many kinds are counted apart of what senders write."""

Lacking = tuple[tuple[str, ...], str | None]
"""Which identifying attributes an item lacks, and the service that it came from."""


class Passed(msgspec.Struct, frozen=True):
    """An item that is in order and gives no event.

    ``missing`` are those of the three identifying attributes that it lacks; empty where it has none of them.
    """

    missing: tuple[str, ...] = ()


FOREIGN: Final = Passed()
"""It names no step."""

Reading = StepEvent | Passed

KINDS: Final = ("internal", "internal", "server", "client", "producer", "consumer")
"""Span kinds by their number; one that is missing is taken as internal."""


class OpenedSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A span as rules look at it. Ids are hexadecimal digits, not checked; ``facts`` checks and reads the rest."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_span_id: str
    attributes: Mapping[str, Any]
    facts: Callable[[str | None], SpanFacts]


def kind_of(value: object) -> str:
    """A span's kind by its number, or by its name in protobuf."""
    if isinstance(value, int) and 0 <= value < len(KINDS):
        return KINDS[value]
    name = value.removeprefix("SPAN_KIND_").lower() if isinstance(value, str) else ""
    if name.isdecimal() and len(name) == 1:
        return kind_of(int(name))
    return name if name in KINDS else KINDS[0]


def step_of(attributes: Mapping[str, Any]) -> Identity | Passed:
    """The step that the attributes name, or why there is none.

    Raises:
        EventError: An id is empty, no text, or too long.
    """
    step = identity(attributes)
    if step is not None:
        return step
    missing = tuple(name for name in IDENTITY if attributes.get(name) is None)
    return Passed(missing) if mentions_step(attributes) else FOREIGN


def matters(name: str) -> bool:
    """Whether a step event can hold anything of this attribute."""
    return name.startswith("failpath.") or name == semconv.ERROR_TYPE or name in EXCEPTION_NAMES


def checked_id(name: str, raw: bytes, length: int) -> str:
    """The id in lower-case hexadecimal digits.

    Raises:
        EventError: It has another length, or is all zero.
    """
    if len(raw) != length:
        raise EventError(f"{name} must be {length} bytes, got {len(raw)}")
    if not any(raw):
        raise EventError(f"{name} is all zero")
    return raw.hex()


def optional_id(name: str, raw: bytes, length: int) -> str:
    """Like `checked_id`, but empty where there is none or it is all zero, as on a log record without a span."""
    return checked_id(name, raw, length) if any(raw) else ""


def checked_time(name: str, time_ns: int) -> int:
    """The time in nanoseconds since the Unix epoch.

    Raises:
        EventError: It is missing (0), before the epoch, or after the year 2262.
    """
    if time_ns == 0:
        raise EventError(f"{name} is missing")
    if not 0 < time_ns <= MAX_TIME_NS:
        raise EventError(f"{name} must be nanoseconds since 1970, before the year 2262, got {time_ns}")
    return time_ns
