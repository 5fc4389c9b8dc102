"""The one way in: acknowledged is durable, duplicates are known, bad neighbours do no harm."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import textwrap

import pytest
from support import databases
from support.story import Clock, event, eventually, flow_of, house, run

from failpath_otel.flows import Flows
from failpath_otel.server.store.database import Store

db, postgres_url, query = databases.db, databases.postgres_url, databases.query

STEPS = ("a", "b", "c")


def test_an_acknowledged_event_is_read_by_others_at_once(db, query):
    async def story():
        async with house(db) as home:
            assert await home.tell(event("a"), event("b")) == (2, 0)
            assert query("SELECT count(*) FROM events") == [(2,)]

    run(story())


def test_duplicates_are_counted_exactly_within_a_submission_beside_it_and_later(db, query):
    first, second, third = event("a"), event("b"), event("c")

    async def story():
        async with house(db) as home:
            assert await home.tell(first, first, second) == (2, 1)
            answers = await asyncio.gather(home.tell(second, third), home.tell(third, first))
            assert [sum(part) for part in zip(*answers, strict=True)] == [1, 3]
            counts = home.ingest.intake()
            assert (counts.accepted, counts.duplicates) == (3, 4)

    run(story())
    assert query("SELECT count(*) FROM events") == [(3,)]


def test_duplicates_are_known_after_a_restart(db):
    events = [event("a"), event("b")]

    async def story():
        async with house(db) as home:
            await home.tell(*events)
        async with house(db) as home:
            assert await home.tell(*events, event("c")) == (1, 2)

    run(story())


def test_the_first_arrival_of_an_event_id_wins_within_its_run_and_steps_that_only_duplicates_name_never_existed(db, query):
    async def story():
        async with house(db) as home:
            await home.tell(event("a", event_id="same"))
            assert await home.tell(event("new-step", event_id="same"), event("x", event_id="same", flow="x")) == (1, 1)
            assert [node.step_key for node in home.queries.flows().flows[0].nodes] == ["a", "b", "c"]
            # What only duplicates named must not get in the way of what comes next, also after a restart.
            await home.tell(event("b", run="third", flow="third"))
        async with house(db) as home:
            await home.tell(event("a", run="fourth", flow="fourth"), event("c", run="third", flow="third"))
            assert [row.flow_key for row in home.queries.runs().runs if row.run_id == row.flow_key] == ["fourth", "third"]

    run(story())
    assert query("SELECT count(*) FROM runs") == [(4,)]


def test_one_event_id_in_several_runs_is_an_event_of_each(db):
    async def story():
        async with house(db) as home:
            same = [event("a", event_id="same", run=f"r{number}") for number in range(3)]
            assert await home.tell(*same, same[0], event("b", event_id="same", run="r1")) == (3, 2)
            assert await home.tell(*same) == (0, 3)
            assert [[one.event_id for one in home.queries.events("checkout", f"r{n}").events] for n in range(3)] == [
                ["same"]
            ] * 3

    run(story())


def test_arrival_order_cuts_and_restarts_do_not_change_what_is_known(db, query):
    """Whatever the order, the batches and the restarts between them: runs, counts and statistics are the same."""
    chance = random.Random(7)
    events = []
    for number in range(12):
        for step in chance.sample(STEPS, k=chance.randint(1, 3)):
            for attempt in range(chance.randint(1, 2)):
                span = f"{number}-{step}-{attempt}"
                # Runs begin apart: among those that begin at once a list goes by arrival.
                start = number * 100 + attempt * 10
                end = start + chance.randint(1, 9)
                events.append(event(step, "running", start, run=f"r{number}", span=span, event_id=f"{span}-start"))
                status = chance.choice(["success", "error", "skipped"])
                events.append(event(step, status, end, run=f"r{number}", span=span, started=start, event_id=f"{span}-end"))

    tables = ("run_counts", "run_durations", "step_durations")

    async def story(order, restarts):
        for cut in range(0, len(order), max(1, len(order) // restarts)):
            async with house(db, clock=Clock()) as home:
                part = order[cut : cut + max(1, len(order) // restarts)]
                for at in range(0, len(part), 5):
                    await home.tell(*part[at : at + 5])
        async with house(db) as home:
            runs = home.queries.runs(limit=200).runs
            details = [home.queries.run("checkout", row.run_id) for row in runs]
            flows = home.queries.flows()
        # Ids of steps follow arrival, so statistics are compared by their sums.
        sums = [
            sorted(query(f"SELECT {'bucket' if 'dur' in t else 'stands'}, sum(n) FROM {t} GROUP BY 1 HAVING sum(n) <> 0"))
            for t in tables
        ]
        for table in ("events", "runs", "flows", "steps", *tables):
            query(f"DELETE FROM {table}")
        return sorted(runs, key=lambda row: row.run_id), sorted(details, key=lambda row: row.run_id), flows, sums

    once = run(story(events, 1))
    shuffled = [*events, *chance.sample(events, 20)]
    chance.shuffle(shuffled)
    assert run(story(shuffled, 4)) == once


def test_a_run_that_was_forgotten_is_read_again(db, monkeypatch):
    monkeypatch.setattr("failpath_otel.server.store.run_cache.RunCache.get", lambda self, key: None)

    async def story():
        async with house(db) as home:
            await home.tell(event("a", "running", 1, span="s"))
            await home.tell(event("a", "success", 3, span="s", started=1), event("b"), event("c"))
            (row,) = home.queries.runs().runs
            assert (row.status, row.duration_ms, row.steps.success) == ("success", 3000.0, 3)

    run(story())


def test_a_run_reported_in_parts_counts_once_in_the_statistics(db):
    async def story():
        async with house(db) as home:
            for step in STEPS:
                await home.tell(event(step, "success", 5, started=1))
            (flow,) = home.queries.flows().flows
            assert (flow.stats.runs, flow.stats.success, flow.stats.p95_ms) == (1, 1, pytest.approx(4000, rel=0.05))

    run(story())


def test_kill_9_loses_nothing_acknowledged_and_leaves_runs_as_their_events_say(tmp_path):
    """A process that prints what was acknowledged is killed while it writes."""
    code = textwrap.dedent(
        """
        import asyncio, sys
        from support.story import event, house
        async def main():
            async with house(sys.argv[1]) as home:
                async def sender(name):
                    for number in range(10**6):
                        batch = [event(step, run=f"{name}-{number}", event_id=f"{name}-{number}-{step}") for step in "abc"]
                        await home.tell(*batch)
                        print(*(one.event_id for one in batch), flush=True)
                await asyncio.gather(*(sender(name) for name in "xyz"))
        asyncio.run(main())
        """
    )
    path = tmp_path / "runs.db"
    acknowledged: set[str] = set()
    for round_ in range(3):
        script = code.replace('"xyz"', repr([f"{name}{round_}" for name in "xyz"]))
        environment = {"PYTHONPATH": ":".join(sys.path)}
        with subprocess.Popen(
            [sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            for _, line in zip(range(60), process.stdout, strict=False):
                acknowledged.update(line.split())
            process.kill()
            acknowledged.update(" ".join(line for line in process.stdout if line.endswith("\n")).split())
    assert len(acknowledged) >= 3 * 60 * 3
    store = Store.open(path)
    with store.read() as connection:
        stored = {row[0] for row in connection.exec_driver_sql("SELECT event_id FROM events")}
        runs = connection.exec_driver_sql("SELECT stands, count(*) FROM runs GROUP BY 1 ORDER BY 1").fetchall()
        counted = connection.exec_driver_sql("SELECT stands, n FROM run_counts WHERE n > 0 ORDER BY 1").fetchall()
    store.close()
    assert acknowledged <= stored
    assert runs == counted == [(2, len(stored) / 3)]


def test_runs_are_judged_again_when_the_flows_file_changed(db, monkeypatch):
    monkeypatch.setattr("failpath_otel.server.store.writer.Writer.rejudge.__defaults__", (2,))

    async def story():
        two, three = flow_of("a", "b"), flow_of("a", "b", "c")
        async with house(db, two) as home:
            for number in range(7):
                await home.tell(event("a", run=f"r{number}"), event("b", run=f"r{number}"))
            await home.tell(event("a", flow="other"))
        for flows, status in ((three, "incomplete"), (three, "incomplete"), (two, "success"), (Flows(), "success")):
            async with house(db, flows) as home:
                home.clock.at(1000)
                await eventually(lambda status=status, home=home: len(home.queries.runs("checkout", status).runs) == 7)
                assert getattr(stats_of(home, "checkout"), status) == stats_of(home, "checkout").runs == 7
                assert stats_of(home, "other").success == 1
        async with house(db, three) as home:
            home.clock.at(1000)
            await home.tell(event("c", run="r3"))
            await eventually(lambda: len(home.queries.runs("checkout", "incomplete").runs) == 6)
            assert [row.run_id for row in home.queries.runs("checkout", "success").runs] == ["r3"]

    run(story())


def stats_of(home, slug):
    return next(flow.stats for flow in home.queries.flows().flows if flow.slug == slug)


def test_intake_counts_what_was_no_event(tmp_path):
    async def story():
        async with house(tmp_path / "runs.db") as home:
            home.ingest.count("unmapped", 3)
            home.ingest.count("rejected")
            home.ingest.count("incomplete", 0)
            counts = home.ingest.intake()
            assert (counts.unmapped, counts.rejected, counts.incomplete, counts.accepted) == (3, 1, 0, 0)
            assert counts.last_arrival_at

    run(story())
