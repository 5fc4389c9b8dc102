"""The search behind lists of runs: filters, order and pages, each by an index."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, select, union_all

from failpath_otel.server import tables
from failpath_otel.server.derive import QUIET_US, Standing
from failpath_otel.server.tables import Found

FEW: Final = 500
"""Up to so many runs that fit a text are looked up by id; of more, the newest are found soon by going through all."""


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs.

    Attributes:
        status: One of the statuses of a run.
        q: Part of the run id; letters A to Z in any case.
        after: Start (microseconds) and row id of the last run of the page before.
    """

    flow_id: int | None = None
    status: str | None = None
    q: str | None = None
    after: tuple[int, int] | None = None


def find_runs(connection: Connection, wanted: RunFilter, limit: int, now_us: int) -> list[Found]:
    """The newest ``limit`` runs that fit.

    Each standing is asked for on its own, so that an index gives its newest in order and only these few are sorted.
    """
    ids = _ids_that_contain(connection, wanted) if wanted.q else None
    if ids is not None and not ids:
        return []
    parts = [select(_part(connection, wanted, ids, *side, now_us).limit(limit).subquery()) for side in _sides(wanted.status)]
    query: Any = parts[0] if len(parts) == 1 else union_all(*parts)
    found = list(tables.fetch(connection, query))
    found.sort(key=lambda row: (row.started_us, row.id), reverse=True)
    return found[:limit]


def _part(
    connection: Connection, wanted: RunFilter, ids: list[int] | None, stands: Standing, recent: bool | None, now_us: int
) -> Any:
    runs = tables.runs
    part = select(runs).where(tables.WAITS if recent else runs.c.stands == stands.value)
    part = part.order_by(runs.c.started_us.desc(), runs.c.id.desc())
    if wanted.flow_id is not None:
        part = part.where((tables.ANY_FLOW if recent else runs.c.flow_id) == wanted.flow_id)
    if recent is not None:
        opened = now_us - QUIET_US
        part = part.where(runs.c.last_arrival_us >= opened if recent else runs.c.last_arrival_us < opened)
    if wanted.after is not None:
        started_us, last_id = wanted.after
        part = part.where(runs.c.started_us <= started_us, (runs.c.started_us < started_us) | (runs.c.id < last_id))
    if ids is not None:
        return part.where(runs.c.id.in_(ids))
    if wanted.q:
        return part.where(_contains(connection, wanted.q))
    return part


def _ids_that_contain(connection: Connection, wanted: RunFilter) -> list[int] | None:
    """The runs whose id contains the text, read from the index of run ids alone; ``None`` where they are many."""
    runs = tables.runs
    query = select(runs.c.id).where(_contains(connection, wanted.q or ""))
    if wanted.flow_id is not None:
        query = query.where(runs.c.flow_id == wanted.flow_id)
    found = list(connection.execute(query.limit(FEW + 1)).scalars())
    return found if len(found) <= FEW else None


def _contains(connection: Connection, text: str) -> ColumnElement[bool]:
    column = tables.runs.c.run_key
    # SQLite's LIKE takes A to Z in any case by itself.
    contains = column.contains if connection.dialect.name == "sqlite" else column.icontains
    return contains(text, autoescape=True)


def _sides(status: str | None) -> list[tuple[Standing, bool | None]]:
    """The standings that a status is made of; the flag says on which side of the quiet window's edge."""
    if status == "error":
        return [(Standing.ERROR, None)]
    if status == "success":
        return [(Standing.COMPLETE, None)]
    if status == "running":
        return [(Standing.RUNNING, None), (Standing.WAITING, True)]
    if status == "incomplete":
        return [(Standing.WAITING, False)]
    return [(stands, None) for stands in Standing]
