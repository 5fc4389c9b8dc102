"""A flow in one view: how a window of its runs went, step by step, read from their rows alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from failpath_otel.flows import Flow
from failpath_otel.server.api.runs import (
    CellStatus,
    ErrorGroup,
    FlowDetail,
    FlowNode,
    FlowStats,
    GridRun,
    NodeRow,
    StepCounts,
    Window,
)
from failpath_otel.server.queries.cursor import Cursor, encode_cursor
from failpath_otel.server.queries.error_groups import error_groups
from failpath_otel.server.queries.pages import Place, RunFilter, find_runs, place_of
from failpath_otel.server.queries.run_list import Grid, Moment
from failpath_otel.server.queries.statistics import duration_histograms, edge_rows, flow_stats, millis, node_rows, step_keys
from failpath_otel.server.runs.histogram import Histogram
from failpath_otel.server.store.tables import Row

DEFAULT_WINDOW: Final = 100
MAX_WINDOW: Final = 1_000


def flow_detail(
    connection: Connection, flow: Flow, flow_id: int | None, *, declared: bool, last: int, after: Place | None, moment: Moment
) -> FlowDetail:
    """A flow with the window of its ``last`` runs after a place.

    Args:
        connection: To read by.
        flow: Its declaration, or one without steps.
        flow_id: ``None`` where no event of it ever came.
        declared: Whether flows.json declares it.
        last: How many runs the window holds at most.
        after: The last run of the window before.
        moment: When.
    """
    seen = {} if flow_id is None else step_keys(connection, flow_id)
    nodes = node_rows(flow, list(seen.values()))
    keys = [node.step_key for node in nodes]
    found: list[Row] = []
    if flow_id is not None:
        found = find_runs(connection, RunFilter(flow_id=flow_id, after=after), last + 1, moment.now_us)
    stored = found[:last]
    moment.learn(connection, stored)
    grid = Grid(keys, moment)
    runs = [grid.run(run) for run in stored]
    durations = {} if flow_id is None else duration_histograms(connection, flow_id)
    errors: list[ErrorGroup] = []
    other_errors = 0
    if flow_id is not None:
        errors, other_errors = error_groups(connection, flow_id, seen, {node.step_key: node.label for node in nodes})
    return FlowDetail(
        slug=flow.slug,
        name=flow.name,
        discovered=not declared,
        stats=FlowStats() if flow_id is None else flow_stats(connection, flow_id, moment.now_us),
        nodes=_flow_nodes(nodes, runs, {key: durations[step_id] for step_id, key in seen.items() if step_id in durations}),
        edges=edge_rows(flow),
        window=Window(
            asked=last,
            runs=len(runs),
            newest_at=runs[0].started_at if runs else None,
            oldest_at=runs[-1].started_at if runs else None,
            next_cursor=encode_cursor(Cursor(place_of(stored[-1]))) if len(found) > last else None,
        ),
        runs=runs,
        errors=errors,
        other_errors=other_errors,
    )


def _flow_nodes(nodes: Sequence[NodeRow], runs: Sequence[GridRun], durations: dict[str, Histogram]) -> list[FlowNode]:
    failed_first = Counter(run.first_error.step_key for run in runs if run.first_error is not None)
    # Runs that went alike are counted together.
    alike = Counter(tuple(run.cells) for run in runs)
    rows: list[FlowNode] = []
    for column, node in enumerate(nodes):
        cells: Counter[CellStatus] = Counter()
        for row, n in alike.items():
            cells[row[column]] += n
        histogram = durations.get(node.step_key, Histogram(()))
        rows.append(
            FlowNode(
                step_key=node.step_key,
                label=node.label,
                discovered=node.discovered,
                reported=node.reported,
                counts=StepCounts(
                    success=cells["success"],
                    error=cells["error"],
                    running=cells["running"] + cells["stuck"],
                    skipped=cells["skipped"],
                    missing=cells["missing"],
                ),
                stuck=cells["stuck"],
                failed_first=failed_first[node.step_key],
                p50_ms=millis(histogram, 0.5),
                p95_ms=millis(histogram, 0.95),
            )
        )
    return rows
