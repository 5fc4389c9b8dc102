"""Statistics of flows and steps, read from counts that the writer keeps, never from the runs themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, Table, func, select

from failpath_otel.events.wire import format_time
from failpath_otel.flows import Flow
from failpath_otel.server.api.runs import EdgeRow, FlowStats, NodeRow
from failpath_otel.server.runs.derive import QUIET_US, StoredState
from failpath_otel.server.runs.histogram import Histogram
from failpath_otel.server.store import tables

_IdCounts = dict[int, dict[int, int]]


def step_keys(connection: Connection, flow_id: int) -> dict[int, str]:
    """The steps that any run of a flow ever reported: id → key, in the order in which they were first seen."""
    steps = tables.steps
    query = select(steps.c.id, steps.c.step_key).where(steps.c.flow_id == flow_id).order_by(steps.c.id)
    return {row.id: row.step_key for row in connection.execute(query)}


def duration_histograms(connection: Connection, flow_id: int) -> dict[int, Histogram]:
    """Step id → how long its attempts took."""
    steps, durations = tables.steps, tables.step_durations
    joined = durations.join(steps, steps.c.id == durations.c.step_id)
    query = select(durations.c.step_id, durations.c.bucket, durations.c.n).select_from(joined).where(steps.c.flow_id == flow_id)
    counts: dict[int, list[tuple[int, int]]] = {}
    for step_id, bucket, n in connection.execute(query):
        counts.setdefault(step_id, []).append((bucket, n))
    return {step_id: Histogram(own) for step_id, own in counts.items()}


def node_rows(flow: Flow, seen: Sequence[str]) -> list[NodeRow]:
    """A flow's steps: the declared ones in flow order, then what else was ever seen of it."""
    labels = {node.step_key: node.label for node in flow.nodes}
    known = frozenset(seen)
    nodes = [NodeRow(step_key=key, label=labels[key], discovered=False, reported=key in known) for key in flow.ordered_keys]
    nodes.extend(NodeRow(step_key=key, label=key, discovered=True, reported=True) for key in seen if key not in flow.step_keys)
    return nodes


def edge_rows(flow: Flow) -> list[EdgeRow]:
    """The edges that a flow declares."""
    return [EdgeRow(source=edge.source, target=edge.target) for edge in flow.edges]


def millis(durations: Histogram, share: float) -> float | None:
    """A percentile in milliseconds; ``None`` where there is no duration."""
    return round(durations.percentile(share) / 1000, 3) if durations.total else None


def flow_stats(connection: Connection, flow_id: int, now_us: int) -> FlowStats:
    """How the runs of one flow went."""
    newest_us = _newest(connection, flow_id)
    return all_stats(connection, {flow_id: newest_us}, now_us)[flow_id]


def all_stats(connection: Connection, newest_us: Mapping[int, int | None], now_us: int) -> Mapping[int, FlowStats]:
    """How the runs of some flows went; the flows are given with the start of their newest run."""
    counts = _counts(connection, tables.run_counts, "stands", newest_us)
    durations = _counts(connection, tables.run_durations, "bucket", newest_us)
    runs = tables.runs
    awaited = select(tables.ANY_FLOW, func.count()).where(tables.WAITS, runs.c.last_arrival_us >= now_us - QUIET_US)
    awaited = awaited.group_by(tables.ANY_FLOW)
    open_ = {row[0]: row[1] for row in connection.execute(awaited)}
    stats: dict[int, FlowStats] = {}
    for flow_id, last in newest_us.items():
        own = counts.get(flow_id, {})
        histogram = Histogram(durations.get(flow_id, {}).items())
        waiting = min(open_.get(flow_id, 0), own.get(StoredState.WAITING, 0))
        stats[flow_id] = FlowStats(
            runs=sum(own.values()),
            success=own.get(StoredState.COMPLETE, 0),
            error=own.get(StoredState.ERROR, 0),
            running=own.get(StoredState.RUNNING, 0) + waiting,
            incomplete=own.get(StoredState.WAITING, 0) - waiting,
            last_run_at=None if last is None else format_time(last * 1000),
            p50_ms=millis(histogram, 0.5),
            p95_ms=millis(histogram, 0.95),
        )
    return stats


def _newest(connection: Connection, flow_id: int) -> int | None:
    runs = tables.runs
    newest: list[int] = []
    for state in StoredState:
        query = select(func.max(runs.c.started_us)).where(runs.c.flow_id == flow_id, runs.c.stands == int(state))
        found = connection.execute(query).scalar()
        if found is not None:
            newest.append(found)
    return max(newest, default=None)


def _counts(connection: Connection, table: Table, what: str, flow_ids: Collection[int]) -> _IdCounts:
    query = select(table.c.flow_id, table.c[what], table.c.n)
    if len(flow_ids) == 1:
        query = query.where(table.c.flow_id.in_(flow_ids))
    counts: _IdCounts = {}
    for row in connection.execute(query):
        counts.setdefault(row[0], {})[row[1]] = row[2]
    return counts
