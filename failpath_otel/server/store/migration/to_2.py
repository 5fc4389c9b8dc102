"""From version 1 to 2: an event is known by its id within its run, failures are counted by kind, run ids sort by bytes.

On SQLite the events are copied into a table anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, func, inspect, select, text

from failpath_otel.server.runs.fold import ERROR, SUMMARY_CHARS
from failpath_otel.server.store import tables
from failpath_otel.server.store.error_counts import ErrorDelta, Failure
from failpath_otel.server.store.migration.step import SchemaStep

_OLD: Final = "events_1"
"""Where SQLite keeps the events of version 1 until all are copied."""
_AT_ONCE: Final = 50_000  # events
_LOGGED_EACH_SECONDS: Final = 10.0

_log = logging.getLogger("failpath_otel.server")


def _begin(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        # SQLite cannot drop the UNIQUE that a column was declared with.
        connection.execute(text(f"ALTER TABLE events RENAME TO {_OLD}"))
        tables.metadata.create_all(connection)
    else:
        connection.execute(text("ALTER TABLE events DROP CONSTRAINT events_event_id_key"))
        connection.execute(text("DROP INDEX ix_events_run_id"))
        connection.execute(text('ALTER TABLE runs ALTER COLUMN run_key TYPE text COLLATE "C"'))
        tables.metadata.create_all(connection)
        for index in tables.events.indexes:
            index.create(connection)
        last = connection.execute(select(func.max(tables.events.c.id))).scalar() or 0
        for start in range(0, last, _AT_ONCE):
            _count_failures(connection, start, start + _AT_ONCE)


def _finish(write: Callable[[], Connection], name: str) -> None:
    """Copies the events of version 1 and counts the failures among them, as far as that is not done."""
    columns = ", ".join(column.name for column in tables.events.columns)
    # Only names of tables and columns stand in the statement, never values.
    copied = f"INSERT INTO events ({columns}) SELECT {columns} FROM {_OLD} WHERE id > :last ORDER BY id LIMIT {_AT_ONCE}"  # noqa: S608
    logged_at = time.monotonic()
    newest = select(func.max(tables.events.c.id))
    while True:
        with write() as connection, connection.begin():
            if not inspect(connection).has_table(_OLD):
                return
            last = connection.execute(newest).scalar() or 0
            if not connection.execute(text(copied), {"last": last}).rowcount:
                connection.execute(text(f"DROP TABLE {_OLD}"))
                return
            reached = connection.execute(newest).scalar() or 0
            _count_failures(connection, last, reached)
        if time.monotonic() - logged_at > _LOGGED_EACH_SECONDS:
            logged_at = time.monotonic()
            _log.warning("database %s: the events up to number %d are copied", name, reached)


def _unfinished(connection: Connection) -> bool:
    return bool(inspect(connection).has_table(_OLD))


def _count_failures(connection: Connection, after: int, to: int) -> None:
    """Puts the error events with ids above ``after`` up to ``to`` into their groups."""
    events, runs, steps = tables.events, tables.runs, tables.steps
    message = func.substr(events.c.error_message, 1, SUMMARY_CHARS).label("message")
    columns = (steps.c.flow_id, steps.c.step_key, runs.c.run_key, events.c.step_id, events.c.time_us, events.c.error_name)
    # Events of a run that is being deleted are still counted, and taken off again when they go.
    joined = events.join(steps, steps.c.id == events.c.step_id).outerjoin(runs, runs.c.id == events.c.run_id)
    query = select(*columns, message).select_from(joined)
    query = query.where(events.c.id > after, events.c.id <= to, events.c.status == ERROR).order_by(events.c.id)
    delta = ErrorDelta()
    for row in tables.fetch(connection, query):
        name = row.error_name or "Error"
        delta.add(row.flow_id, Failure(row.step_id, row.step_key, row.run_key or "", name, row.message or "", row.time_us))
    delta.write(connection)


STEP: Final = SchemaStep(
    to=2,
    takes="This takes about a minute for five million events, and with SQLite as much free disk space as the database takes",
    begin=_begin,
    unfinished=_unfinished,
    finish=_finish,
)
