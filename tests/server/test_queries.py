"""The reads: lists with filters and pages, one run, its events, flows with their statistics."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import event as of_engine
from support import databases
from support.story import event, flow_of, house, run

from failpath_otel.errors import FailpathError
from failpath_otel.events.step import StepError
from failpath_otel.events.wire import to_wire
from failpath_otel.flows import Flows
from failpath_otel.server.queries.cursor import BadQuery, Cursor, decode_cursor, encode_cursor

db, postgres_url, query = databases.db, databases.postgres_url, databases.query


def ids(page):
    return [row.run_id for row in page.runs]


async def four_statuses(home):
    """A run of each status, as it stands 100 s into the story."""
    await home.tell(*(event(step, at=1, run="fine") for step in "abc"))
    await home.tell(event("a", "error", at=2, run="failed"))
    await home.tell(event("a", at=3, run="left off"))
    await home.tell(event("a", "running", at=90, run="busy"))
    home.clock.at(100)
    await home.tell(event("a", at=99, run="fresh"))


def test_runs_are_newest_first_with_their_status(db):
    async def story():
        async with house(db) as home:
            await four_statuses(home)
            rows = home.queries.runs().runs
            assert [(row.run_id, row.status) for row in rows] == [
                ("fresh", "running"),
                ("busy", "running"),
                ("left off", "incomplete"),
                ("failed", "error"),
                ("fine", "success"),
            ]

    run(story())


def test_the_status_filter_agrees_with_the_rows_the_detail_and_the_statistics(db):
    async def story():
        async with house(db) as home:
            await four_statuses(home)
            every = home.queries.runs().runs
            (flow,) = home.queries.flows().flows
            for status in ("success", "error", "running", "incomplete"):
                expected = [row.run_id for row in every if row.status == status]
                assert ids(home.queries.runs(status=status)) == expected
                assert ids(home.queries.runs("checkout", status)) == expected
                assert getattr(flow.stats, status) == len(expected)
                assert all(home.queries.run("checkout", name).status == status for name in expected)
            assert flow.stats.runs == 5
            assert flow.stats.last_run_at == every[0].started_at

    run(story())


def test_a_waiting_run_becomes_incomplete_by_the_clock_alone(db):
    async def story():
        async with house(db) as home:
            await home.tell(event("a"))
            for seconds, status in ((29, "running"), (30, "running"), (31, "incomplete")):
                home.clock.at(seconds)
                (row,) = home.queries.runs().runs
                assert row.status == status
                assert ids(home.queries.runs(status=status)) == ["r1"]
                assert getattr(home.queries.flows().flows[0].stats, status) == 1
                assert (row.ended_at is None) == (status == "running")

    run(story())


def test_a_list_row_tells_counts_times_and_the_first_error(db):
    error = StepError("CardDeclined", "x" * 600, "a stack")

    async def story():
        async with house(db) as home:
            await home.tell(
                event("a", at=2, started=1),
                event("b", "error", at=5, started=3, error=StepError("Later", "")),
                event("c", "error", at=4, started=3, error=error),
                event("d", "skipped", at=6, started=6),
            )
            (row,) = home.queries.runs().runs
            assert (row.steps.success, row.steps.error, row.steps.skipped, row.steps.missing) == (1, 2, 1, 0)
            assert (row.duration_ms, row.stuck, row.status) == (5000.0, False, "error")
            assert (row.first_error.step_key, row.first_error.name, row.first_error.message) == ("c", "CardDeclined", "x" * 500)

    run(story())


def test_an_error_that_a_retry_healed_is_not_the_first_error(db):
    async def story():
        async with house(db) as home:
            await home.tell(event("a", "error", 1))
            await home.tell(event("a", "success", 2))
            (row,) = home.queries.runs().runs
            assert row.first_error is None

    run(story())


@pytest.mark.parametrize("filters", [{}, {"flow": "checkout"}, {"status": "success"}, {"q": "run"}], ids=str)
def test_pages_by_cursor_give_every_run_once_also_where_starts_are_equal(db, filters):
    async def story():
        async with house(db, flow_of("a", "b")) as home:
            for number in range(23):
                steps = "ab" if filters.get("status") else "ab"[: 1 + number % 2]
                await home.tell(*(event(step, at=number // 5, run=f"run{number}") for step in steps))
            seen, cursor = [], None
            for _ in range(20):
                page = home.queries.runs(limit=4, cursor=cursor, **filters)
                seen += [(row.started_at, row.run_id) for row in page.runs]
                cursor = page.next_cursor
                if cursor is None:
                    break
                if len(seen) == 8:
                    # A newer run does not shift the pages after the cursor.
                    await home.tell(event("a", at=99, run="run-new"), event("b", at=99, run="run-new"))
            assert len(seen) == len({run_id for _, run_id in seen}) == 23
            assert [start for start, _ in seen] == sorted((start for start, _ in seen), reverse=True)

    run(story())


def test_q_finds_part_of_a_run_id_and_takes_wildcards_as_text(db):
    async def story():
        async with house(db) as home:
            for name in ("order-100%", "ORDER-7", "a_b", "aXb", "back\\slash", "日本語/1"):
                await home.tell(event("a", run=name))
            find = lambda q: sorted(ids(home.queries.runs(q=q)))  # noqa: E731
            assert find("order") == ["ORDER-7", "order-100%"]
            assert find("%") == ["order-100%"]
            assert find("a_b") == ["a_b"]
            assert find("\\") == ["back\\slash"]
            assert find("本語/") == ["日本語/1"]
            assert find("nothing") == []

    run(story())


def test_filters_hold_together(db):
    async def story():
        async with house(db) as home:
            await home.tell(event("a", "error", run="x1"), event("a", "error", run="x2", flow="other"), event("a", run="x3"))
            assert ids(home.queries.runs("checkout", "error", "x")) == ["x1"]
            assert ids(home.queries.runs("no such flow")) == []

    run(story())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"status": "failed"}, "status must be one of success, error, running, stuck, incomplete, got 'failed'"),
        ({"limit": 0}, "limit must be from 1 to 200, got 0"),
        ({"limit": 201}, "limit must be from 1 to 200, got 201"),
        ({"cursor": "x"}, "cursor must be a nextCursor of an earlier answer to the same question, got 'x'"),
        ({"cursor": "ü"}, "cursor must be"),
        ({"cursor": "MTo5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"}, "cursor must be"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_used_is_named(tmp_path, arguments, message):
    async def story():
        async with house(tmp_path / "runs.db") as home:
            with pytest.raises(BadQuery, match=message) as raised:
                home.queries.runs(**arguments)
            assert isinstance(raised.value, FailpathError)

    run(story())


def test_a_cursor_comes_back_as_it_went():
    cursor = Cursor((-5, 7))
    assert decode_cursor(encode_cursor(cursor)) == cursor


def test_the_detail_tells_steps_attempts_and_reasons(db):
    async def story():
        async with house(db, flow_of("a", "b", "c", "d")) as home:
            await home.tell(event("d", run="another"))
            await home.tell(
                event(
                    "a", "running", 1, span="s1", metadata={"cart": 1, "kept": [1, {"x": None}]}, service="shop", trace_id="t1"
                ),
                event("a", "error", 2, span="s1", started=1, metadata={"cart": 2}, error=StepError("Declined", "no", "stack")),
                event("a", "error", 4, span="s2", started=3, service="shop"),
                event("b", "skipped", 5, started=5, skip_reason="opted out"),
                event("z", "running", 6),
            )
            home.clock.at(100)
            detail = home.queries.run("checkout", "r1")
            assert [(step.step_key, step.status, step.missing_reason) for step in detail.steps] == [
                ("a", "error", None),
                ("b", "skipped", None),
                ("c", "missing", "never_instrumented"),
                ("d", "missing", "upstream_error"),
                ("z", "running", None),
            ]
            a, b, c, _, z = detail.steps
            assert [(try_.attempt, try_.status, try_.duration_ms) for try_ in a.attempts] == [
                (1, "error", 1000.0),
                (2, "error", 1000.0),
            ]
            first = a.attempts[0]
            assert (first.metadata, first.service, first.trace_id) == ({"cart": 2, "kept": [1, {"x": None}]}, "shop", "t1")
            assert first.error == StepError("Declined", "no", "stack")
            assert (a.label, a.started_at, a.ended_at) == ("A", first.started_at, a.attempts[1].ended_at)
            assert (b.skip_reason, c.attempts, c.started_at) == ("opted out", [], None)
            assert (z.discovered, z.stuck, detail.stuck, detail.status) == (True, True, True, "error")
            assert (detail.counts.missing, detail.ended_at, detail.first_error.step_key) == (2, None, "a")

    run(story())


def test_stuck_is_shown_in_lists_and_healed_by_a_late_event(db):
    async def story():
        async with house(db) as home:
            await home.tell(event("a", "running", 0, span="s"))
            for seconds, stuck in ((59, False), (61, True)):
                home.clock.at(seconds)
                (row,) = home.queries.runs().runs
                assert (row.stuck, row.status, home.queries.run("checkout", "r1").stuck) == (stuck, "running", stuck)
                assert (row.stuck_step and row.stuck_step.step_key) == ("a" if stuck else None)
            await home.tell(event("a", "success", 70, span="s", started=0))
            assert not home.queries.runs().runs[0].stuck

    run(story())


def test_a_step_with_enough_samples_is_stuck_by_its_own_percentile(db):
    async def story():
        async with house(db) as home:
            await home.tell(*(event("a", at=1, started=0.9, run=f"r{n}") for n in range(20)))
            await home.tell(event("a", "running", 0, run="slow"), event("b", "running", 0, run="other step"))
            home.clock.at(11)
            assert {row.run_id for row in home.queries.runs().runs if row.stuck} == {"slow"}
            assert home.queries.run("checkout", "slow").stuck
            assert not home.queries.run("checkout", "other step").stuck

    run(story())


def test_events_come_back_as_they_came_by_time(db):
    events = [
        event(
            "b", "error", 3.000001, started=1, error=StepError("E", "m", "s"), metadata={"n": [1, "two", None]}, service="shop"
        ),
        event("a", "running", 1, trace_id="t" * 32),
        event("c", "skipped", 2, started=2, skip_reason="no need", metadata={"日": "本"}),
    ]

    async def story():
        async with house(db) as home:
            await home.tell(*events)
            found = home.queries.events("checkout", "r1").events
            assert found == [to_wire(one) for one in sorted(events, key=lambda one: one.timestamp)]
            assert home.queries.events("checkout", "none") is None
            assert home.queries.run("checkout", "none") is None
            assert home.queries.run("none", "r1") is None

    run(story())


def test_any_text_is_a_run_id(db):
    names = ["a/b/../c", "<script>", "x" * 512, "\u202ertl", "line\nbreak", "'; DROP TABLE runs;--", " ", "%s %(a)s ? :x"]

    async def story():
        async with house(db) as home:
            await home.tell(*(event("a", run=name, flow=name) for name in names))
            assert sorted(ids(home.queries.runs())) == sorted(names)
            for name in names:
                assert home.queries.run(name, name).run_id == name

    run(story())


def test_flows_show_declared_steps_in_order_and_discovered_ones_after(db):
    async def story():
        async with house(db, flow_of("b", "a", edges=[("a", "b")])) as home:
            assert home.queries.flows().flows[0].stats.last_run_at is None
            await home.tell(event("z"), event("y"), event("x", flow="another"))
            declared, found = home.queries.flows().flows
            assert [(node.step_key, node.discovered) for node in declared.nodes] == [
                ("a", False),
                ("b", False),
                ("z", True),
                ("y", True),
            ]
            assert [(edge.source, edge.target) for edge in declared.edges] == [("a", "b")]
            assert (declared.discovered, found.discovered, found.slug, found.stats.success) == (False, True, "another", 1)

    run(story())


def test_without_a_flows_file_everything_is_discovered(tmp_path):
    async def story():
        async with house(tmp_path / "runs.db", Flows()) as home:
            await home.tell(event("a"))
            assert [flow.discovered for flow in home.queries.flows().flows] == [True]
            assert home.queries.run("checkout", "r1").status == "success"

    run(story())


def test_durations_of_runs_are_known_within_five_percent(db):
    async def story():
        async with house(db) as home:
            for number in range(1, 101):
                await home.tell(*(event(step, at=number / 10, started=0, run=f"r{number}") for step in "abc"))
            stats = home.queries.flows().flows[0].stats
            assert (stats.p50_ms, stats.p95_ms) == (pytest.approx(5000, rel=0.05), pytest.approx(9500, rel=0.05))

    run(story())


def test_lists_do_not_read_payloads(tmp_path):
    """What lists show comes from the rows of runs alone: without the table of events they still answer."""
    import sqlite3

    async def story():
        async with house(tmp_path / "runs.db") as home:
            await home.tell(event("a", "error"), event("b", "running"))
            before = (home.queries.runs(), home.queries.flows())
            other = sqlite3.connect(tmp_path / "runs.db")
            other.execute("ALTER TABLE events RENAME TO elsewhere")
            other.commit()
            other.close()
            assert (home.queries.runs(), home.queries.flows()) == before

    run(story())


def test_lists_are_read_by_an_index(tmp_path):
    """No read of a list sorts or scans all runs: an index gives the newest of each state, and only these few are sorted."""
    plans = []

    async def story():
        async with house(tmp_path / "runs.db") as home:
            await four_statuses(home)

            def explain(connection, cursor, statement, parameters, context, many):
                if "FROM runs" in statement:
                    plans.append(cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall())

            with home.store.read() as connection:
                of_engine.listen(connection.engine, "before_cursor_execute", explain)
            for flow in (None, "checkout"):
                for status in (None, "success", "error", "running", "incomplete"):
                    home.queries.runs(flow, status)
                home.queries.runs(flow, since_us=1, until_us=2)
            home.queries.flows()
            home.queries.flow("checkout")
            home.queries.run("checkout", "busy")

    run(story())
    assert sum("runs_waiting" in step for plan in plans for *_, step in plan) == 4, plans
    for plan in plans:
        for _, parent, _, step in plan:
            assert not step.startswith("SCAN runs") or "USING" in step, plan
            beside = [other for _, its_parent, _, other in plan if its_parent == parent]
            # Only the few runs within the quiet window are sorted as they are read.
            if "TEMP B-TREE FOR ORDER" in step and "runs_waiting" not in str(beside):
                assert not any(" runs " in other for other in beside), plan


def test_every_answer_is_json_with_camel_case_names(tmp_path):
    async def story():
        async with house(tmp_path / "runs.db") as home:
            await home.tell(event("a", "error"))
            answers = (
                home.queries.flows(),
                home.queries.runs(),
                home.queries.run("checkout", "r1"),
                home.queries.events("checkout", "r1"),
            )
            for answer in answers:
                assert b"_" not in msgspec.json.encode(answer).replace(b"never_", b"").replace(b"not_", b"").replace(
                    b"upstream_", b""
                )

    run(story())
