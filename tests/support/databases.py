"""Databases for tests that hold for every kind of store."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from support.postgres import postgres, postgres_folder


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server, shared; skipped where there is none."""
    folder = postgres_folder()
    if folder is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("needs PostgreSQL's initdb and postgres, and psycopg")
    with postgres(folder) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    url = request.getfixturevalue("postgres_url")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def query(db: str) -> Callable[[str], list[tuple[object, ...]]]:
    """Asks the database past the store."""

    def ask(sql: str) -> list[tuple[object, ...]]:
        engine = create_engine(db if "://" in db else f"sqlite:///{db}")
        try:
            with engine.begin() as connection:
                found = connection.execute(text(sql))
                return [tuple(row) for row in found] if found.returns_rows else []
        finally:
            engine.dispose()

    return ask
