"""What the store tells of what came in: names that no flow declares, and what is kept."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, func, select

from failpath_otel.events.wire import format_time
from failpath_otel.flows import Flows
from failpath_otel.nearest import nearest
from failpath_otel.server.api.intake import RetentionRow, Unknown
from failpath_otel.server.runs.derive import StoredState
from failpath_otel.server.store import tables
from failpath_otel.server.store.retention import Retention

MAX_UNKNOWN: Final = 50


def unknown_names(connection: Connection, declared: Flows) -> list[Unknown]:
    """Flows that came while others are declared, and steps that their declared flow does not know; the newest first."""
    if not declared:
        return []
    flows, steps = tables.flows, tables.steps
    joined = steps.join(flows, flows.c.id == steps.c.flow_id)
    query = select(flows.c.slug, steps.c.step_key).select_from(joined).order_by(steps.c.id.desc())
    found: dict[tuple[str, str | None], Unknown] = {}
    for slug, step_key in connection.execute(query):
        flow = declared.get(slug)
        if flow is None:
            found.setdefault((slug, None), Unknown(flow=slug, step_key=None, nearest=nearest(slug, list(declared.by_slug))))
        elif step_key not in flow.step_keys:
            suggestion = nearest(step_key, flow.ordered_keys)
            found[slug, step_key] = Unknown(flow=slug, step_key=step_key, nearest=suggestion)
        if len(found) == MAX_UNKNOWN:
            break
    return list(found.values())


def retention_row(connection: Connection, retention: Retention, size_bytes: int, deleted_runs: int) -> RetentionRow:
    """What is kept; ``deleted_runs`` since the server's start."""
    runs = tables.runs
    oldest: list[int] = []
    for state in StoredState:
        first = connection.execute(select(func.min(runs.c.started_us)).where(runs.c.stands == int(state))).scalar()
        if first is not None:
            oldest.append(first)
    return RetentionRow(
        retain_seconds=retention.max_age_seconds,
        max_size_bytes=retention.max_bytes,
        size_bytes=size_bytes,
        runs=int(connection.execute(select(func.sum(tables.run_counts.c.n))).scalar() or 0),
        oldest_run_at=format_time(min(oldest) * 1000) if oldest else None,
        deleted_runs=deleted_runs,
    )
