"""What waits to be written: bounds, commits together, senders that go away, and the end."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support import databases
from support.story import event, house, run

from failpath_otel.server.store.ingest import Overloaded, StoreUnavailable
from failpath_otel.server.store.writer import Writer

db, postgres_url, query = databases.db, databases.postgres_url, databases.query


def _block(monkeypatch):
    """Holds the writer until the returned event is set."""
    gate = threading.Event()
    write = Writer.write

    def held(writer, submissions):
        gate.wait(60)
        return write(writer, submissions)

    monkeypatch.setattr(Writer, "write", held)
    return gate


def test_more_than_may_wait_is_refused_and_what_was_taken_is_stored(db, monkeypatch):
    async def story():
        async with house(db, max_waiting_events=3) as home:
            gate = _block(monkeypatch)
            taken = asyncio.create_task(home.tell(event("a"), event("b")))
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="2 events wait already, at most 3 may"):
                await home.tell(event("a"), event("b"))
            gate.set()
            assert await taken == (2, 0)
            assert await home.tell(event("a")) == (1, 0)

    run(story())


def test_a_submission_larger_than_the_bound_is_taken_when_nothing_waits(db):
    async def story():
        async with house(db, max_waiting_events=3) as home:
            assert await home.tell(*[event("a") for _ in range(10)]) == (10, 0)

    run(story())


def test_what_waits_together_is_committed_together(tmp_path, monkeypatch):
    sizes = []

    async def story():
        async with house(tmp_path / "runs.db") as home:
            gate = _block(monkeypatch)
            held = Writer.write
            monkeypatch.setattr(Writer, "write", lambda writer, parts: sizes.append(len(parts)) or held(writer, parts))
            submissions = [asyncio.create_task(home.tell(event("a"))) for _ in range(50)]
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*submissions)

    run(story())
    assert len(sizes) <= 2
    assert sum(sizes) == 50


def test_a_sender_that_went_away_does_no_harm(db, monkeypatch):
    async def story():
        async with house(db) as home:
            gate = _block(monkeypatch)
            gone = asyncio.create_task(home.tell(event("a")))
            await asyncio.sleep(0)
            gone.cancel()
            gate.set()
            assert await home.tell(event("b")) == (1, 0)

    run(story())


def test_close_commits_what_was_taken_and_refuses_more(db, query, monkeypatch):
    async def story():
        async with house(db) as home:
            gate = _block(monkeypatch)
            taken = [asyncio.create_task(home.tell(event("a"))) for _ in range(5)]
            await asyncio.sleep(0)
            closing = asyncio.create_task(home.ingest.close())
            await asyncio.sleep(0)
            with pytest.raises(StoreUnavailable):
                await home.tell(event("b"))
            gate.set()
            await closing
            assert await asyncio.gather(*taken) == [(1, 0)] * 5

    run(story())
    assert query("SELECT count(*) FROM events") == [(5,)]


def test_close_ends_within_its_bound_while_the_database_hangs(tmp_path, monkeypatch):
    async def story():
        async with house(tmp_path / "runs.db") as home:
            gate = _block(monkeypatch)
            taken = asyncio.create_task(home.tell(event("a")))
            await asyncio.sleep(0)
            await asyncio.wait_for(home.ingest.close(timeout_seconds=0.05), 30)
            assert not gate.is_set()
            assert not taken.done()
            gate.set()
            await taken

    run(story())
