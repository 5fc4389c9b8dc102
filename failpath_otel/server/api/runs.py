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

RunFilterStatus = Literal["success", "error", "running", "stuck", "incomplete"]
"""What lists of runs can be asked for; ``stuck``: those that are running, with a step that runs for too long."""

StepStatus = Literal["success", "error", "running", "skipped", "missing"]
"""What a step's last attempt says; ``missing`` where a declared step has no attempt."""

MissingReason = Literal["never_instrumented", "upstream_error", "passed_over", "not_yet", "overdue"]
"""Why a declared step has no attempt: the first of these that fits.

``never_instrumented``: no run of this flow ever reported the step. ``upstream_error``: a step before it failed.
``passed_over``: a step after it reported. ``not_yet``: a step runs, or the quiet window is open. ``overdue``: none of these.
"""


CellStatus = Literal["success", "error", "running", "stuck", "skipped", "missing"]
"""A step's status within a grid, where a running step that takes too long has a status of its own."""


class NodeRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A step of a flow; ``discovered`` where flows.json does not declare it, ``reported`` where any run ever reported it."""

    step_key: str
    label: str
    discovered: bool
    reported: bool


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


class RunMark(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A run as a mark within a strip. ``duration_ms`` is null while its status is ``running``."""

    run_id: str
    status: RunStatus
    stuck: bool
    started_at: str
    duration_ms: float | None


class WorstStep(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The step at which most runs failed first: ``failed`` of the newest ``of`` runs."""

    step_key: str
    label: str
    failed: int
    of: int


class FlowRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A flow with its steps in flow order, declared ones first; ``discovered`` where flows.json does not declare the flow.

    ``recent`` are its newest runs, at most 30, newest first. ``worst_step`` is null where none of the newest 100 runs failed.
    ``never_reported`` are the declared steps that no run ever reported.
    """

    slug: str
    name: str
    discovered: bool
    nodes: list[NodeRow]
    edges: list[EdgeRow]
    stats: FlowStats
    recent: list[RunMark]
    worst_step: WorstStep | None
    never_reported: list[str]


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


class StuckStep(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The step of a run that has been stuck for longest, and when its last attempt began."""

    step_key: str
    started_at: str


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
    stuck_step: StuckStep | None


class RunPage(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Runs, newest first. ``next_cursor`` gives the older ones; null at the end.

    A search for text, or for what is stuck, takes a bounded time and may end before anything, or all, is found. Then
    ``searched_to`` is the start of the last run that was looked at, and ``next_cursor`` goes on from there; it is null where
    there is nothing left to look at.
    Runs whose id equals or begins with the text come first, whenever they began.
    """

    runs: list[RunRow]
    next_cursor: str | None
    searched_to: str | None


class FlowNode(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A step of a flow, and how it went within a window of runs.

    ``counts``: the runs of the window by the step's status; ``stuck`` of those that are running take too long.
    ``failed_first``: in how many of them it is the first step that failed. The percentiles are of all kept attempts, within
    5 %.
    """

    step_key: str
    label: str
    discovered: bool
    reported: bool
    counts: StepCounts
    stuck: int
    failed_first: int
    p50_ms: float | None
    p95_ms: float | None


class Window(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Which runs a view is of: ``runs`` of the ``asked`` ones are there, from the start of the newest to that of the oldest.

    ``next_cursor`` gives the runs before them; null where there are none.
    """

    asked: int
    runs: int
    newest_at: str | None
    oldest_at: str | None
    next_cursor: str | None


class GridRun(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A run of a window; ``cells`` has its steps in the order of the flow's nodes."""

    run_id: str
    status: RunStatus
    stuck: bool
    started_at: str
    ended_at: str | None
    duration_ms: float | None
    cells: list[CellStatus]
    first_error: ErrorSummary | None


class ErrorGroup(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Failures of one step that are alike: same error name, and the same message but for numbers, ids and quoted text.

    ``message`` is the newest one, shortened to 500 characters. ``count`` is of the failures that are kept.
    """

    fingerprint: str
    step_key: str
    label: str
    name: str
    message: str
    count: int
    first_seen_at: str
    last_seen_at: str
    last_run_id: str


class FlowDetail(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A flow, how a window of its runs went step by step, and its failures by kind.

    ``runs`` are newest first. ``errors`` are the groups that were seen last, at most 50; ``other_errors`` counts the
    failures in all others.
    """

    slug: str
    name: str
    discovered: bool
    stats: FlowStats
    nodes: list[FlowNode]
    edges: list[EdgeRow]
    window: Window
    runs: list[GridRun]
    errors: list[ErrorGroup]
    other_errors: int


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
    """A step within a run. ``started_at`` is its first attempt's, all else its last attempt's.

    The percentiles are of all kept attempts of this step in any run, within 5 %. It counts as stuck when it runs for longer
    than ``stuck_after_ms``, which is ``stuck_learned`` where enough attempts tell how long it takes, and else the default.
    """

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
    p50_ms: float | None
    p95_ms: float | None
    stuck_after_ms: float
    stuck_learned: bool


class RunDetail(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A run with all its steps in flow order. ``last_arrival_at``: when the server last heard of it, by its own clock.

    ``last_good`` is the id of the newest run of this flow that began before it and succeeded.
    """

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
    edges: list[EdgeRow]
    last_good: str | None


class EventList(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Every stored event of a run as it came by the wire, by time."""

    events: list[WireEvent]


class Change(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A run that has news. Ids grow. Without a flow and a run id, anything may have changed since: read all again."""

    id: int
    flow: str | None
    run_id: str | None
