"""Old runs are deleted, by age and by the size of the file, in steps so small that no sender notices.

A run goes as a whole. First its row goes, so that no reader ever sees half of it; its id is written down with that, and its
events follow, step by step, also after a restart. Belongs to the writer's thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from sqlalchemy import Connection, delete, func, select

from failpath_otel.server.runs.derive import StoredState
from failpath_otel.server.runs.fold import ERROR, SUCCESS, SUMMARY_CHARS
from failpath_otel.server.runs.projection import Projection
from failpath_otel.server.store import tables
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.error_counts import Failure, subtract_failures
from failpath_otel.server.store.run_cache import RunKey
from failpath_otel.server.store.statistics_delta import StatisticsDelta

ROUND_SECONDS: Final = 5.0
"""How often it is looked whether something is old."""
FULL_ROUND_SECONDS: Final = 3600.0
"""How often all runs are looked at. Between, a round ends where nothing old is found: runs stand by their first arrival."""
SHRINK_TO: Final = 0.95
"""Of the largest size, so that not every new run makes an old one go."""
SPARE_PAGES: Final = 1_000
"""So many free pages, or a twentieth of all if that is more, stay in the file: what comes next is written there."""

_LOOKED_AT: Final = 500
_DOOMED_BY_SIZE: Final = 100
_EVENTS: Final = 2_000
_VACUUMED_PAGES: Final = 500
_TO_DELETE_KEY: Final = "doomed"

_log = logging.getLogger("failpath_otel.server")


@dataclass(frozen=True)
class Retention:
    """What is kept.

    Attributes:
        max_age_seconds: A run goes when nothing of it arrived for so long; ``None``: never.
        max_bytes: The oldest runs go when the database has more in use; ``None``: no bound. SQLite only.
    """

    max_age_seconds: float | None = None
    max_bytes: int | None = None


class Sweeper:
    """Deletes what need not be kept any more, a small step at a time."""

    def __init__(
        self,
        store: Store,
        retention: Retention,
        clock_us: Callable[[], int],
        forget: Callable[[Iterable[RunKey]], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``forget`` is called with the runs that will be gone; ``clock_us`` is the one that arrivals are stamped by."""
        self._store = store
        self._retention = retention
        self._clock_us = clock_us
        self._forget = forget
        self._monotonic = monotonic
        self._next_round = 0.0
        self._next_full_round = 0.0
        self._looks_at_all = False
        self._position: int | None = None  # the run id up to which this round came; None between rounds
        self._shrinks = False
        self._to_delete: list[int] | None = None
        self.deleted_runs = 0

    def due_in(self) -> float | None:
        """Seconds until the next step is due, 0 if one is due now; ``None`` where everything is kept for ever."""
        if self._retention == Retention():
            return None
        return max(0.0, self._next_round - self._monotonic())

    def step(self) -> None:
        """Does one small step if one is due. Asks nothing of its caller but to come again.

        Raises:
            SQLAlchemyError: The database cannot be written now; the next round tries again.
        """
        if self.due_in() != 0.0:
            return
        try:
            done = self._step()
        except BaseException:
            self._to_delete = None
            self._rest()
            raise
        if done:
            self._rest()

    def _rest(self) -> None:
        self._position = None
        self._next_round = self._monotonic() + ROUND_SECONDS

    def _step(self) -> bool:
        """One step; True when nothing is left to do for now."""
        if self._to_delete is None:
            with self._store.read() as connection:
                self._to_delete = _read_to_delete(connection)
        if self._to_delete:
            self._delete_events(self._to_delete)
        elif self._retention.max_age_seconds is not None and not self._looked_through():
            self._look_on(self._retention.max_age_seconds)
        elif not self._must_shrink() or not self._doom_oldest():
            return not self._vacuum()
        return False

    # By age.

    def _looked_through(self) -> bool:
        if self._position is None:
            self._position = 0
            self._looks_at_all = self._monotonic() >= self._next_full_round
            if self._looks_at_all:
                self._next_full_round = self._monotonic() + FULL_ROUND_SECONDS
        return self._position < 0

    def _look_on(self, max_age_seconds: float) -> None:
        """Looks at the next runs and dooms those that are too old."""
        oldest_us = self._clock_us() - int(max_age_seconds * 1_000_000)
        runs = tables.runs
        next_ones = _runs().where(runs.c.id > self._position).order_by(runs.c.id).limit(_LOOKED_AT)
        with self._store.write() as connection, connection.begin():
            seen = list(tables.fetch(connection, next_ones))
            old = [run for run in seen if run.last_arrival_us < oldest_us]
            if old:
                self._doom(connection, old)
        more = len(seen) == _LOOKED_AT and (old or self._looks_at_all)
        self._position = seen[-1].id if more else -1

    # By size.

    def _must_shrink(self) -> bool:
        most = self._retention.max_bytes
        if most is None:
            return False
        used = self._store.used_bytes()
        self._shrinks = used > most * (SHRINK_TO if self._shrinks else 1)
        return self._shrinks

    def _doom_oldest(self) -> bool:
        """Dooms those of the first runs of which nothing arrived for the longest time; False where there is none."""
        runs = tables.runs
        with self._store.write() as connection, connection.begin():
            first = list(tables.fetch(connection, _runs().order_by(runs.c.id).limit(4 * _DOOMED_BY_SIZE)))
            first.sort(key=lambda run: run.last_arrival_us)
            self._doom(connection, first[:_DOOMED_BY_SIZE])
        if not first:
            _log.warning("--max-size is less than the empty database takes; nothing more can be deleted")
            self._shrinks = False
        return bool(first)

    # What both share.

    def _doom(self, connection: Connection, runs: list[tables.Row]) -> None:
        if not runs:
            return
        self._forget((run.slug, run.run_key) for run in runs)
        delta = StatisticsDelta()
        for run in runs:
            delta.gone(run.flow_id, Projection(StoredState(run.stands), run.started_us, run.ended_us, {}, {}, None))
        ids = [run.id for run in runs]
        connection.execute(delete(tables.runs).where(tables.runs.c.id.in_(ids)))
        delta.write(connection)
        self._to_delete = ids
        _write_to_delete(connection, ids)
        self.deleted_runs += len(ids)

    def _delete_events(self, to_delete: list[int]) -> None:
        """Deletes some events of runs that are gone already, and takes their durations out of the statistics."""
        events = tables.events
        message = func.substr(events.c.error_message, 1, SUMMARY_CHARS).label("message")
        columns = (events.c.id, events.c.step_id, events.c.status, events.c.time_us, events.c.started_us, events.c.error_name)
        with self._store.write() as connection, connection.begin():
            query = select(*columns, message).where(events.c.run_id.in_(to_delete)).limit(_EVENTS)
            found = list(tables.fetch(connection, query))
            delta = StatisticsDelta()
            for event in found:
                if event.status >= SUCCESS and event.started_us is not None and event.started_us < event.time_us:
                    delta.attempt(event.step_id, event.time_us - event.started_us, -1)
            if found:
                connection.execute(delete(events).where(events.c.id.in_([event.id for event in found])))
                delta.write(connection)
                subtract_failures(connection, _failures(connection, found))
            left = to_delete if len(found) == _EVENTS else []
            if not left:
                _write_to_delete(connection, left)
        self._to_delete = left

    def _vacuum(self) -> bool:
        """Gives some free pages back to the file system; False where there are few."""
        return self._store.shrink(_VACUUMED_PAGES, keep=SPARE_PAGES)


