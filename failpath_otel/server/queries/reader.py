"""The reads: what the API and the pages show, as frozen rows. Blocking, and safe to call from several threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, get_args

from msgspec.structs import replace
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from failpath_otel.flows import Flow, Flows
from failpath_otel.server.api.runs import EventList, FlowDetail, FlowList, RunDetail, RunFilterStatus, RunPage, RunRow
from failpath_otel.server.queries.bounded_scan import Hits, stuck_runs
from failpath_otel.server.queries.cursor import BadQuery, Cursor, decode_cursor, encode_cursor
from failpath_otel.server.queries.flow_detail import DEFAULT_WINDOW, MAX_WINDOW, flow_detail
from failpath_otel.server.queries.flow_list import flow_rows
from failpath_otel.server.queries.pages import RunFilter, find_runs, place_of
from failpath_otel.server.queries.run_detail import RunContext, fact_of_row, key_of_row, run_detail, time_or_none, wire_event
from failpath_otel.server.queries.run_list import Moment, run_row
from failpath_otel.server.queries.statistics import duration_histograms, step_keys
from failpath_otel.server.queries.text_search import PHASES, search_text
from failpath_otel.server.runs.derive import StoredState, declared_keys, derive
from failpath_otel.server.runs.fold import fold
from failpath_otel.server.store import tables
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.tables import Row

__all__ = ["BadQuery", "Queries"]

MAX_LIMIT: Final = 200
STATUSES: Final[tuple[str, ...]] = get_args(RunFilterStatus)
_HEALTHY_SECONDS: Final = 1.0


class Queries:
    """Reads of a store."""

    def __init__(
        self, store: Store, flows: Flows, clock: Callable[[], int] = time.time_ns, stuck_after_seconds: float = 60.0
    ) -> None:
        """``clock`` gives nanoseconds since the Unix epoch; ``stuck_after_seconds`` holds for steps with few samples."""
        self._store = store
        self._flows = flows
        self._clock = clock
        self._stuck_after_us = int(stuck_after_seconds * 1_000_000)
        self._healthy_until = 0.0

    def flows(self) -> FlowList:
        """Every declared and every discovered flow, with its steps and how its runs went."""
        with self._store.read() as connection:
            return FlowList(flows=flow_rows(connection, self._flows, self._moment()))

    def flow(self, slug: str, last: int = DEFAULT_WINDOW, cursor: str | None = None) -> FlowDetail | None:
        """One flow with the window of its newest runs; ``None`` where it is neither declared nor ever reported.

        Args:
            slug: The flow.
            last: How many runs the window holds at most, 1 to 1,000.
            cursor: ``window.next_cursor`` of an earlier answer, for the runs before that window.

        Raises:
            BadQuery: An argument that cannot be used.
        """
        if not 1 <= last <= MAX_WINDOW:
            raise BadQuery(f"last must be from 1 to {MAX_WINDOW}, got {last}")
        after = decode_cursor(cursor) if cursor else None
        declared = self._flows.get(slug)
        with self._store.read() as connection:
            flow_id = _flow_id(connection, slug)
            if flow_id is None and declared is None:
                return None
            return flow_detail(
                connection,
                declared or Flow(slug, slug),
                flow_id,
                declared=declared is not None,
                last=last,
                after=None if after is None else after.place,
                moment=self._moment(),
            )

    def runs(
        self,
        flow: str | None = None,
        status: str | None = None,
        q: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        since_us: int | None = None,
        until_us: int | None = None,
    ) -> RunPage:
        """Runs, newest first.

        Args:
            flow: Only of this flow.
            status: Only with this status: ``success``, ``error``, ``running`` or ``incomplete``; or ``stuck``: running, with a
                step that runs for too long, looked for in a bounded time as text is.
            q: Only those with this text in their run id, in a value of their metadata, or in the name or message of an error;
                letters A to Z in any case. Looked for in a bounded time, see `RunPage`.
            limit: At most so many, 1 to 200.
            cursor: ``next_cursor`` of the page before.
            since_us: Only those that began then or later, in microseconds since the Unix epoch.
            until_us: Only those that began before.

        Raises:
            BadQuery: An argument that cannot be used.
        """
        if status is not None and status not in STATUSES:
            raise BadQuery(f"status must be one of {', '.join(STATUSES)}, got {status[:100]!r}")
        if not 1 <= limit <= MAX_LIMIT:
            raise BadQuery(f"limit must be from 1 to {MAX_LIMIT}, got {limit}")
        after = decode_cursor(cursor, PHASES if q else "") if cursor else None
        moment = self._moment()
        with self._store.read() as connection:
            flow_id = None if flow is None else _flow_id(connection, flow)
            if flow is not None and flow_id is None:
                return RunPage(runs=[], next_cursor=None, searched_to=None)
            wanted = RunFilter(flow_id=flow_id, status=status, since_us=since_us, until_us=until_us)
            if q:
                hits = search_text(connection, q, wanted, limit, after, moment)
            elif status == "stuck":
                hits = stuck_runs(connection, wanted, limit, after, moment)
            else:
                hits = _newest(connection, wanted, limit, after, moment)
            slugs = _slugs(connection, {run.flow_id for run in hits.runs})
            moment.learn(connection, hits.runs)
        return RunPage(
            runs=[self._run_row(run, slugs[run.flow_id], moment) for run in hits.runs],
            next_cursor=None if hits.next is None else encode_cursor(hits.next),
            searched_to=time_or_none(hits.searched_to_us),
        )

    def run(self, flow: str, run_id: str) -> RunDetail | None:
        """One run with all its steps; ``None`` where no event of it ever came."""
        moment = self._moment()
        with self._store.read() as connection:
            found = _find_run(connection, flow, run_id)
            if found is None:
                return None
            keys = step_keys(connection, found.flow_id)
            stored = {key_of_row(row): row for row in tables.fetch(connection, _events_of(found.id))}
            by_id = duration_histograms(connection, found.flow_id)
            last_good = _last_good(connection, found)
        durations = {keys[step_id]: histogram for step_id, histogram in by_id.items() if step_id in keys}
        declared = self._flows.get(flow)
        state = derive(
            fold(fact_of_row(row, keys) for row in stored.values()),
            declared,
            now_us=moment.now_us,
            last_arrival_us=found.last_arrival_us,
            ever_reported=frozenset(keys.values()),
            durations=durations,
            stuck_after_us=self._stuck_after_us,
        )
        context = RunContext(
            flow=declared or Flow(flow, flow),
            durations=durations,
            stuck_after_us=self._stuck_after_us,
            last_good=last_good,
        )
        return run_detail(found, state, stored, context)

    def events(self, flow: str, run_id: str) -> EventList | None:
        """Every stored event of a run, by time; ``None`` where no event of it ever came."""
        with self._store.read() as connection:
            found = _find_run(connection, flow, run_id)
            if found is None:
                return None
            keys = step_keys(connection, found.flow_id)
            stored = list(tables.fetch(connection, _events_of(found.id)))
        stored.sort(key=lambda row: (row.time_us, row.status, row.event_id))
        return EventList(events=[wire_event(row, flow, run_id, keys[row.step_id]) for row in stored])

    def healthy(self) -> bool:
        """True when the database can store, as seen within the last second."""
        if time.monotonic() < self._healthy_until:
            return True
        try:
            self._store.probe()
        except (SQLAlchemyError, OSError):
            return False
        self._healthy_until = time.monotonic() + _HEALTHY_SECONDS
        return True

    def _moment(self) -> Moment:
        return Moment(self._clock() // 1000, self._stuck_after_us)

    def _run_row(self, run: Row, slug: str, moment: Moment) -> RunRow:
        return run_row(run, slug, declared_keys(self._flows.get(slug)), moment)


def _flow_id(connection: Connection, slug: str) -> int | None:
    return connection.execute(select(tables.flows.c.id).where(tables.flows.c.slug == slug)).scalar()


def _find_run(connection: Connection, flow: str, run_id: str) -> Row | None:
    runs = tables.runs
    joined = runs.join(tables.flows, tables.flows.c.id == runs.c.flow_id)
    query = select(runs).select_from(joined).where(tables.flows.c.slug == flow, runs.c.run_key == run_id)
    return connection.execute(query).first()


def _newest(connection: Connection, wanted: RunFilter, limit: int, after: Cursor | None, moment: Moment) -> Hits:
    found = find_runs(connection, replace(wanted, after=after and after.place), limit + 1, moment.now_us)
    return Hits(found[:limit], Cursor(place_of(found[limit - 1])) if len(found) > limit else None, None)


def _last_good(connection: Connection, run: Row) -> str | None:
    """The newest run of the same flow that began before this one and succeeded."""
    runs = tables.runs
    earlier = (runs.c.started_us < run.started_us) | (runs.c.id < run.id)
    query = select(runs.c.run_key).where(
        runs.c.flow_id == run.flow_id,
        runs.c.stands == StoredState.COMPLETE.value,
        runs.c.started_us <= run.started_us,
        earlier,
    )
    return connection.execute(query.order_by(runs.c.started_us.desc(), runs.c.id.desc()).limit(1)).scalar()


def _events_of(run_row_id: int) -> Any:
    return select(tables.events).where(tables.events.c.run_id == run_row_id)


def _slugs(connection: Connection, flow_ids: set[int]) -> dict[int, str]:
    flows = tables.flows
    query = select(flows.c.id, flows.c.slug).where(flows.c.id.in_(flow_ids))
    return {row.id: row.slug for row in connection.execute(query)}
