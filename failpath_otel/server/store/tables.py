"""The tables. Times are whole microseconds since the Unix epoch, statuses are ranks (`fold.ORDER`, `derive.StoredState`).

``events`` only grows; all else is made of it in the same transaction. There are no foreign keys, because one writer makes
the rows of all tables together and every insert would pay for the check.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any, Final, TypeVar, cast

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from failpath_otel.server.runs.derive import StoredState

SCHEMA_VERSION: Final = 3

metadata: Final = MetaData()
# SQLite makes an alias of its row number only of a column that is declared INTEGER.
_Id = Integer().with_variant(BigInteger(), "postgresql")
# PostgreSQL compares text by the rules of a language unless a collation is named; then no index gives what begins with a text.
_Key = Text().with_variant(Text(collation="C"), "postgresql")

meta: Final = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

flows: Final = Table(
    "flows",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("slug", Text, nullable=False, unique=True),
    # The fingerprint of the declaration by which the runs of this flow were judged last.
    Column("judged_by", Text, nullable=False),
)

steps: Final = Table(
    "steps",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("flow_id", _Id, nullable=False),
    Column("step_key", Text, nullable=False),
    UniqueConstraint("flow_id", "step_key"),
)

runs: Final = Table(
    "runs",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("flow_id", _Id, nullable=False),
    Column("run_key", _Key, nullable=False),
    Column("stands", SmallInteger, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Column("last_arrival_us", BigInteger, nullable=False),
    Column("ranks", Text, nullable=False),  # JSON: step key → rank of its last attempt
    Column("running_since", Text),  # JSON: step key → start, of the steps that run
    Column("error_step", Text),
    Column("error_name", Text),
    Column("error_message", Text),
    Index("runs_by_key", "flow_id", "run_key", unique=True),
    Index("runs_by_flow", "flow_id", "stands", "started_us", "id"),
    Index("runs_by_standing", "stands", "started_us", "id"),
)
WAITS: Final = text(f"stands + 0 = {StoredState.WAITING.value}")
"""True of the runs that change their status by the clock alone. Ask by these very words, and by `ANY_FLOW`, for the recent
ones: they lead to the index of waiting runs and, because of the sums, past the other indexes, by which SQLite would go
through every run that ever waited."""
ANY_FLOW: Final = runs.c.flow_id + 0
Index("runs_waiting", runs.c.last_arrival_us, runs.c.flow_id, sqlite_where=WAITS, postgresql_where=WAITS)

START_KEY: Final = "(CASE WHEN status = 0 THEN time_us ELSE coalesce(started_us, -1) END)"
"""The start of an event's attempt as `fold.start_key` gives it: with the event's id it is what the event is known by."""
events: Final = Table(
    "events",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),  # the order of arrival
    Column("event_id", Text, nullable=False),
    Column("run_id", _Id, nullable=False),
    Column("step_id", _Id, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("trace_id", Text),
    Column("span_id", Text),
    Column("service", Text),
    Column("skip_reason", Text),
    Column("error_name", Text),
    Column("error_message", Text),
    Column("error_stack", Text),
    Column("metadata", Text),  # JSON
    # An event is known by its id and the start of its attempt within its run: ids come again where a service seeds the
    # generator that OpenTelemetry draws them from. Runs that have news are mostly the newest, so their part of this index is
    # its end; an index of event ids alone would be written to all over, which is slow once it is larger than the cache.
    Index("events_by_run", "run_id", "event_id", text(START_KEY), unique=True),
)

# Failures by kind (`error_groups`). An empty fingerprint stands for all that have no row of their own any more.
errors: Final = Table(
    "errors",
    metadata,
    Column("flow_id", _Id, primary_key=True, autoincrement=False),
    Column("fingerprint", Text, primary_key=True),
    Column("step_id", _Id, nullable=False),
    Column("name", Text, nullable=False),
    Column("message", Text, nullable=False),  # the newest
    Column("n", BigInteger, nullable=False),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
    Column("last_run", Text, nullable=False),  # its run_key
)

# How many attempts of a step, runs of a flow took how long (`histogram`), and how many runs of a flow stand how.
step_durations: Final = Table(
    "step_durations",
    metadata,
    Column("step_id", _Id, primary_key=True, autoincrement=False),
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False),
)
run_durations: Final = Table(
    "run_durations",
    metadata,
    Column("flow_id", _Id, primary_key=True, autoincrement=False),
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False),
)
run_counts: Final = Table(
    "run_counts",
    metadata,
    Column("flow_id", _Id, primary_key=True, autoincrement=False),
    Column("stands", SmallInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False),
)

RowValues = tuple[Any, ...]
"""A row to be inserted, with the table's columns in their order."""
Row = Any
"""A row that was read, with the table's columns as attributes; SQLAlchemy types rows by position, not by name."""


