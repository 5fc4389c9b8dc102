"""The search behind lists of runs: filters, order and pages, each by an index."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, select, union_all

from failpath_otel.server.runs.derive import QUIET_US, StoredState
from failpath_otel.server.store import tables
from failpath_otel.server.store.tables import Row

Place = tuple[int, int]
"""Where a run stands in a list: its start (microseconds) and its row id. The newest is the greatest."""


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs.

    Attributes:
        status: One of the statuses of a run; for ``stuck``, which no column tells, all that may be it are found.
        since_us: Began then or later.
        until_us: Began before.
        after: The last run of the page before.
    """

    flow_id: int | None = None
    status: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    after: Place | None = None


def find_runs(connection: Connection, wanted: RunFilter, limit: int, now_us: int) -> list[Row]:
    """The rows of the newest ``limit`` runs that fit, newest first.

    Each state is asked for on its own, so that an index gives its newest in order. Only of these few, without their rows,
    the newest are chosen.
    """
    parts = [select(_part(wanted, *side, now_us).limit(limit).subquery()) for side in _sides(wanted.status)]
    newest: Any = (parts[0] if len(parts) == 1 else union_all(*parts)).subquery()
    chosen = select(newest.c.id).order_by(newest.c.started_us.desc(), newest.c.id.desc()).limit(limit).subquery()
    query = select(tables.runs).select_from(chosen.join(tables.runs, tables.runs.c.id == chosen.c.id))
    found = list(tables.fetch(connection, query))
    found.sort(key=place_of, reverse=True)
    return found


def place_of(run: Row) -> Place:
    """Where a run stands."""
    return run.started_us, run.id


def _part(wanted: RunFilter, state: StoredState, recent: bool | None, now_us: int) -> Any:
    runs = tables.runs
    part = select(runs.c.started_us, runs.c.id).where(tables.WAITS if recent else runs.c.stands == state.value)
    part = part.order_by(runs.c.started_us.desc(), runs.c.id.desc())
    if wanted.flow_id is not None:
        part = part.where((tables.ANY_FLOW if recent else runs.c.flow_id) == wanted.flow_id)
    if recent is not None:
        opened = now_us - QUIET_US
        part = part.where(runs.c.last_arrival_us >= opened if recent else runs.c.last_arrival_us < opened)
    if wanted.since_us is not None:
        part = part.where(runs.c.started_us >= wanted.since_us)
    if wanted.until_us is not None:
        part = part.where(runs.c.started_us < wanted.until_us)
    if wanted.after is not None:
        started_us, last_id = wanted.after
        part = part.where(runs.c.started_us <= started_us, (runs.c.started_us < started_us) | (runs.c.id < last_id))
    return part


def _sides(status: str | None) -> list[tuple[StoredState, bool | None]]:
    """The standings that a status is made of; the flag says on which side of the quiet window's edge."""
    if status == "error":
        return [(StoredState.ERROR, None)]
    if status == "success":
        return [(StoredState.COMPLETE, None)]
    if status == "stuck":
        return [(StoredState.RUNNING, None)]
    if status == "running":
        return [(StoredState.RUNNING, None), (StoredState.WAITING, True)]
    if status == "incomplete":
        return [(StoredState.WAITING, False)]
    return [(state, None) for state in StoredState]
