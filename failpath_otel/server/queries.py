"""The reads: what the API and the pages show, as frozen rows. Blocking, and safe to call from several threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from failpath_otel.events.wire import format_time
from failpath_otel.flows import Flows
from failpath_otel.server import rows, tables
from failpath_otel.server.cursor import BadQuery, decode_cursor, encode_cursor
from failpath_otel.server.derive import Standing, declared_keys, derive, run_status, stuck_limit_us
from failpath_otel.server.detail import fact_of_row, first_error, run_detail, time_or_none, wire_event
from failpath_otel.server.fold import ORDER, fold
from failpath_otel.server.search import RunFilter, find_runs
from failpath_otel.server.statistics import duration_histograms, flow_rows, step_keys
from failpath_otel.server.store import Store
from failpath_otel.server.tables import Found

__all__ = ["BadQuery", "Queries"]

MAX_LIMIT: Final = 200
STATUSES: Final = ("success", "error", "running", "incomplete")
_HEALTHY_SECONDS: Final = 1.0

_decode_counts: Final = msgspec.json.Decoder(dict[str, int]).decode


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

    def flows(self) -> rows.FlowList:
        """Every declared and every discovered flow, with its steps and how its runs went."""
        with self._store.read() as connection:
            return rows.FlowList(flows=flow_rows(connection, self._flows, self._now_us()))

    def runs(
        self,
        flow: str | None = None,
        status: str | None = None,
        q: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> rows.RunPage:
        """Runs, newest first.

        Args:
            flow: Only of this flow.
            status: Only with this status: ``success``, ``error``, ``running`` or ``incomplete``.
            q: Only those whose run id contains this text; letters A to Z in any case.
            limit: At most so many, 1 to 200.
            cursor: ``next_cursor`` of the page before.

        Raises:
            BadQuery: An argument that cannot be used.
        """
        if status is not None and status not in STATUSES:
            raise BadQuery(f"status must be one of {', '.join(STATUSES)}, got {status[:100]!r}")
        if not 1 <= limit <= MAX_LIMIT:
            raise BadQuery(f"limit must be from 1 to {MAX_LIMIT}, got {limit}")
        after = decode_cursor(cursor) if cursor else None
        now_us = self._now_us()
        with self._store.read() as connection:
            flow_id = None
            if flow is not None:
                flow_id = connection.execute(select(tables.flows.c.id).where(tables.flows.c.slug == flow)).scalar()
                if flow_id is None:
                    return rows.RunPage(runs=[], next_cursor=None)
            wanted = RunFilter(flow_id=flow_id, status=status, q=q, after=after)
            found = find_runs(connection, wanted, limit + 1, now_us)
            shown = found[:limit]
            slugs = _slugs(connection, {row.flow_id for row in shown})
            limits = self._stuck_limits(connection, [row for row in shown if row.running_since is not None])
        page = [self._run_row(row, slugs[row.flow_id], limits, now_us) for row in shown]
        more = len(found) > limit
        return rows.RunPage(runs=page, next_cursor=encode_cursor(shown[-1].started_us, shown[-1].id) if more else None)

    def run(self, flow: str, run_id: str) -> rows.RunDetail | None:
        """One run with all its steps; ``None`` where no event of it ever came."""
        now_us = self._now_us()
        with self._store.read() as connection:
            found = _find_run(connection, flow, run_id)
            if found is None:
                return None
            keys = step_keys(connection, found.flow_id)
            stored = {row.event_id: row for row in tables.fetch(connection, _events_of(found.id))}
            durations = duration_histograms(connection, found.flow_id)
        folded = fold(fact_of_row(row, keys) for row in stored.values())
        state = derive(
            folded,
            self._flows.get(flow),
            now_us=now_us,
            last_arrival_us=found.last_arrival_us,
            ever_reported=frozenset(keys.values()),
            durations={keys[step_id]: histogram for step_id, histogram in durations.items() if step_id in keys},
            stuck_after_us=self._stuck_after_us,
        )
        return run_detail(found, flow, run_id, self._flows.get(flow), state, stored)

    def events(self, flow: str, run_id: str) -> rows.EventList | None:
        """Every stored event of a run, by time; ``None`` where no event of it ever came."""
        with self._store.read() as connection:
            found = _find_run(connection, flow, run_id)
            if found is None:
                return None
            keys = step_keys(connection, found.flow_id)
            stored = list(tables.fetch(connection, _events_of(found.id)))
        stored.sort(key=lambda row: (row.time_us, row.status, row.event_id))
        return rows.EventList(events=[wire_event(row, flow, run_id, keys[row.step_id]) for row in stored])

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

    def _now_us(self) -> int:
        return self._clock() // 1000

    def _stuck_limits(self, connection: Connection, running: list[Found]) -> Mapping[tuple[int, str], int]:
        limits: dict[tuple[int, str], int] = {}
        for flow_id in {row.flow_id for row in running}:
            durations = duration_histograms(connection, flow_id)
            for step_id, key in step_keys(connection, flow_id).items():
                limits[flow_id, key] = stuck_limit_us(durations.get(step_id), self._stuck_after_us)
        return limits

    def _run_row(self, row: Found, slug: str, limits: Mapping[tuple[int, str], int], now_us: int) -> rows.RunRow:
        status = run_status(Standing(row.stands), row.last_arrival_us, now_us)
        since = _decode_counts(row.running_since) if row.running_since is not None else {}
        stuck = any(now_us - start > limits.get((row.flow_id, key), self._stuck_after_us) for key, start in since.items())
        ranks = _decode_counts(row.ranks)
        counts = dict.fromkeys(ORDER, 0)
        for rank in ranks.values():
            counts[ORDER[rank]] += 1
        missing = len(declared_keys(self._flows.get(slug)) - ranks.keys())
        ended_us = None if status == "running" else row.ended_us
        return rows.RunRow(
            flow_key=slug,
            run_id=row.run_key,
            status=status,
            stuck=stuck,
            started_at=format_time(row.started_us * 1000),
            ended_at=time_or_none(ended_us),
            duration_ms=None if ended_us is None else (ended_us - row.started_us) / 1000,
            steps=rows.StepCounts(**counts, missing=missing),
            first_error=first_error(row),
        )


def _find_run(connection: Connection, flow: str, run_id: str) -> Found | None:
    runs = tables.runs
    joined = runs.join(tables.flows, tables.flows.c.id == runs.c.flow_id)
    query = select(runs).select_from(joined).where(tables.flows.c.slug == flow, runs.c.run_key == run_id)
    return connection.execute(query).first()


def _events_of(run_row_id: int) -> Any:
    return select(tables.events).where(tables.events.c.run_id == run_row_id)


def _slugs(connection: Connection, flow_ids: set[int]) -> dict[int, str]:
    flows = tables.flows
    query = select(flows.c.id, flows.c.slug).where(flows.c.id.in_(flow_ids))
    return {row.id: row.slug for row in connection.execute(query)}