def _runs() -> Any:
    runs, flows = tables.runs, tables.flows
    columns = (runs.c.id, runs.c.flow_id, runs.c.run_key, runs.c.stands, runs.c.started_us, runs.c.ended_us)
    return select(*columns, runs.c.last_arrival_us, flows.c.slug).select_from(runs.join(flows, flows.c.id == runs.c.flow_id))


def _failures(connection: Connection, events: Iterable[tables.Row]) -> dict[int, list[Failure]]:
    """The error events among these, by the ids of their flows."""
    failed = [event for event in events if event.status == ERROR]
    steps = tables.steps
    steps_by_id = {
        row.id: row
        for some in tables.chunks({event.step_id for event in failed})
        for row in tables.fetch(connection, select(steps).where(steps.c.id.in_(some)))
    }
    by_flow: dict[int, list[Failure]] = {}
    for event in failed:
        step = steps_by_id[event.step_id]
        failure = Failure(step.id, step.step_key, "", event.error_name or "Error", event.message or "", event.time_us)
        by_flow.setdefault(step.flow_id, []).append(failure)
    return by_flow


def _read_to_delete(connection: Connection) -> list[int]:
    """The runs whose rows are gone and whose events are still to go."""
    found = connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == _TO_DELETE_KEY)).scalar()
    return [] if found is None else msgspec.json.decode(cast(str, found), type=list[int])


def _write_to_delete(connection: Connection, ids: list[int]) -> None:
    connection.execute(delete(tables.meta).where(tables.meta.c.key == _TO_DELETE_KEY))
    if ids:
        connection.execute(tables.meta.insert().values(key=_TO_DELETE_KEY, value=msgspec.json.encode(ids).decode()))
