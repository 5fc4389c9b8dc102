"""Databases of earlier versions are brought to today's when they are opened; nothing of what they hold is lost.

From the first transaction on the database has the new version, so that no older server writes to it in between. On SQLite the
events are copied in transactions of a bounded size, and what was begun is finished at the next start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, func, inspect, select, text, update

from failpath_otel.server import tables
from failpath_otel.server.error_groups import ErrorTally, Failure
from failpath_otel.server.fold import ERROR, SUMMARY_CHARS

_OLD: Final = "events_1"
"""Where SQLite keeps the events of version 1 until all are copied."""
_AT_ONCE: Final = 50_000  # events
_TOLD_EACH_SECONDS: Final = 10.0

_log = logging.getLogger("failpath_otel.server")


def version_of(connection: Connection) -> int | None:
    """The version of a database; ``None`` where it is empty."""
    if not inspect(connection).has_table(tables.meta.name):
        return None
    value = connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == "schema")).scalar()
    return None if value is None else int(value)


def migrate(write: Callable[[], Connection], name: str) -> None:
    """Brings a database that is not empty to `tables.SCHEMA_VERSION`, if it is of an earlier one.

    Args:
        write: Gives a connection that may write.
        name: How the database is called in the log.

    Raises:
        SQLAlchemyError: The database cannot be written. What was done by then stays done.
    """
    with write() as connection, connection.begin():
        version = version_of(connection)
        if version == tables.SCHEMA_VERSION and not inspect(connection).has_table(_OLD):
            return
        _log.warning(
            "database %s is brought from schema version 1 to %d. This takes about a minute for five million events, and with "
            "SQLite as much free disk space as the database takes",
            name,
            tables.SCHEMA_VERSION,
        )
        if version != tables.SCHEMA_VERSION:
            _begin(connection)
    _copy(write, name)
    _log.warning("database %s has schema version %d now", name, tables.SCHEMA_VERSION)


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
    version = str(tables.SCHEMA_VERSION)
    connection.execute(update(tables.meta).where(tables.meta.c.key == "schema").values(value=version))


def _copy(write: Callable[[], Connection], name: str) -> None:
    """Copies the events of version 1 and counts the failures among them, as far as that is not done."""
    columns = ", ".join(column.name for column in tables.events.columns)
    # Only names of tables and columns stand in the statement, never values.
    copied = f"INSERT INTO events ({columns}) SELECT {columns} FROM {_OLD} WHERE id > :last ORDER BY id LIMIT {_AT_ONCE}"  # noqa: S608
    told_at = time.monotonic()
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
        if time.monotonic() - told_at > _TOLD_EACH_SECONDS:
            told_at = time.monotonic()
            _log.warning("database %s: the events up to number %d are copied", name, reached)


def _count_failures(connection: Connection, after: int, to: int) -> None:
    """Puts the error events with ids above ``after`` up to ``to`` into their groups."""
    events, runs, steps = tables.events, tables.runs, tables.steps
    message = func.substr(events.c.error_message, 1, SUMMARY_CHARS).label("message")
    columns = (steps.c.flow_id, steps.c.step_key, runs.c.run_key, events.c.step_id, events.c.time_us, events.c.error_name)
    # Events of a run that is being deleted are still counted, and taken off again when they go.
    joined = events.join(steps, steps.c.id == events.c.step_id).outerjoin(runs, runs.c.id == events.c.run_id)
    query = select(*columns, message).select_from(joined)
    query = query.where(events.c.id > after, events.c.id <= to, events.c.status == ERROR).order_by(events.c.id)
    tally = ErrorTally()
    for row in tables.fetch(connection, query):
        name = row.error_name or "Error"
        tally.add(row.flow_id, Failure(row.step_id, row.step_key, row.run_key or "", name, row.message or "", row.time_us))
    tally.write(connection)
