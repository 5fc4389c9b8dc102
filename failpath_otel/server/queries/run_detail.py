"""Stored rows → the rows of one run: its steps, their attempts, its events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from failpath_otel.events.step import StepError
from failpath_otel.events.wire import WireError, WireEvent, format_time
from failpath_otel.flows import Flow
from failpath_otel.server.api.runs import AttemptRow, ErrorSummary, RunDetail, StepCounts, StepRow
from failpath_otel.server.queries.statistics import edge_rows, millis
from failpath_otel.server.runs.derive import STUCK_SAMPLES, RunState, StepState, stuck_limit_us
from failpath_otel.server.runs.fold import (
    ERROR,
    ORDER,
    RUNNING,
    SKIPPED,
    SUMMARY_CHARS,
    EventKey,
    Fact,
    FoldedAttempt,
    start_key,
)
from failpath_otel.server.runs.histogram import Histogram
from failpath_otel.server.store.tables import Row

Stored = Mapping[EventKey, Row]
"""Key of an event → row of the table of events."""

_decode_metadata: Final = msgspec.json.Decoder(dict[str, Any]).decode


def time_or_none(time_us: int | None) -> str | None:
    """Microseconds since the Unix epoch as the API writes them."""
    return None if time_us is None else format_time(time_us * 1000)


def first_error(row: Row) -> ErrorSummary | None:
    """The error that a row of the table of runs names."""
    if row.error_step is None:
        return None
    return ErrorSummary(step_key=row.error_step, name=row.error_name or "Error", message=row.error_message or "")


def fact_of_row(row: Row, keys: Mapping[int, str]) -> Fact:
    """The facts of a stored event; ``keys`` are step keys by id."""
    message = None if row.error_message is None else row.error_message[:SUMMARY_CHARS]
    return Fact(row.event_id, keys[row.step_id], row.status, row.time_us, row.started_us, row.span_id, row.error_name, message)


def key_of_row(row: Row) -> EventKey:
    """By which a stored event is known within its run."""
    return row.event_id, start_key(row.status, row.time_us, row.started_us)


def wire_event(row: Row, flow: str, run_id: str, step_key: str) -> WireEvent:
    """A stored event as it stands on the wire."""
    outcome = row.status != RUNNING and row.started_us is not None
    error = _error(row)
    return WireEvent(
        event_id=row.event_id,
        flow_key=flow,
        run_id=run_id,
        step_key=step_key,
        status=ORDER[row.status],
        timestamp=format_time(row.time_us * 1000),
        started_at=time_or_none(row.started_us),
        duration_ms=max(0, row.time_us - row.started_us) / 1000 if outcome else None,
        metadata=_metadata(row),
        error=None if error is None else WireError(error.name, error.message, error.stack),
        trace_id=row.trace_id,
        span_id=row.span_id,
        service=row.service,
        skip_reason=row.skip_reason,
    )


class RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer says of a run beside what its own events say.

    Attributes:
        flow: The flow's declaration, or one without steps.
        durations: Step key → how long its attempts took, in any run.
        stuck_after_us: After which a step with too few durations counts as stuck.
        last_good: The id of the newest run before it that succeeded.
    """

    flow: Flow
    durations: Mapping[str, Histogram]
    stuck_after_us: int
    last_good: str | None


def run_detail(found: Row, state: RunState, stored: Stored, context: RunContext) -> RunDetail:
    """All that the API tells of a run; ``found`` is its row."""
    labels = {node.step_key: node.label for node in context.flow.nodes}
    steps = [_step_row(step, labels.get(step.step_key, step.step_key), stored, context) for step in state.steps]
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.status] = counts.get(step.status, 0) + 1
    ended_us = None if state.status == "running" else found.ended_us
    return RunDetail(
        flow_key=context.flow.slug,
        flow_name=context.flow.name,
        run_id=found.run_key,
        status=state.status,
        stuck=state.stuck,
        started_at=format_time(found.started_us * 1000),
        ended_at=time_or_none(ended_us),
        duration_ms=None if ended_us is None else (ended_us - found.started_us) / 1000,
        last_arrival_at=format_time(found.last_arrival_us * 1000),
        counts=StepCounts(**counts),
        first_error=first_error(found),
        steps=steps,
        edges=edge_rows(context.flow),
        last_good=context.last_good,
    )


def _step_row(step: StepState, label: str, stored: Stored, context: RunContext) -> StepRow:
    durations = context.durations.get(step.step_key, Histogram(()))
    attempts = [_attempt_row(number, attempt, stored) for number, attempt in enumerate(step.attempts, 1)]
    last = attempts[-1] if attempts else None
    return StepRow(
        step_key=step.step_key,
        label=label,
        discovered=not step.declared,
        status=step.status,
        missing_reason=step.missing_reason,
        skip_reason=last.skip_reason if last else None,
        stuck=step.stuck,
        started_at=attempts[0].started_at if attempts else None,
        ended_at=last.ended_at if last else None,
        duration_ms=last.duration_ms if last else None,
        error=last.error if last else None,
        metadata=last.metadata if last else {},
        service=last.service if last else None,
        trace_id=last.trace_id if last else None,
        span_id=last.span_id if last else None,
        attempts=attempts,
        p50_ms=millis(durations, 0.5),
        p95_ms=millis(durations, 0.95),
        stuck_after_ms=stuck_limit_us(durations, context.stuck_after_us) / 1000,
        stuck_learned=durations.total >= STUCK_SAMPLES,
    )


def _attempt_row(number: int, attempt: FoldedAttempt, stored: Stored) -> AttemptRow:
    decided = stored[attempt.decided_by.key]
    # The deciding event last: what it says counts, and what only an earlier one says is taken from there.
    rows = [stored[key] for key in attempt.event_keys if key != attempt.decided_by.key]
    rows.append(decided)
    metadata: dict[str, Any] = {}
    for row in rows:
        metadata.update(_metadata(row))
    return AttemptRow(
        attempt=number,
        status=ORDER[attempt.status],
        started_at=format_time(attempt.start_us * 1000),
        ended_at=time_or_none(attempt.end_us),
        duration_ms=None if attempt.duration_us is None else attempt.duration_us / 1000,
        error=_error(decided) if attempt.status == ERROR else None,
        metadata=metadata,
        service=_last(row.service for row in rows),
        trace_id=_last(row.trace_id for row in rows),
        span_id=_last(row.span_id for row in rows),
        skip_reason=decided.skip_reason if attempt.status == SKIPPED else None,
    )


def _last(values: Iterable[str | None]) -> str | None:
    found = [value for value in values if value is not None]
    return found[-1] if found else None


def _error(row: Row) -> StepError | None:
    if row.error_name is None:
        return None
    return StepError(name=row.error_name, message=row.error_message or "", stack=row.error_stack)


def _metadata(row: Row) -> dict[str, Any]:
    return {} if row.metadata is None else _decode_metadata(row.metadata)
