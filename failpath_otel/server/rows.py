"""What the server's JSON API answers: frozen rows, camelCase on the wire.

Times are RFC 3339 text in UTC with microseconds, durations are milliseconds. What is not known is ``null``, never left out;
only wire events, in `EventList`, leave out what they do not carry.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from failpath_otel.events.step import StepError
from failpath_otel.events.wire import WireEvent

RunStatus = Literal["success", "error", "running", "incomplete"]
"""``incomplete``: no step failed or runs, but a declared step never reported and the quiet window is over."""

StepStatus = Literal["success", "error", "running", "skipped", "missing"]
"""What a step's last attempt says; ``missing`` where a declared step has no attempt."""

MissingReason = Literal["never_instrumented", "upstream_error", "passed_over", "not_yet", "overdue"]
"""Why a declared step has no attempt: the first of these that fits.

``never_instrumented``: no run of this flow ever reported the step. ``upstream_error``: a step before it failed.
``passed_over``: a step after it reported. ``not_yet``: a step runs, or the quiet window is open. ``overdue``: none of these.
"""


class NodeRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A step of a flow; ``discovered`` where flows.json does not declare it."""

    step_key: str
    label: str
    discovered: bool


class EdgeRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """``target`` comes after ``source``; both are step keys."""

    source: str
    target: str


class FlowStats(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How a flow's runs went. The percentiles are of all runs that succeeded or failed, within 5 %."""

    runs: int = 0
    success: int = 0
    error: int = 0
    running: int = 0
    incomplete: int = 0
    last_run_at: str | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None


class FlowRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A flow with its steps in flow order, declared ones first; ``discovered`` where flows.json does not declare the flow."""

    slug: str
    name: str
    discovered: bool
    nodes: list[NodeRow]
    edges: list[EdgeRow]
    stats: FlowStats


class FlowList(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Declared flows in the order of flows.json, then discovered ones by slug."""

    flows: list[FlowRow]


class StepCounts(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How many steps of a run have which status."""

    success: int = 0
    error: int = 0
    running: int = 0
    skipped: int = 0
    missing: int = 0


class ErrorSummary(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The earliest failure of a run that no later attempt healed. ``message`` is shortened to 500 characters."""

    step_key: str
    name: str
    message: str


class RunRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A run within a list. ``ended_at`` and ``duration_ms`` are null while its status is ``running``."""

    flow_key: str
    run_id: str
    status: RunStatus
    stuck: bool
    started_at: str
    ended_at: str | None
    duration_ms: float | None
    steps: StepCounts
    first_error: ErrorSummary | None


class RunPage(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Runs, newest first. ``next_cursor`` gives the older ones; null at the end."""

    runs: list[RunRow]
    next_cursor: str | None


class AttemptRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One try of a step. ``attempt`` counts from 1 in the order of their starts."""

    attempt: int
    status: StepStatus
    started_at: str
    ended_at: str | None
    duration_ms: float | None
    error: StepError | None
    metadata: dict[str, Any]
    service: str | None
    trace_id: str | None
    span_id: str | None
    skip_reason: str | None


class StepRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A step within a run. ``started_at`` is its first attempt's, all else its last attempt's."""

    step_key: str
    label: str
    discovered: bool
    status: StepStatus
    missing_reason: MissingReason | None
    skip_reason: str | None
    stuck: bool
    started_at: str | None
    ended_at: str | None
    duration_ms: float | None
    error: StepError | None
    metadata: dict[str, Any]
    service: str | None
    trace_id: str | None
    span_id: str | None
    attempts: list[AttemptRow]


class RunDetail(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A run with all its steps in flow order. ``last_arrival_at``: when the server last heard of it, by its own clock."""

    flow_key: str
    flow_name: str
    run_id: str
    status: RunStatus
    stuck: bool
    started_at: str
    ended_at: str | None
    duration_ms: float | None
    last_arrival_at: str
    counts: StepCounts
    first_error: ErrorSummary | None
    steps: list[StepRow]


class EventList(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Every stored event of a run as it came by the wire, by time."""

    events: list[WireEvent]


class Change(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A run that has news. Ids grow. Without a flow and a run id, anything may have changed since: read all again."""

    id: int
    flow: str | None
    run_id: str | None


class ForwardState(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How events go on to another server, since the start.

    ``forwarded`` and ``rejected`` events were answered for by that server, ``held_back`` ones were left with their senders,
    who were told to send them again, ``waiting`` ones are on their way. ``failing_since`` is null while it takes events.
    """

    to: str
    forwarded: int = 0
    rejected: int = 0
    held_back: int = 0
    waiting: int = 0
    failing_since: str | None = None
    last_error: str | None = None
    last_error_at: str | None = None


class IntakeCounts(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What came in since the server's start.

    ``rejected`` items broke the contract, ``unmapped`` spans and records are no steps, ``incomplete`` ones carry only
    some of the three identifying attributes. ``forward`` is null where events do not go on to another server; where they go on
    and none are kept here, those that it took are the ``accepted`` ones.
    """

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    unmapped: int = 0
    incomplete: int = 0
    last_arrival_at: str | None = None
    forward: ForwardState | None = None
