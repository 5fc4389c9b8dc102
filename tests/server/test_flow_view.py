"""A flow in one view: what it says of a window of runs is what the events of these runs say."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import databases
from support.story import event, flow_of, house, run

from failpath_otel.flows import Flows
from failpath_otel.server.queries.cursor import BadQuery

db, postgres_url, query = databases.db, databases.postgres_url, databases.query

STEPS = ("a", "b", "c", "x")  # x is not declared


@st.composite
def stories(draw):
    """The events of up to eight runs, and the moment at which they are looked at."""
    events = []
    for number in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, 3)) * 10
        for step in draw(st.lists(st.sampled_from(STEPS), max_size=5)):
            status = draw(st.sampled_from(["running", "success", "error", "skipped"]))
            at = start + draw(st.integers(0, 9))
            span = draw(st.sampled_from([None, ""]))
            started = None if status == "running" else draw(st.sampled_from([None, at - 1]))
            events.append(event(step, status, at, run=f"r{number}", span=span, started=started))
    return events, draw(st.sampled_from([35.0, 50.0, 500.0])), draw(st.integers(1, 10))


def naive(home, last):
    """The window by the details of each run, which are made of its events."""
    listed = home.queries.runs("checkout", limit=200).runs[:last]
    keys = [node.step_key for node in home.queries.flows().flows[0].nodes]
    grid = []
    for row in listed:
        detail = home.queries.run("checkout", row.run_id)
        cells = {step.step_key: "stuck" if step.stuck else step.status for step in detail.steps}
        grid.append((row.run_id, detail.status, detail.stuck, [cells.get(key, "missing") for key in keys], detail.first_error))
    return keys, grid


@settings(max_examples=40, deadline=None)
@given(stories())
def test_the_window_says_what_the_events_of_its_runs_say(story):
    events, moment, last = story

    async def told():
        with tempfile.TemporaryDirectory() as folder:
            async with house(Path(folder) / "runs.db", flow_of("a", "b", "c")) as home:
                await home.tell(*events)
                home.clock.at(moment)
                keys, grid = naive(home, last)
                found = home.queries.flow("checkout", last)
        assert [node.step_key for node in found.nodes] == keys
        assert [(row.run_id, row.status, row.stuck, row.cells, row.first_error) for row in found.runs] == grid
        for column, node in enumerate(found.nodes):
            cells = [row[3][column] for row in grid]
            counts = node.counts
            assert (counts.success, counts.error, counts.skipped, counts.missing) == tuple(
                cells.count(status) for status in ("success", "error", "skipped", "missing")
            )
            assert (counts.running, node.stuck) == (cells.count("running") + cells.count("stuck"), cells.count("stuck"))
            assert node.failed_first == sum(row[4] is not None and row[4].step_key == node.step_key for row in grid)
            assert node.reported == any(one.step_key == node.step_key for one in events)
        runs = {one.run_id for one in events}
        assert (found.window.asked, found.window.runs) == (last, min(last, len(runs)))
        assert (found.window.next_cursor is None) == (len(runs) <= last)

    asyncio.run(told())


def test_windows_follow_each_other_and_a_newer_run_shifts_none(db):
    async def story():
        async with house(db) as home:
            await home.tell(*(event("a", at=number // 3, run=f"r{number}") for number in range(20)))
            seen, cursor = [], None
            while True:
                found = home.queries.flow("checkout", 6, cursor)
                seen += [row.run_id for row in found.runs]
                assert (found.window.newest_at, found.window.oldest_at) == (
                    found.runs[0].started_at,
                    found.runs[-1].started_at,
                )
                cursor = found.window.next_cursor
                if cursor is None:
                    break
                await home.tell(event("a", at=99, run="new"))
            assert seen == [f"r{number}" for number in reversed(range(20))]
            assert home.queries.flow("checkout", 6).runs[0].run_id == "new"
            assert home.queries.flow("checkout").stats.runs == 21

    run(story())


def test_a_flow_of_which_nothing_came_shows_its_declared_steps_and_an_unknown_one_is_none(db):
    async def story():
        async with house(db, flow_of("a", "b", edges=[("a", "b")])) as home:
            found = home.queries.flow("checkout")
            assert [(node.step_key, node.label, node.reported, node.p95_ms) for node in found.nodes] == [
                ("a", "A", False, None),
                ("b", "B", False, None),
            ]
            assert [(edge.source, edge.target) for edge in found.edges] == [("a", "b")]
            assert (found.runs, found.window.newest_at, found.window.next_cursor, found.stats.runs) == ([], None, None, 0)
            assert home.queries.flow("other") is None
            await home.tell(event("z", flow="other"))
            assert home.queries.flow("other").discovered

    run(story())


@pytest.mark.parametrize("last", [0, -1, 1001])
def test_a_window_out_of_bounds_is_named(tmp_path, last):
    async def story():
        async with house(tmp_path / "runs.db") as home:
            with pytest.raises(BadQuery, match=f"last must be from 1 to 1000, got {last}"):
                home.queries.flow("checkout", last)
            # A cursor of a search for text is none of a window.
            await home.tell(*(event("a", run=f"r{n}") for n in range(3)))
            with pytest.raises(BadQuery, match="to the same question"):
                home.queries.flow("checkout", 2, home.queries.runs(q="r", limit=1).next_cursor)

    run(story())


def test_a_strip_tells_the_newest_runs_and_the_step_at_which_most_fail(db):
    async def story():
        async with house(db) as home:
            for number in range(40):
                await home.tell(event("a", at=number, run=f"r{number}", started=number - 0.5))
            await home.tell(event("c", "error", at=50, run="r5"), event("c", "error", at=50, run="r6"))
            await home.tell(event("b", "error", at=50, run="r7"), event("b", "running", 51, run="r39"))
            home.clock.at(500)
            flow = home.queries.flows().flows[0]
            assert [mark.run_id for mark in flow.recent] == [f"r{number}" for number in reversed(range(10, 40))]
            assert (flow.recent[0].status, flow.recent[0].stuck, flow.recent[0].duration_ms) == ("running", True, None)
            assert (flow.recent[1].status, flow.recent[1].duration_ms) == ("incomplete", 500.0)
            worst = flow.worst_step
            assert (worst.step_key, worst.label, worst.failed, worst.of) == ("c", "C", 2, 40)
            assert flow.never_reported == []

    run(story())


def test_steps_that_never_reported_are_named_also_before_anything_came(db):
    async def story():
        async with house(db) as home:
            assert home.queries.flows().flows[0].never_reported == ["a", "b", "c"]
            await home.tell(event("b"), event("z"))
            flow = home.queries.flows().flows[0]
            assert flow.never_reported == ["a", "c"]
            assert [(node.step_key, node.reported) for node in flow.nodes] == [
                ("a", False),
                ("b", True),
                ("c", False),
                ("z", True),
            ]
            assert flow.worst_step is None

    run(story())


def test_a_run_tells_the_last_good_one_before_it_its_edges_and_how_long_steps_may_take(db):
    async def story():
        async with house(db, flow_of("a", edges=[])) as home:
            for number in range(25):
                status = "error" if number % 5 == 0 else "success"
                await home.tell(event("a", status, at=number + 7, run=f"r{number}", started=number))
            detail = home.queries.run("checkout", "r21")
            assert (detail.last_good, detail.edges) == ("r19", [])
            (step,) = detail.steps
            assert (step.p50_ms, step.p95_ms) == (pytest.approx(7000, rel=0.05), pytest.approx(7000, rel=0.05))
            assert step.stuck_learned
            assert step.stuck_after_ms == pytest.approx(21_000, rel=0.05)
            assert home.queries.run("checkout", "r0").last_good is None
            await home.tell(event("z", "running", run="r1"))
            (_, late) = home.queries.run("checkout", "r1").steps
            assert (late.stuck_after_ms, late.stuck_learned, late.p95_ms) == (60_000, False, None)

    run(story())


def test_views_read_no_payloads(tmp_path):
    """A window comes from the rows of runs alone: without the table of events it still answers."""

    async def story():
        async with house(tmp_path / "runs.db", Flows()) as home:
            await home.tell(event("a", "error"), event("b", "running"))
            before = home.queries.flow("checkout")
            with home.store.write() as connection, connection.begin():
                connection.exec_driver_sql("ALTER TABLE events RENAME TO elsewhere")
            assert home.queries.flow("checkout") == before

    run(story())
