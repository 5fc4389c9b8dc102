"""From version 2 to 3: the start of its attempt is a part of what an event is known by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, text

from failpath_otel.server.store.migration.step import SchemaStep

# As of this version; `tables` may go on.
_START: Final = "(CASE WHEN status = 0 THEN time_us ELSE coalesce(started_us, -1) END)"


def _begin(connection: Connection) -> None:
    connection.execute(text("DROP INDEX IF EXISTS events_by_run"))
    # What was unique by less is unique by more.
    connection.execute(text(f"CREATE UNIQUE INDEX events_by_run ON events (run_id, event_id, {_START})"))


def _unfinished(_: Connection) -> bool:
    return False


def _finish(_: Callable[[], Connection], __: str) -> None:
    """All is done in the first transaction."""


STEP: Final = SchemaStep(
    to=3,
    takes="This takes about a minute for twenty million events, and as much free disk space as an index of them",
    begin=_begin,
    unfinished=_unfinished,
    finish=_finish,
)
