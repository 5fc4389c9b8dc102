"""All flows in one list: their steps, how their runs went, and what the newest of these tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, select

from failpath_otel.flows import Flow, Flows
from failpath_otel.server.api.runs import FlowRow, FlowStats, NodeRow, WorstStep
from failpath_otel.server.queries.pages import RunFilter, find_runs
from failpath_otel.server.queries.run_list import Moment, run_mark
from failpath_otel.server.queries.statistics import all_stats, edge_rows, node_rows
from failpath_otel.server.store import tables
from failpath_otel.server.store.tables import Row

RECENT: Final = 30
"""Runs in a flow's strip."""
LOOKED_AT: Final = 100
"""Runs among which the step is sought at which most fail."""


def flow_rows(connection: Connection, declared: Flows, moment: Moment) -> list[FlowRow]:
    """Declared flows in the order of flows.json, then discovered ones by slug."""
    ids = {row.slug: row.id for row in connection.execute(select(tables.flows.c.id, tables.flows.c.slug))}
    seen: dict[int, list[str]] = {}
    for row in connection.execute(select(tables.steps.c.flow_id, tables.steps.c.step_key).order_by(tables.steps.c.id)):
        seen.setdefault(row.flow_id, []).append(row.step_key)
    newest = _newest_runs(connection, list(ids.values()), moment)
    newest_us = {flow_id: runs[0].started_us if runs else None for flow_id, runs in newest.items()}
    stats = all_stats(connection, newest_us, moment.now_us)
    known = [(slug, flow) for slug, flow in declared.by_slug.items()]
    known.extend((slug, Flow(slug, slug)) for slug in sorted(ids.keys() - declared.by_slug.keys()))
    rows: list[FlowRow] = []
    for slug, flow in known:
        flow_id = ids.get(slug, 0)
        nodes = node_rows(flow, seen.get(flow_id, []))
        runs = newest.get(flow_id, [])
        rows.append(
            FlowRow(
                slug=slug,
                name=flow.name,
                discovered=slug not in declared.by_slug,
                nodes=nodes,
                edges=edge_rows(flow),
                stats=stats.get(flow_id, FlowStats()),
                recent=[run_mark(run, moment) for run in runs[:RECENT]],
                worst_step=_worst_step(nodes, runs),
                never_reported=[node.step_key for node in nodes if not node.reported],
            )
        )
    return rows


def _newest_runs(connection: Connection, flow_ids: Sequence[int], moment: Moment) -> Mapping[int, list[Row]]:
    newest = {flow_id: find_runs(connection, RunFilter(flow_id=flow_id), LOOKED_AT, moment.now_us) for flow_id in flow_ids}
    moment.learn(connection, (run for own in newest.values() for run in own))
    return newest


def _worst_step(nodes: Sequence[NodeRow], runs: Sequence[Row]) -> WorstStep | None:
    failures = Counter(run.error_step for run in runs if run.error_step is not None)
    # Of equals the earlier step, which the others may depend on.
    worst = max(nodes, key=lambda node: failures[node.step_key], default=None)
    if worst is None or not failures[worst.step_key]:
        return None
    return WorstStep(step_key=worst.step_key, label=worst.label, failed=failures[worst.step_key], of=len(runs))
