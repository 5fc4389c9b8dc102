"""The database: SQLite in WAL by default, PostgreSQL by URL. Opened, guarded against a second server, handed out."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from failpath_otel.errors import ConfigError
from failpath_otel.server.store import tables
from failpath_otel.server.store.migration import migrate, version_of

BUSY_TIMEOUT_MILLIS: Final = 2_000
"""How long a write waits for another process that holds the database before it is given up for now."""

_READERS: Final = 4
_CACHE_KIB: Final = 64 * 1024
_POSTGRES_LOCK: Final = 0x6661696C70617468  # "failpath", as the key of an advisory lock


class Store:
    """An open database. `write` and `read` connections come from apart, so that readers never wait for the writer."""

    def __init__(self, url: URL, lock: sqlite3.Connection | None) -> None:
        """Use `open`."""
        self._file_lock = lock
        self.is_sqlite: Final = url.get_backend_name() == "sqlite"
        self._writer: Final = _engine(url, reads=False)
        self._readers: Final = _engine(url, reads=True)
        self._advisory: Connection | None = None

    @classmethod
    def open(cls, db: str | Path) -> Store:
        """Opens a database, makes it and its folder where it is not there yet, and brings it to today's schema.

        Args:
            db: A path, or a database URL such as ``postgresql://user@host/name``.

        Raises:
            ConfigError: The database cannot be opened, is of a newer version, or another server writes to it.
        """
        url = _url_of(db)
        name = url.render_as_string(hide_password=True) if "://" in str(db) else str(db)
        lock = _lock_file(Path(url.database or ""), name) if url.get_backend_name() == "sqlite" else None
        try:
            store = cls(url, lock)
            try:
                store._prepare(name)
            except BaseException:
                store.close()
                raise
        except ImportError as error:
            raise ConfigError(f"database {name} needs a driver that is not installed: {error}") from error
        except (SQLAlchemyError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise ConfigError(f"database {name} cannot be opened: {str(cause).strip()}") from error
        return store

    def write(self) -> Connection:
        """A connection that may write. One thread uses one at a time; a transaction begins with its first statement."""
        return self._writer.connect()

    def read(self) -> Connection:
        """A connection that only reads, and sees one state of the database until it is closed."""
        return self._readers.connect()

    def probe(self) -> None:
        """Writes and takes back.

        Raises:
            SQLAlchemyError: The database cannot store.
        """
        with self._writer.connect() as connection, connection.begin():
            connection.execute(text("DELETE FROM meta WHERE key = 'probe'"))
            connection.execute(insert(tables.meta).values(key="probe", value="1"))

    def used_bytes(self) -> int:
        """How much the database takes: of an SQLite file what is in use, without free pages and the log beside it."""
        with self.read() as connection:
            if not self.is_sqlite:
                return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar() or 0)
            pages, free, size = (
                int(connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0)
                for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - free) * size

    def shrink(self, pages: int, *, keep: int) -> bool:
        """Gives up to so many free pages of the SQLite file back to the file system.

        Nothing is done, and the answer is False, where no more than ``keep`` or a twentieth of all pages are free. PostgreSQL
        looks after itself.
        """
        if not self.is_sqlite:
            return False
        # Not within a transaction of ours; the file itself becomes shorter at the next checkpoint.
        connection = self._writer.raw_connection()
        try:
            cursor = connection.cursor()
            counts = [int(cursor.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count")]
            spare = counts[1] - max(keep, counts[0] // 20)
            if spare > 0:
                # A script, because the driver would take but the first step of it, which frees a single page.
                cursor.executescript(f"PRAGMA incremental_vacuum({min(pages, spare)})")
            cursor.close()
        finally:
            connection.close()
        return spare > 0

    def close(self) -> None:
        """Gives back all connections and the right to write."""
        if self._advisory is not None:
            # Said aloud, because the database notices a closed connection a moment later.
            with suppress(SQLAlchemyError):
                self._advisory.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _POSTGRES_LOCK})
            self._advisory.invalidate()
            self._advisory.close()
        self._readers.dispose()
        self._writer.dispose()
        if self._file_lock is not None:
            self._file_lock.close()

    def _prepare(self, name: str) -> None:
        if self.is_sqlite:
            self._make_durable()
        else:
            self._lock_postgres(name)
        with self.write() as connection, connection.begin():
            version = version_of(connection)
            if version is not None and version > tables.SCHEMA_VERSION:
                raise ConfigError(
                    f"database {name} has schema version {version}, this failpath-otel knows up to {tables.SCHEMA_VERSION}: "
                    "upgrade failpath-otel, or give another --db"
                )
            if version is None:
                tables.metadata.create_all(connection)
                connection.execute(insert(tables.meta).values(key="schema", value=str(tables.SCHEMA_VERSION)))
        migrate(self.write, name)

    def _make_durable(self) -> None:
        # Both stay with the file, and neither can be set within a transaction.
        connection = self._writer.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only counts before the first table, for later retention
            mode = cursor.execute("PRAGMA journal_mode=WAL").fetchone()
            cursor.close()
        finally:
            connection.close()
        if mode != ("wal",):
            raise ConfigError(f"the folder of the database does not allow SQLite's WAL (got {mode}): use a local disk for --db")

    def _lock_postgres(self, name: str) -> None:
        # A session lock of its own connection. The database lets go of it soon after this process died, so it is waited for.
        self._advisory = self._writer.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._advisory.execute(text(f"SET lock_timeout = {BUSY_TIMEOUT_MILLIS}"))
        try:
            self._advisory.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _POSTGRES_LOCK})
        except OperationalError as error:
            raise ConfigError(_taken(name)) from error


def _taken(name: str) -> str:
    return f"database {name} is in use by another failpath-otel server: stop that one, or give another --db"


def _url_of(db: str | Path) -> URL:
    if isinstance(db, Path) or "://" not in db:
        if str(db) in ("", ":memory:"):
            raise ConfigError(f"--db must be a file or a database URL, got {str(db)!r}")
        return URL.create("sqlite+pysqlite", database=str(Path(db).expanduser().absolute()))
    try:
        url = make_url(db)
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"--db is no database URL that can be used: {error}") from error
    if backend == "sqlite":
        return _url_of(url.database or "")
    if backend == "postgresql":
        return url if "+" in url.drivername else url.set(drivername="postgresql+psycopg")
    raise ConfigError(f"--db must be a file, sqlite:/// or postgresql://, got {url.render_as_string(hide_password=True)}")


def _lock_file(path: Path, name: str) -> sqlite3.Connection:
    """The right to write to this file, held by a lock that the operating system drops when this process dies.

    The lock is on a file beside the database, so that every reader and every tool can still use the database itself.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = sqlite3.connect(f"{path}-lock", timeout=0, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"database {name} cannot be opened: {error}") from error
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        raise ConfigError(_taken(name) if "locked" in str(error) else f"database {name} cannot be opened: {error}") from error
    except sqlite3.Error as error:
        lock.close()
        raise ConfigError(f"database {name} cannot be opened: {path}-lock: {error}") from error
    return lock


def _engine(url: URL, *, reads: bool) -> Engine:
    if url.get_backend_name() != "sqlite":
        if reads:
            return create_engine(url, pool_size=_READERS, pool_pre_ping=True, isolation_level="REPEATABLE READ")
        return create_engine(url, pool_size=2, pool_pre_ping=True)
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": BUSY_TIMEOUT_MILLIS / 1000}}
    if reads:
        engine = create_engine(url, poolclass=QueuePool, pool_size=_READERS, max_overflow=_READERS, **options)
    else:
        engine = create_engine(url, poolclass=QueuePool, pool_size=2, **options)

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _: object) -> None:
        # The module's own transactions begin late and not at all before reads; ours begin where SQLAlchemy says so.
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous=FULL")  # in WAL, less would acknowledge what a power cut takes back
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.execute("PRAGMA temp_store=MEMORY")
        if reads:
            connection.execute("PRAGMA query_only=ON")
        else:
            connection.execute("PRAGMA wal_autocheckpoint=4000")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A write that begins as a read cannot wait for another writer: it fails at once when it turns into one.
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
