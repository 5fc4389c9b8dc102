"""Statistics of flows and steps, read from counts that the writer keeps, never from the runs themselves."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Table, func, select

from failpath_otel.events.wire import format_time
from failpath_otel.flows import Flow, Flows
from failpath_otel.server import rows, tables
from failpath_otel.server.derive import QUIET_US, Standing
from failpath_otel.server.histogram import Histogram

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


def flow_rows(connection: Connection, declared: Flows, now_us: int) -> list[rows.FlowRow]:
    """Declared flows in the order of flows.json, then discovered ones by slug."""
    ids = {row.slug: row.id for row in connection.execute(select(tables.flows.c.id, tables.flows.c.slug))}
    seen: dict[int, list[str]] = {}
    for row in connection.execute(select(tables.steps.c.flow_id, tables.steps.c.step_key).order_by(tables.steps.c.id)):
        seen.setdefault(row.flow_id, []).append(row.step_key)
    stats = _stats(connection, list(ids.values()), now_us)
    known = [(flow.slug, flow) for flow in declared]
    known.extend((slug, Flow(slug, slug)) for slug in sorted(ids.keys() - declared.by_slug.keys()))
    return [
        rows.FlowRow(
            slug=slug,
            name=flow.name,
            discovered=slug not in declared.by_slug,
            nodes=_nodes(flow, seen.get(ids.get(slug, 0), [])),
            edges=[rows.EdgeRow(source=edge.source, target=edge.target) for edge in flow.edges],
            stats=stats.get(ids.get(slug, 0), rows.FlowStats()),
        )
        for slug, flow in known
    ]


def _nodes(flow: Flow, seen: list[str]) -> list[rows.NodeRow]:
    labels = {node.step_key: node.label for node in flow.nodes}
    nodes = [rows.NodeRow(step_key=key, label=labels[key], discovered=False) for key in flow.ordered_keys]
    nodes.extend(rows.NodeRow(step_key=key, label=key, discovered=True) for key in seen if key not in flow.step_keys)
    return nodes


def _stats(connection: Connection, flow_ids: list[int], now_us: int) -> Mapping[int, rows.FlowStats]:
    counts = _counts(connection, tables.run_counts, "stands")
    durations = _counts(connection, tables.run_durations, "bucket")
    runs = tables.runs
    awaited = select(tables.ANY_FLOW, func.count()).where(tables.WAITS, runs.c.last_arrival_us >= now_us - QUIET_US)
    awaited = awaited.group_by(tables.ANY_FLOW)
    open_ = {row[0]: row[1] for row in connection.execute(awaited)}
    stats: dict[int, rows.FlowStats] = {}
    for flow_id in flow_ids:
        own = counts.get(flow_id, {})
        histogram = Histogram(durations.get(flow_id, {}).items())
        waiting = min(open_.get(flow_id, 0), own.get(Standing.WAITING, 0))
        last = _newest(connection, flow_id)
        stats[flow_id] = rows.FlowStats(
            runs=sum(own.values()),
            success=own.get(Standing.COMPLETE, 0),
            error=own.get(Standing.ERROR, 0),
            running=own.get(Standing.RUNNING, 0) + waiting,
            incomplete=own.get(Standing.WAITING, 0) - waiting,
            last_run_at=None if last is None else format_time(last * 1000),
            p50_ms=_millis(histogram, 0.5),
            p95_ms=_millis(histogram, 0.95),
        )
    return stats


def _newest(connection: Connection, flow_id: int) -> int | None:
    runs = tables.runs
    newest: list[int] = []
    for stands in Standing:
        query = select(func.max(runs.c.started_us)).where(runs.c.flow_id == flow_id, runs.c.stands == int(stands))
        found = connection.execute(query).scalar()
        if found is not None:
            newest.append(found)
    return max(newest, default=None)


def _counts(connection: Connection, table: Table, what: str) -> _IdCounts:
    counts: _IdCounts = {}
    for row in connection.execute(select(table.c.flow_id, table.c[what], table.c.n)):
        counts.setdefault(row[0], {})[row[1]] = row[2]
    return counts


def _millis(histogram: Histogram, share: float) -> float | None:
    return round(histogram.percentile(share) / 1000, 3) if histogram.total else None
