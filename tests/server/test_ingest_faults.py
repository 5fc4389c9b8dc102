"""What the way in does when the store cannot: bad events, outages, connections that are lost, the bound on what waits."""

from __future__ import annotations

import asyncio
import sqlite3

import msgspec
import pytest
from sqlalchemy.exc import DataError, OperationalError
from support import databases
from support.story import event, house, run

from failpath_otel.server.store.ingest import StoreUnavailable
from failpath_otel.server.store.statistics_delta import StatisticsDelta
from failpath_otel.server.store.writer import Writer

db, postgres_url, query = databases.db, databases.postgres_url, databases.query


@pytest.mark.parametrize("bad", [{"timestamp": 2**80}, {"run_id": "\ud800"}, {"service": {"no": "text"}}], ids=str)
def test_an_event_that_the_database_cannot_hold_is_rejected_alone(db, bad):
    events = [event("a", run=f"r{number}") for number in range(20)]
    poison = msgspec.structs.replace(event("b", event_id="poison"), **bad)

    async def story():
        async with house(db) as home:
            answers = await asyncio.gather(
                home.tell(*events[:5]), home.ingest.submit([*events[5:9], poison, *events[9:15]]), home.tell(*events[15:])
            )
            assert (answers[0], answers[2]) == ((5, 0), (5, 0))
            receipt = answers[1]
            assert (receipt.accepted, receipt.duplicates, list(receipt.rejected)) == (10, 0, ["poison"])
            assert "the database cannot hold this event" in receipt.rejected["poison"]
            assert len(home.queries.runs().runs) == 20
            assert home.ingest.intake().rejected == 1

    run(story())


@pytest.mark.parametrize("after", range(2, 7))
def test_a_store_that_goes_away_while_a_bad_submission_is_divided_has_it_sent_again(tmp_path, monkeypatch, after):
    """Whatever part the outage meets: nothing is rejected for it, and what was stored by then is a duplicate afterwards."""
    write, calls = Writer.write, []

    def write_until(self, submissions):
        calls.append(len(submissions[0]))
        if len(calls) >= after:
            raise OperationalError("INSERT", {}, Exception("disk is full"))
        return write(self, submissions)

    poison = msgspec.structs.replace(event("b", event_id="poison"), timestamp=2**80)
    events = [event("a", run=f"r{number}") for number in range(7)]

    async def story():
        async with house(tmp_path / "runs.db") as home:
            with monkeypatch.context() as patched:
                patched.setattr(Writer, "write", write_until)
                with pytest.raises(StoreUnavailable, match="disk is full"):
                    await home.ingest.submit([*events, poison])
            stored = len(home.queries.runs().runs)
            receipt = await home.ingest.submit([*events, poison])
            assert (receipt.accepted, receipt.duplicates, list(receipt.rejected)) == (7 - stored, stored, ["poison"])
            counts = home.ingest.intake()
            assert (counts.accepted, counts.rejected) == (7 - stored, 1)

    run(story())
    assert calls[:2] == [8, 4]


def test_a_nul_character_is_stored_or_rejected_never_an_outage(db):
    async def story():
        async with house(db) as home:
            receipt = await home.ingest.submit([event("a", run="x\0y"), event("a", run="fine")])
            assert receipt.accepted + len(receipt.rejected) == 2
            assert home.queries.run("checkout", "fine")

    run(story())


def test_a_locked_database_is_unavailable_for_now_and_loses_nothing_acknowledged(tmp_path, monkeypatch):
    monkeypatch.setattr("failpath_otel.server.store.database.BUSY_TIMEOUT_MILLIS", 50)
    path = tmp_path / "runs.db"

    async def story():
        async with house(path) as home:
            await home.tell(event("a", event_id="before"))
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked") as raised:
                await home.tell(event("b", event_id="during"))
            assert raised.value.retry_after > 0
            assert not home.queries.healthy()
            assert home.queries.run("checkout", "r1") is not None, "reads go on"
            other.execute("ROLLBACK")
            other.close()
            assert home.queries.healthy()
            assert await home.tell(event("b", event_id="during"), event("a", event_id="before")) == (1, 1)
            (row,) = home.queries.runs().runs
            assert row.steps.success == 2

    run(story())


def test_a_connection_that_is_lost_is_an_outage_whatever_the_driver_calls_it(tmp_path, monkeypatch):
    async def story():
        async with house(tmp_path / "runs.db") as home:
            with monkeypatch.context() as patched:
                lost = DataError("INSERT", {}, Exception("server closed the connection"), connection_invalidated=True)
                patched.setattr(Writer, "write", _raising(lost))
                with pytest.raises(StoreUnavailable, match="server closed the connection"):
                    await home.tell(event("a"))
            assert await home.tell(event("a")) == (1, 0)

    run(story())


def test_what_is_settled_makes_room_for_more(tmp_path, monkeypatch):
    """Stored, refused for now, or rejected: in each case the bound on what waits is free again."""

    async def story():
        async with house(tmp_path / "runs.db", max_waiting_events=3) as home:
            for number in range(4):
                assert await home.tell(*[event("a", run=f"r{number}") for _ in range(2)]) == (2, 0)
                poison = msgspec.structs.replace(event("b"), timestamp=2**80)
                assert len((await home.ingest.submit([poison, event("c")])).rejected) == 1
                with monkeypatch.context() as patched:
                    patched.setattr(Writer, "write", _raising(OperationalError("COMMIT", {}, Exception("disk is full"))))
                    with pytest.raises(StoreUnavailable):
                        await home.tell(event("a"), event("b"))
            # Together with one that waits, so many are too many only if all those before were still counted.
            assert await asyncio.gather(home.tell(event("a")), home.tell(event("b"), event("c"))) == [(1, 0), (2, 0)]

    run(story())


def test_tables_that_are_gone_are_an_outage_and_no_reason_to_reject(db, query):
    async def story():
        async with house(db) as home:
            query("ALTER TABLE events RENAME TO elsewhere")
            with pytest.raises(StoreUnavailable):
                await home.tell(event("a"), event("b"))
            query("ALTER TABLE elsewhere RENAME TO events")
            assert await home.tell(event("a")) == (1, 0)

    run(story())


def test_a_transaction_that_fails_at_its_end_leaves_nothing_behind_also_not_in_memory(db, query, monkeypatch):
    """The writer remembers runs, names and ids; what it learnt in a transaction that failed must be forgotten again."""

    async def story():
        async with house(db) as home:
            await home.tell(event("a"))
            with monkeypatch.context() as patched:
                patched.setattr(StatisticsDelta, "write", _raising(OperationalError("COMMIT", {}, Exception("disk is full"))))
                with pytest.raises(StoreUnavailable, match="disk is full"):
                    await home.tell(event("b", "error"), event("new", flow="new"))
            assert await home.tell(event("b"), event("other", flow="new")) == (2, 0)
            (row,) = home.queries.runs("checkout").runs
            assert (row.steps.success, row.steps.error) == (2, 0)
            assert [node.step_key for node in home.queries.flows().flows[1].nodes] == ["other"]

    run(story())
    assert query("SELECT count(*) FROM events") == [(3,)]


def _raising(error):
    def fail(*_):
        raise error

    return fail
