"""What is old is deleted, wholly, and nothing else; ingest goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import event as of_engine
from support import databases
from support.story import Clock, event, eventually, house, run

from failpath_otel.cli.quantity import bytes_of, seconds_of
from failpath_otel.errors import ConfigError
from failpath_otel.server.settings import Settings
from failpath_otel.server.store import retention
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.retention import Retention, Sweeper

db, postgres_url, query = databases.db, databases.postgres_url, databases.query

HOUR = Retention(max_age_seconds=3600)


@pytest.fixture(autouse=True)
def rounds_without_pause(monkeypatch):
    monkeypatch.setattr(retention, "ROUND_SECONDS", 0.01)


def follow(home, listener):
    """Has ``listener`` called with the text of each statement that writes, before the database gets it."""

    def before(connection, cursor, statement, parameters, context, many):
        listener(statement)

    with home.store.write() as connection:
        of_engine.listen(connection.engine, "before_cursor_execute", before)


def keys(home):
    return {row.run_id for row in home.queries.runs(limit=200).runs}


def a_run(key, at=0.0):
    """A run of three steps: one well, one failed and tried again, one that runs."""
    return [
        event("a", "success", at + 3, run=key, started=at),
        event("b", "error", at + 5, run=key, started=at + 4),
        event("b", "success", at + 9, run=key, started=at + 6),
        event("c", "running", at + 9, run=key),
    ]


def test_runs_go_when_nothing_of_them_arrived_for_so_long_and_leave_no_trace_in_the_statistics(db, query, tmp_path):
    async def story():
        clock = Clock()
        async with house(db, clock=clock, retention=HOUR) as home:
            await home.tell(*a_run("old-1"), *a_run("old-2"), *a_run("long"))
            clock.at(3000)
            await home.tell(*a_run("young", 3000), event("c", "success", 3000, run="long", started=9))
            clock.at(3601)
            await eventually(lambda: keys(home) == {"young", "long"})
            await eventually(lambda: query("SELECT count(*) FROM events") == [(9,)])
            assert home.queries.run("checkout", "old-1") is None
            assert home.queries.events("checkout", "old-2") is None
            assert query("SELECT key FROM meta WHERE key = 'doomed'") == []
            left = home.queries.flows()
        async with house(tmp_path / "only-the-kept.db", clock=clock) as other:
            await other.tell(*a_run("long"))
            await other.tell(*a_run("young", 3000), event("c", "success", 3000, run="long", started=9))
            assert left == other.queries.flows()

    run(story())


def test_without_retention_nothing_is_deleted(db):
    async def story():
        clock = Clock()
        async with house(db, clock=clock) as home:
            await home.tell(*a_run("old"))
            clock.at(10**8)
            await home.tell(*a_run("new"))
            await home.tell(*a_run("newer"))  # what is due is done after each batch, so by now it would be
            assert keys(home) == {"old", "new", "newer"}
            assert Sweeper(home.store, Retention(), lambda: 10**14, lambda _: None).due_in() is None

    run(story())


def test_a_late_event_of_a_deleted_run_begins_it_anew(db):
    async def story():
        clock = Clock()
        async with house(db, clock=clock, retention=HOUR) as home:
            await home.tell(*a_run("r"))
            clock.at(4000)
            await eventually(lambda: not keys(home))
            assert await home.tell(event("c", "success", 20, run="r", started=9)) == (1, 0)
            found = home.queries.run("checkout", "r")
            assert found is not None
            assert [(step.step_key, step.status) for step in found.steps if step.attempts] == [("c", "success")]

    run(story())


def test_more_runs_than_a_step_takes_and_runs_larger_than_a_step_go_too(db, query):
    deletes = []

    async def story():
        clock = Clock()
        async with house(db, clock=clock, retention=HOUR) as home:
            await home.tell(*(one for number in range(1100) for one in a_run(f"old-{number}")))
            await home.tell(*(event("a", "success", at, run="large", started=0) for at in range(1, 2501)))
            follow(home, lambda statement: deletes.append(statement.split()[2]) if statement.startswith("DELETE") else None)
            clock.at(3700)
            await home.tell(*a_run("young", 3700))
            await eventually(lambda: query("SELECT count(*) FROM events") == [(4,)])
            assert keys(home) == {"young"}

    run(story())
    assert deletes.count("runs") > 2, "a step took all runs"
    assert deletes.count("events") > deletes.count("runs"), "a step took all events"


def test_a_long_lived_run_does_not_keep_what_came_after_it(db, query, monkeypatch):
    monkeypatch.setattr(retention, "FULL_ROUND_SECONDS", 0.0)
    long = [f"long-{number}" for number in range(1100)]  # more than are looked at in one step

    async def story():
        clock = Clock()
        async with house(db, clock=clock, retention=HOUR) as home:
            await home.tell(*(event("a", run=key) for key in long))
            await home.tell(*a_run("old"))
            clock.at(3000)
            await home.tell(*(event("c", "success", 3000, run=key, started=9) for key in long))
            clock.at(3700)
            await eventually(lambda: query("SELECT count(*) FROM runs") == [(len(long),)])
            assert home.queries.run("checkout", "old") is None

    run(story())


def test_deleting_goes_on_after_a_crash_in_its_midst_and_costs_no_new_run(db, query):
    async def story():
        clock = Clock()
        async with house(db, clock=clock, retention=HOUR) as home:
            deletes = []

            def fail_at_the_third(statement):
                if statement.startswith("DELETE FROM events"):
                    deletes.append(statement)
                    if len(deletes) > 2:
                        raise OSError("the disk is gone")

            follow(home, fail_at_the_third)
            await home.tell(*(event("a", "success", at, run="old", started=0) for at in range(1, 6001)))
            clock.at(3700 + 6000)
            await eventually(lambda: len(deletes) > 2)
        assert 0 < query("SELECT count(*) FROM events")[0][0] < 6000
        async with house(db, clock=clock, retention=HOUR) as home:
            await home.tell(*a_run("new", 3700))
            await eventually(lambda: query("SELECT count(*) FROM events") == [(4,)])
            assert keys(home) == {"new"}
            assert [len(step.attempts) for step in home.queries.run("checkout", "new").steps] == [1, 2, 1]

    run(story())


def test_senders_are_answered_while_old_runs_are_deleted(db, query):
    async def story():
        clock = Clock()
        async with house(db, clock=clock, retention=HOUR) as home:
            done = []
            deleting, sent = threading.Event(), threading.Event()

            def note(statement):
                if statement.startswith("DELETE FROM events"):
                    done.append("deleted")
                    deleting.set()
                    assert sent.wait(30)
                elif statement.startswith("INSERT INTO events"):
                    done.append("stored")

            await home.tell(*(event("a", "success", at, run="large", started=0) for at in range(1, 2501)))
            follow(home, note)
            clock.at(3700)
            assert await asyncio.to_thread(deleting.wait, 30)
            assert not keys(home)
            young = asyncio.ensure_future(home.tell(*a_run("young", 3700)))
            await asyncio.sleep(0)
            sent.set()
            assert await young == (4, 0)
            await eventually(lambda: query("SELECT count(*) FROM events") == [(4,)])
            assert done == ["deleted", "stored", "deleted"], "the sender waited until all was deleted"

    run(story())


def test_a_database_that_cannot_be_written_for_a_while_is_swept_later(db):
    async def story():
        clock = Clock()
        async with house(db, clock=clock, retention=HOUR) as home:
            failures = [OSError("no space left"), OSError("no space left")]

            def fail_twice(statement):
                if statement.startswith("DELETE FROM runs") and failures:
                    raise failures.pop()

            follow(home, fail_twice)
            await home.tell(*a_run("old"))
            clock.at(3700)
            await eventually(lambda: not keys(home))
            assert failures == []

    run(story())


def test_by_size_the_oldest_runs_go_and_the_file_becomes_shorter(tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "SPARE_PAGES", 20)
    db = tmp_path / "runs.db"
    large = "x" * 4000

    async def story():
        async with house(db, retention=Retention()) as home:
            for number in range(30):
                events = [event("a", run=f"r{number}-{i}", metadata={"text": large}) for i in range(40)]
                await home.tell(*events)
            full = home.store.used_bytes()
        before = db.stat().st_size
        most = full // 2
        async with house(db, retention=Retention(max_bytes=most)) as home:
            await eventually(lambda: home.store.used_bytes() <= most * retention.SHRINK_TO)
            left = {
                key
                for number in range(30)
                for i in range(40)
                if (key := f"r{number}-{i}") and home.queries.run("checkout", key)
            }
            newest = {f"r29-{i}" for i in range(40)}
            assert newest <= left
            assert "r0-0" not in left
            assert home.store.used_bytes() > most // 2, "far more was deleted than asked"
            await eventually(lambda: not home.store.shrink(0, keep=retention.SPARE_PAGES))
        # Closing writes the log into the file, which is only then cut.
        assert db.stat().st_size < before * 0.8

    run(story())


def test_free_pages_go_back_little_by_little_and_some_stay(tmp_path):
    store = Store.open(tmp_path / "runs.db")
    with store.write() as connection, connection.begin():
        connection.exec_driver_sql("CREATE TABLE filler (x)")
        connection.exec_driver_sql(
            "INSERT INTO filler WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) "
            "SELECT randomblob(8000) FROM n"
        )
        connection.exec_driver_sql("DELETE FROM filler")

    def free():
        with store.read() as connection:
            return connection.exec_driver_sql("PRAGMA freelist_count").scalar()

    before = free()
    assert store.shrink(50, keep=100)
    assert free() == before - 50
    for _ in range(100):
        if not store.shrink(50, keep=100):
            break
    assert free() == 100
    store.close()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("7d", 604_800), ("2 W", 1_209_600)])
def test_times_are_read_with_their_unit(text, seconds):
    assert seconds_of("--retain", text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("2GB", 2 * 10**9), ("1.5 GiB", 1_610_612_736), ("10b", 10)]
)
def test_sizes_are_read_with_their_unit(text, size):
    assert bytes_of("--max-size", text) == size


@pytest.mark.parametrize("text", ["7", "d", "-1d", "7y", "0d", "1e3d", "7d 3h", "٧d", "NaNd"])
def test_times_that_are_none_are_refused_by_name_and_value(text):
    with pytest.raises(ConfigError, match=r"^--retain must be a time such as 12h or 7d, .*got "):
        seconds_of("--retain", text)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"retain_seconds": 5}, "--retain must be at least 60 s, got 5 s"),
        ({"max_size_bytes": 4096}, "--max-size must be at least 10 MB, got 4096 bytes"),
        ({"max_size_bytes": 10**9, "db": "postgresql://x/y"}, "--max-size is for SQLite"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        Settings(**{"db": "x.db", **options})


def test_the_command_line_takes_both(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    start_server = request.getfixturevalue("start_server")
    server = start_server("--retain", "7d", "--max-size", "2GB")
    assert server.get("/healthz").status == 200
