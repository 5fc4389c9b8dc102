"""The database: opening, versions, one writer, durability settings."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from support import databases

from failpath_otel.errors import ConfigError
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.tables import SCHEMA_VERSION

db, postgres_url, query = databases.db, databases.postgres_url, databases.query


def test_a_new_database_gets_its_folder(tmp_path):
    Store.open(tmp_path / "a" / "b" / "runs.db").close()
    assert (tmp_path / "a" / "b" / "runs.db").is_file()


def test_sqlite_is_opened_durably(tmp_path):
    """WAL so that readers never wait, FULL so that a power cut takes back nothing acknowledged, vacuum for later retention."""
    store = Store.open(tmp_path / "runs.db")
    with store.write() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "auto_vacuum")
        ]
    store.close()
    assert found == ["wal", 2, 2]


def test_a_database_opens_again(db):
    Store.open(db).close()
    Store.open(db).close()


def test_a_newer_schema_is_a_clear_error(db, query):
    Store.open(db).close()
    query("UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(
        ConfigError, match=f"schema version 99, this failpath-otel knows up to {SCHEMA_VERSION}: upgrade failpath-otel"
    ):
        Store.open(db)


def test_a_second_server_on_the_same_database_is_a_clear_error(db):
    store = Store.open(db)
    with pytest.raises(ConfigError, match="in use by another failpath-otel server"):
        Store.open(db)
    store.close()
    Store.open(db).close()


def test_a_killed_server_leaves_the_database_free(tmp_path):
    path = tmp_path / "runs.db"
    code = (
        f"import os; from failpath_otel.server.store.database import Store; Store.open({str(path)!r}); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == -9
    Store.open(path).close()


def test_a_file_that_is_no_database_is_a_clear_error_and_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database, " * 1000)
    with pytest.raises(ConfigError, match=r"notes\.txt cannot be opened: file is not a database"):
        Store.open(path)
    assert path.read_text().startswith("no database")


@pytest.mark.parametrize("given", ["mysql://host/name", "sqlite://", ":memory:", "", "postgresql+nothing://host/name"])
def test_a_database_that_cannot_be_used_is_a_clear_error(given):
    with pytest.raises(ConfigError, match=r"database|--db"):
        Store.open(given)


def test_a_password_is_not_shown():
    with pytest.raises(ConfigError) as raised:
        Store.open("postgresql://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(raised.value)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Store.open(tmp_path / "file" / "runs.db")


def test_readers_do_not_wait_for_a_writer_and_cannot_write(tmp_path):
    store = Store.open(tmp_path / "runs.db")
    with store.write() as writer, writer.begin(), store.read() as reader:
        writer.execute(text("INSERT INTO meta VALUES ('k', 'v')"))
        assert reader.execute(text("SELECT count(*) FROM meta")).scalar() == 1
        with pytest.raises(Exception, match="readonly"):
            reader.execute(text("DELETE FROM meta"))
    store.close()


def test_a_url_with_sqlite_is_a_file(tmp_path: Path):
    Store.open(f"sqlite:///{tmp_path / 'runs.db'}").close()
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        assert connection.execute("SELECT value FROM meta").fetchall() == [(str(SCHEMA_VERSION),)]
