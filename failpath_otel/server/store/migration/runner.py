"""Databases of earlier versions are brought to today's when they are opened; nothing of what they hold is lost.

From a step's first transaction on the database has the step's version, so that no older server writes to it in between. What
was begun is finished at the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, inspect, select, update

from failpath_otel.server.store import tables
from failpath_otel.server.store.migration import to_2, to_3

STEPS: Final = (to_2.STEP, to_3.STEP)
"""Every change of the schema since version 1, in order; each leads from the version before it to its own."""

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
    for step in STEPS:
        with write() as connection, connection.begin():
            is_old = (version_of(connection) or 0) < step.to
            if not is_old and not step.unfinished(connection):
                continue
            _log.warning("database %s is brought from schema version %d to %d. %s", name, step.to - 1, step.to, step.takes)
            if is_old:
                step.begin(connection)
                connection.execute(update(tables.meta).where(tables.meta.c.key == "schema").values(value=str(step.to)))
        step.finish(write, name)
        _log.warning("database %s has schema version %d now", name, step.to)
