"""A database of the first version is brought to today's at the start, whole, also where that was cut off."""

from __future__ import annotations

import logging
import random

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import OperationalError
from support import databases
from support.schema_1 import bring_back
from support.story import event, flow_of, house, run

from failpath_otel.errors import ConfigError
from failpath_otel.events.step import StepError
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.error_counts import ErrorDelta
from failpath_otel.server.store.migration import to_2
from failpath_otel.server.store.migration.runner import STEPS
from failpath_otel.server.store.tables import SCHEMA_VERSION

db, postgres_url, query = databases.db, databases.postgres_url, databases.query


def events_of_many_runs():
    chance = random.Random(11)
    events = []
    for number in range(40):
        at = number * 10
        for step in "abz":
            status = chance.choice(["success", "error", "skipped", "running"])
            error = StepError("Declined", f"order {number}: {chance.choice(['no funds', 'expired'])}", "a stack")
            events.append(
                event(
                    step,
                    status,
                    at + 1,
                    run=f"r{number}",
                    started=None if status == "running" else at,
                    error=error if status == "error" else None,
                    metadata={"number": number},
                    service="shop",
                )
            )
    return events


def told(home):
    """All that the reads tell."""
    runs = home.queries.runs(limit=200).runs
    return (
        runs,
        home.queries.flows(),
        home.queries.flow("checkout", 1000),
        [home.queries.run("checkout", row.run_id) for row in runs],
        [home.queries.events("checkout", row.run_id) for row in runs],
    )


def filled(db, events):
    """What the reads tell of a database with these events, which is of version 1 afterwards."""

    async def story():
        async with house(db, flow_of("a", "b", "c")) as home:
            for start in range(0, len(events), 7):
                await home.tell(*events[start : start + 7])
            return told(home)

    before = run(story())
    bring_back(db)
    return before


def schema(db):
    store = Store.open(db)
    with store.write() as connection:
        found = inspect(connection)
        tables = {
            name: ([(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(name)],)
            for name in sorted(found.get_table_names())
        }
        # As the database has them: SQLAlchemy does not read back an index of an expression.
        listed = "SELECT name || ' ' || coalesce(sql, 'of a constraint') FROM sqlite_master WHERE type = 'index'"
        if connection.dialect.name == "postgresql":
            listed = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
        indexes = sorted(" ".join(sql.split()) for sql in connection.execute(text(listed)).scalars())
    store.close()
    return tables, indexes


def test_everything_is_there_after_the_start_and_duplicates_are_still_known(db, monkeypatch, caplog):
    # Private, and without another face: at its own size, several parts take more than 50,000 events.
    monkeypatch.setattr(to_2, "_AT_ONCE", 17)
    events = events_of_many_runs()
    before = filled(db, events)

    async def story():
        with caplog.at_level(logging.WARNING, "failpath_otel.server"):
            async with house(db, flow_of("a", "b", "c")) as home:
                assert told(home) == before
                assert len(before[2].errors) >= 4
                assert await home.tell(*events[:50], event("c", run="r3")) == (1, 50)
        said = [record.getMessage() for record in caplog.records]
        assert "is brought from schema version 1 to 2" in said[0]
        assert said[-1].endswith(f"has schema version {SCHEMA_VERSION} now")

    run(story())


def test_a_database_that_was_brought_on_has_the_tables_of_a_new_one(db, query, tmp_path):
    filled(db, events_of_many_runs()[:10])
    migrated = schema(db)
    if "://" in db:
        query("DROP SCHEMA public CASCADE")
        query("CREATE SCHEMA public")
    assert migrated == schema(db if "://" in db else str(tmp_path / "new.db"))


@pytest.mark.parametrize("steps", range(1, 4))
def test_a_start_that_was_cut_off_is_gone_on_with_by_the_next(tmp_path, monkeypatch, steps):
    monkeypatch.setattr(to_2, "_AT_ONCE", 40)  # private, as above
    db = str(tmp_path / "runs.db")
    before = filled(db, events_of_many_runs())
    left = iter(range(steps))
    write = ErrorDelta.write

    def cut_off(*arguments):
        if next(left, None) is None:
            raise OperationalError("COMMIT", {}, Exception("disk is full"))
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ErrorDelta, "write", cut_off)
        if steps < 3:
            with pytest.raises(ConfigError, match="disk is full"):
                Store.open(db)
        else:
            Store.open(db).close()

    async def story():
        async with house(db, flow_of("a", "b", "c")) as home:
            assert told(home) == before

    run(story())


def test_an_empty_database_and_one_of_today_say_nothing(db, caplog):
    with caplog.at_level(logging.WARNING, "failpath_otel.server"):
        Store.open(db).close()
        Store.open(db).close()
    assert caplog.records == []


def test_a_first_version_without_events_is_brought_on(db):
    Store.open(db).close()
    bring_back(db)

    async def story():
        async with house(db) as home:
            assert await home.tell(event("a", "error")) == (1, 0)
            assert home.queries.flow("checkout").errors[0].count == 1

    run(story())


def test_a_server_of_the_first_version_says_what_it_met(db, monkeypatch):
    Store.open(db).close()
    monkeypatch.setattr("failpath_otel.server.store.tables.SCHEMA_VERSION", 1)
    with pytest.raises(ConfigError, match=f"version {SCHEMA_VERSION}, this failpath-otel knows up to 1: upgrade failpath-otel"):
        Store.open(db)


def test_the_steps_lead_from_version_1_to_todays_without_a_gap():
    assert [step.to for step in STEPS] == list(range(2, SCHEMA_VERSION + 1))
