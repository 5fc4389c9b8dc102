"""One transaction: new events, the projections of the runs that they touch, and the statistics, all or nothing.

Belongs to one thread. Ids are given here, not by the database, so that all rows of a batch are known before the first
insert; that holds because a database has one writer (`store.Store.open` sees to it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import Connection, func, select, update

from failpath_otel.events.step import StepEvent
from failpath_otel.server.runs.derive import StoredState
from failpath_otel.server.runs.fold import ERROR, RANK, SUCCESS, SUMMARY_CHARS, EventKey, Fact, fact_of, key_of
from failpath_otel.server.runs.projection import Projection, project
from failpath_otel.server.sink import Receipt
from failpath_otel.server.store import tables
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.declarations import Declarations
from failpath_otel.server.store.error_counts import ErrorDelta, Failure
from failpath_otel.server.store.name_cache import NameCache
from failpath_otel.server.store.run_cache import CachedRun, RunCache, RunKey
from failpath_otel.server.store.statistics_delta import StatisticsDelta

_EVENTS: Final = tables.Bulk(tables.events, on_conflict=f"(run_id, event_id, {tables.START_KEY}) DO NOTHING")
_RUNS: Final = tables.Bulk(tables.runs, on_conflict=tables.replaced(tables.runs, "flow_id", "run_key"))
_FIND_RUNS: Final = tables.Lookup(
    "SELECT run_key, id, stands, started_us, ended_us FROM runs WHERE flow_id = {} AND run_key IN {}"
)
_encode: Final = msgspec.json.Encoder().encode
_decode_ranks: Final = msgspec.json.Decoder(dict[str, int]).decode


class Written(msgspec.Struct, frozen=True):
    """What a transaction did: a receipt for each submission, in their order, and the runs that have news."""

    receipts: list[Receipt]
    touched: list[RunKey]


class _New(msgspec.Struct, gc=False):
    """A new event on its way: its id, which submission brought it, and the id of its step."""

    id: int
    submission: int
    event: StepEvent
    step_id: int = 0


class Writer:
    """Writes batches of events. After an exception nothing of the batch is stored, and the writer can be used on."""

    def __init__(self, store: Store, declared: Declarations, clock_us: Callable[[], int]) -> None:
        """``clock_us`` gives the time of arrival in microseconds since the Unix epoch."""
        self._store = store
        self._declared = declared
        self._clock_us = clock_us
        self._cache = RunCache()
        self._names: NameCache | None = None
        self._last_event = 0
        self._last_run = 0

    def write(self, submissions: Sequence[Sequence[StepEvent]]) -> Written:
        """Stores what is new of ``submissions`` in one transaction, and returns when it is durable.

        Raises:
            SQLAlchemyError: The database cannot store now, or one of the events cannot be stored at all.
            ValueError: So, too (the driver's own complaint about a value).
        """
        try:
            with self._store.write() as connection, connection.begin():
                written = self._write(connection, submissions)
        except BaseException:
            self.forget()
            raise
        return written

    def forget(self) -> None:
        """Drops all that is only remembered; it is read from the database again when it is needed."""
        self._cache.clear()
        self._names = None

    def forget_runs(self, keys: Iterable[RunKey]) -> None:
        """Drops what is remembered of some runs, because they are to be deleted."""
        for key in keys:
            self._cache.discard(key)

    def _write(self, connection: Connection, submissions: Sequence[Sequence[StepEvent]]) -> Written:
        names = self._names or self._remember(connection)
        offered, by_run, unique = self._sort_out(submissions)
        runs = self._find_runs(connection, names, by_run)
        new = self._insert_events(connection, names, by_run, runs, unique)
        touched = self._project(connection, names, new, runs)
        names.write(connection)
        self._last_event += unique
        accepted = [0] * len(submissions)
        for news in new.values():
            for item in news:
                accepted[item.submission] += 1
        receipts = [Receipt(taken, all_ - taken) for taken, all_ in zip(accepted, offered, strict=True)]
        return Written(receipts, touched)

    def _remember(self, connection: Connection) -> NameCache:
        self._last_event = connection.execute(select(func.max(tables.events.c.id))).scalar() or 0
        # Events of a deleted run may outlive its row for a while (`retention`), and its id must not be given again before.
        runs = (select(func.max(column)) for column in (tables.runs.c.id, tables.events.c.run_id))
        self._last_run = max(connection.execute(query).scalar() or 0 for query in runs)
        self._names = NameCache.read(connection, self._declared)
        return self._names

    def _sort_out(self, submissions: Sequence[Sequence[StepEvent]]) -> tuple[list[int], dict[RunKey, list[_New]], int]:
        """How many each submission offers, the distinct events by run, and how many these are."""
        by_run: dict[RunKey, dict[EventKey, _New]] = {}
        next_id = self._last_event
        for number, events in enumerate(submissions):
            for event in events:
                key = (event.flow_key, event.run_id)
                event_key = key_of(event)
                group = by_run.get(key)
                if group is None:
                    by_run[key] = group = {}
                elif event_key in group:
                    continue
                next_id += 1
                group[event_key] = _New(next_id, number, event)
        offered = [len(events) for events in submissions]
        return offered, {key: list(group.values()) for key, group in by_run.items()}, next_id - self._last_event

    def _find_runs(self, connection: Connection, names: NameCache, keys: Iterable[RunKey]) -> dict[RunKey, CachedRun]:
        found: dict[RunKey, CachedRun] = {}
        unknown: dict[str, list[str]] = {}
        for key in keys:
            known = self._cache.get(key)
            if known is None:
                unknown.setdefault(key[0], []).append(key[1])
            else:
                found[key] = known
        for slug, run_keys in unknown.items():
            flow_id = names.flow_id(slug)
            stored = {} if names.is_new(flow_id) else _read_runs(connection, names, flow_id, run_keys)
            for run_key in run_keys:
                run = stored.get(run_key)
                if run is None:
                    self._last_run += 1
                    run = CachedRun(self._last_run, flow_id, None)
                found[slug, run_key] = run
        return found

    def _insert_events(
        self,
        connection: Connection,
        names: NameCache,
        by_run: Mapping[RunKey, list[_New]],
        runs: Mapping[RunKey, CachedRun],
        n: int,
    ) -> dict[RunKey, list[_New]]:
        """Inserts the events and gives back those that the store did not know."""
        rows: list[tables.RowValues] = []
        for key, news in by_run.items():
            run = runs[key]
            for item in news:
                item.step_id = names.step_id(run.flow_id, item.event.step_key)
                rows.append(_event_row(item, run.run_id))
        if _EVENTS.insert(connection, rows) == n:
            return dict(by_run)
        events = tables.events
        inserted = set(connection.execute(select(events.c.id).where(events.c.id > self._last_event)).scalars())
        left = {key: [item for item in news if item.id in inserted] for key, news in by_run.items()}
        return {key: news for key, news in left.items() if news}

    def _project(
        self, connection: Connection, names: NameCache, new: Mapping[RunKey, list[_New]], runs: Mapping[RunKey, CachedRun]
    ) -> list[RunKey]:
        arrival_us = self._clock_us()
        delta = StatisticsDelta()
        failures = ErrorDelta()
        rows: list[tables.RowValues] = []
        for key, news in new.items():
            run = runs[key]
            facts: list[Fact] = []
            for item in news:
                fact = fact_of(item.event)
                facts.append(fact)
                names.report(run.flow_id, fact.step_key, item.step_id)
                if fact.status == ERROR:
                    failures.add(run.flow_id, _failure(item, key[1], fact))
                if fact.started_us is not None and fact.status >= SUCCESS and fact.started_us < fact.time_us:
                    delta.attempt(item.step_id, fact.time_us - fact.started_us)
            run.add(facts)
            after = project(run.steps, self._declared.keys(key[0]))
            delta.run(run.flow_id, run.projection, after)
            run.projection = after
            rows.append(_run_row(run.run_id, run.flow_id, key[1], after, arrival_us))
            self._cache.keep(key, run, len(facts))
        _RUNS.insert(connection, rows)
        delta.write(connection)
        failures.write(connection)
        return list(new)

    def rejudge(self, most: int = 500) -> bool:
        """Judges some runs again whose flow is declared otherwise than when they were judged last.

        Returns:
            True while there is more to do; each call is one small transaction.
        """
        try:
            with self._store.write() as connection, connection.begin():
                return self._rejudge(connection, most)
        except BaseException:
            self.forget()
            raise

    def _rejudge(self, connection: Connection, most: int) -> bool:
        names = self._names or self._remember(connection)
        flow = names.next_to_judge()
        if flow is None:
            return False
        runs = tables.runs
        columns = (runs.c.id, runs.c.stands, runs.c.started_us, runs.c.ended_us, runs.c.ranks)
        query = select(*columns).where(runs.c.flow_id == flow.id, runs.c.id > flow.judged_to).order_by(runs.c.id).limit(most)
        declared = self._declared.keys(flow.slug)
        delta = StatisticsDelta()
        last = None
        for row in tables.fetch(connection, query):
            last = row.id
            ranks = _decode_ranks(row.ranks)
            before = Projection(StoredState(row.stands), row.started_us, row.ended_us, ranks, {}, None)
            after = before.judged(declared)
            if after.state is not before.state:
                delta.run(flow.id, before, after)
                connection.execute(update(runs).where(runs.c.id == row.id).values(stands=int(after.state)))
        delta.write(connection)
        self._cache.clear()
        names.judged(connection, flow, last)
        return True


def _event_row(item: _New, run_id: int) -> tables.RowValues:
    event = item.event
    error = event.error
    started = event.started_at
    return (
        item.id,
        event.event_id,
        run_id,
        item.step_id,
        RANK[event.status],
        event.timestamp // 1000,
        None if started is None else started // 1000,
        event.trace_id,
        event.span_id,
        event.service,
        event.skip_reason,
        None if error is None else error.name,
        None if error is None else error.message,
        None if error is None else error.stack,
        _encode(event.metadata).decode() if event.metadata else None,
    )


def _failure(item: _New, run_key: str, fact: Fact) -> Failure:
    name, message = fact.error_name or "Error", fact.error_message or ""
    return Failure(item.step_id, fact.step_key, run_key, name, message, fact.time_us)


def _run_row(run_id: int, flow_id: int, run_key: str, projection: Projection, arrival_us: int) -> tables.RowValues:
    error = projection.first_error
    return (
        run_id,
        flow_id,
        run_key,
        int(projection.state),
        projection.started_us,
        projection.ended_us,
        arrival_us,
        _encode(projection.ranks).decode(),
        _encode(projection.running_since).decode() if projection.running_since else None,
        None if error is None else error.step_key,
        None if error is None else error.error_name,
        None if error is None else error.error_message,
    )


def _read_runs(connection: Connection, names: NameCache, flow_id: int, run_keys: Sequence[str]) -> dict[str, CachedRun]:
    """Stored runs with their facts."""
    found: dict[str, CachedRun] = {}
    by_id: dict[int, CachedRun] = {}
    for some in tables.chunks(run_keys):
        for run_key, run_id, state, started_us, ended_us in _FIND_RUNS.fetch(connection, (flow_id,), some):
            # Only what the delta compares is needed of the old projection.
            before = Projection(StoredState(state), started_us, ended_us, {}, {}, None)
            found[run_key] = by_id[run_id] = CachedRun(run_id, flow_id, before)
    for some_ids in tables.chunks(list(by_id)):
        facts: dict[int, list[Fact]] = {}
        for run_id, fact in read_facts(connection, names, some_ids):
            facts.setdefault(run_id, []).append(fact)
        for run_id, own in facts.items():
            by_id[run_id].add(own)
    return found


def read_facts(connection: Connection, names: NameCache, run_ids: Sequence[int]) -> Iterable[tuple[int, Fact]]:
    """The facts of some runs, each with its run's id."""
    events = tables.events
    columns = (events.c.run_id, events.c.event_id, events.c.step_id, events.c.status, events.c.time_us, events.c.started_us)
    summary = func.substr(events.c.error_message, 1, SUMMARY_CHARS)
    query = select(*columns, events.c.span_id, events.c.error_name, summary).where(events.c.run_id.in_(run_ids))
    for run_id, event_id, step_id, *rest in tables.fetch(connection, query):
        yield run_id, Fact(event_id, names.step_key(step_id), *rest)