def fetch(connection: Connection, query: Any) -> Iterable[Row]:
    """The rows that a query finds."""
    found: Any = connection.execute(query)
    return cast("Iterable[Row]", found)


# Drivers with an older SQLite take fewer; PostgreSQL takes twice as many.
MAX_PARAMETERS: Final = 32_766 if sqlite3.sqlite_version_info >= (3, 32) else 999
IN_VALUES: Final = MAX_PARAMETERS // 8
"""Values within one IN (…)."""
# Few sizes, so that the driver finds its prepared statements again, and each at most three times for any number of rows.
_SIZES: Final = (1024, 256, 64, 16, 4, 1)


class Bulk:
    """Inserts rows into a table, many with one statement.

    A driver lets go of the interpreter's lock once a statement. With a statement a row, a busy event loop would make the
    writer wait for the lock as often; with many rows, the database works while the loop decodes.
    """

    def __init__(self, table: Table, *, on_conflict: str = "") -> None:
        """``on_conflict``: what follows ``ON CONFLICT`` in the statement."""
        columns = ", ".join(column.name for column in table.columns)
        # Only names of tables and columns stand in the statement, never values.
        self._head = f"INSERT INTO {table.name} ({columns}) VALUES "  # noqa: S608
        self._tail = f" ON CONFLICT {on_conflict}" if on_conflict else ""
        self._columns = len(table.columns)
        self._sizes = [size for size in _SIZES if size * self._columns <= MAX_PARAMETERS]
        self._statements: dict[tuple[str, int], str] = {}

    def insert(self, connection: Connection, rows: Sequence[RowValues]) -> int:
        """Inserts the rows, each with the table's columns in their order, and gives how many are new or changed."""
        changed = 0
        start = 0
        for size in self._sizes:
            while len(rows) - start >= size:
                values = tuple(chain.from_iterable(rows[start : start + size]))
                changed += connection.exec_driver_sql(self._sql(_mark(connection), size), values).rowcount
                start += size
        return changed

    def _sql(self, mark: str, size: int) -> str:
        found = self._statements.get((mark, size))
        if found is None:
            row = f"({', '.join([mark] * self._columns)})"
            found = self._statements[mark, size] = self._head + ", ".join([row] * size) + self._tail
        return found


class Lookup:
    """A SELECT by many values, which costs no more than the database's own work."""

    def __init__(self, sql: str) -> None:
        """``sql`` has ``{}`` for each parameter and a last ``{}`` for the list of values."""
        self._sql = sql

    def fetch(self, connection: Connection, parameters: RowValues, values: Sequence[Any]) -> list[RowValues]:
        """The rows that are found; ``values`` are at least one."""
        mark = _mark(connection)
        sql = self._sql.format(*[mark] * len(parameters), f"({', '.join([mark] * len(values))})")
        # The driver's own rows: SQLAlchemy's wrapping is dearer than the search.
        cursor: Any = connection.exec_driver_sql(sql, (*parameters, *values)).cursor
        return cast("list[RowValues]", cursor.fetchall())


_T = TypeVar("_T")


def chunks(values: Iterable[_T], size: int = IN_VALUES) -> Iterable[list[_T]]:
    """The values in lists of at most ``size``."""
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


def added(table: Table) -> str:
    """``on_conflict`` for a table of counts: the new count is added to the one that is there."""
    return f"({', '.join(column.name for column in table.primary_key)}) DO UPDATE SET n = {table.name}.n + excluded.n"


def replaced(table: Table, *kept: str) -> str:
    """``on_conflict`` that takes the new values of all columns but the primary key and ``kept``."""
    keys = [column.name for column in table.primary_key]
    changed = [name for column in table.columns if (name := column.name) not in (*keys, *kept)]
    return f"({', '.join(keys)}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in changed)}"
