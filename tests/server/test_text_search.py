"""The search for text: what it finds, that it finds all in the end, and that a call stays within its time."""

from __future__ import annotations

import math

import pytest
from sqlalchemy import event as of_engine
from support import databases
from support.story import all_pages, event, house, run

from failpath_otel.events.step import StepError
from failpath_otel.server.queries import bounded_scan, text_search
from failpath_otel.server.queries.cursor import BadQuery

db, postgres_url, query = databases.db, databases.postgres_url, databases.query


def found(home, q, **filters):
    return sorted(row.run_id for row in home.queries.runs(q=q, **filters).runs)


def test_text_is_found_in_ids_errors_and_values_of_metadata_of_any_event(db):
    async def story():
        async with house(db) as home:
            await home.tell(
                event("a", run="Needle-1"),
                event("a", run="in-the-middle-needle-of"),
                event("a", "error", run="by-name", error=StepError("NeedleError", "m")),
                event("a", "error", 1, run="by-healed-message", error=StepError("E", "x" * 600 + "a needle in it", "stack")),
                event("a", "success", 2, run="by-healed-message"),
                event("a", run="by-value", metadata={"k": {"deep": [1, "the nEEdle"]}}),
                event("b", run="by-value", metadata={"k": "nothing"}),
                event("a", run="by-name-of-a-value", metadata={"needle": "no"}),
                event("a", "error", run="by-stack", error=StepError("E", "m", "needle")),
                event("a", run="other"),
            )
            assert found(home, "needle") == sorted(
                ["Needle-1", "in-the-middle-needle-of", "by-name", "by-healed-message", "by-value"]
            )

    run(story())


@pytest.mark.parametrize(
    "text", ['say "hi"', "back\\slash", "100%_", "line\nbreak", "日本語", "\U0001f4a5", "tab\tand\x1f", "</script>", "Straße"]
)
def test_any_text_is_found_as_it_was_written(db, text):
    async def story():
        async with house(db) as home:
            await home.tell(
                event("a", run="value", metadata={"k": f"<{text}>"}),
                event("a", "error", run="message", error=StepError("E", f"<{text}>")),
                event("a", run=f"<{text}>"),
                event("a", run="none", metadata={"k": "say hi back slash 100 a日 b本 Strass"}),
            )
            assert found(home, text) == sorted(["value", "message", f"<{text}>"])

    run(story())


def test_numbers_are_found_and_names_of_values_and_words_of_json_are_not(db):
    async def story():
        async with house(db) as home:
            await home.tell(
                event("a", run="int", metadata={"order": 4711}),
                event("a", run="float", metadata={"amount": 4711.25}),
                event("a", run="flag", metadata={"paid": True, "why": None}),
            )
            assert found(home, "4711") == ["float", "int"]
            assert found(home, "11.2") == ["float"]
            assert found(home, "true") == found(home, "null") == found(home, "order") == found(home, '{"') == []

    run(story())


def test_filters_hold_for_what_is_found_by_id_and_for_what_is_found_by_going_through(db):
    async def story():
        async with house(db) as home:
            for name, at in (("x1", 1), ("x2", 2), ("y-x3", 3), ("y-x4", 4)):
                await home.tell(event("a", "error" if at % 2 else "success", at, run=name))
            await home.tell(event("a", "error", 5, run="x5", flow="other"))
            home.clock.at(500)
            assert found(home, "x", status="error") == ["x1", "x5", "y-x3"]
            assert found(home, "x", status="incomplete", flow="checkout") == ["x2", "y-x4"]
            assert found(home, "x", flow="other") == ["x5"]
            start = {row.run_id: row.started_at for row in home.queries.runs().runs}
            us = lambda name: int(start[name][17:19]) * 1_000_000 + 1_790_000_000 * 1_000_000 - base  # noqa: E731
            base = int(start["x1"][17:19]) * 1_000_000 - 1_000_000
            assert found(home, "x", since_us=us("x2"), until_us=us("y-x4")) == ["x2", "y-x3"]

    run(story())


def test_runs_whose_id_begins_with_the_text_come_first_and_no_run_comes_twice(db):
    async def story():
        async with house(db) as home:
            for number in range(10):
                await home.tell(event("a", at=number, run=f"order-{number}", metadata={"k": "order"}))
                await home.tell(event("a", at=number, run=f"my-order-{number}"))
            seen, _ = all_pages(home, q="order", limit=3)
            newest = [str(number) for number in reversed(range(10))]
            assert seen == [f"order-{n}" for n in newest] + [f"my-order-{n}" for n in newest]
            # A new run between two pages neither shifts nor doubles.
            page = home.queries.runs(q="order", limit=10)
            await home.tell(event("a", at=99, run="order-new", metadata={"k": "order"}))
            rest = home.queries.runs(q="order", limit=50, cursor=page.next_cursor)
            assert [row.run_id for row in rest.runs] == [f"my-order-{n}" for n in newest]

    run(story())


def test_where_many_ids_begin_with_the_text_the_one_that_equals_it_still_comes_first(db, monkeypatch):
    monkeypatch.setattr(text_search, "FEW", 3)

    async def story():
        async with house(db) as home:
            await home.tell(event("a", at=0, run="o"))
            await home.tell(*(event("a", at=1 + number, run=f"o{number}") for number in range(8)))
            seen, _ = all_pages(home, q="o", limit=3)
            assert seen == ["o", *(f"o{number}" for number in reversed(range(8)))]

    run(story())


def test_a_call_ends_in_its_time_says_how_far_it_came_and_goes_on_from_there(db, monkeypatch):
    monkeypatch.setattr(bounded_scan, "SECONDS", 0.0)  # over when the first look is

    async def story():
        async with house(db) as home:
            text = {number: "needle" if number in (2, 42, 82) else "" for number in range(200)}
            await home.tell(*(event("a", at=number, run=f"r{number}", metadata={"k": text[number]}) for number in text))
            page = home.queries.runs(q="needle")
            assert page.runs == []
            looked_at = [row.started_at for row in home.queries.runs(limit=200).runs].index(page.searched_to) + 1
            assert 0 < looked_at < 200 - 82
            assert page.next_cursor is not None
            seen, pages = all_pages(home, q="needle")
            assert (seen, pages) == (["r82", "r42", "r2"], math.ceil(200 / looked_at))
            last = home.queries.runs(q="needle", cursor=page.next_cursor)
            while last.next_cursor:
                last = home.queries.runs(q="needle", cursor=last.next_cursor)
            assert last.searched_to is None

    run(story())


@pytest.mark.parametrize("q", ["x" * 513, "a\0b"], ids=["too long", "a NUL"])
def test_text_that_cannot_be_looked_for_is_named(tmp_path, q):
    async def story():
        async with house(tmp_path / "runs.db") as home:
            with pytest.raises(BadQuery, match="q must be at most 512 characters without NUL"):
                home.queries.runs(q=q)

    run(story())


def test_a_cursor_of_another_list_is_refused(tmp_path):
    async def story():
        async with house(tmp_path / "runs.db") as home:
            await home.tell(*(event("a", run=f"r{number}") for number in range(5)))
            with pytest.raises(BadQuery, match="to the same question"):
                home.queries.runs(cursor=home.queries.runs(q="r", limit=2).next_cursor)
            with pytest.raises(BadQuery, match="to the same question"):
                home.queries.runs(q="r", cursor=home.queries.runs(limit=2).next_cursor)

    run(story())


def test_ids_are_looked_for_by_the_index_of_ids(tmp_path):
    plans = []

    async def story():
        async with house(tmp_path / "runs.db") as home:
            await home.tell(event("a"))

            def explain(connection, cursor, statement, parameters, context, many):
                if "run_key >=" in statement:
                    plans.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

            with home.store.read() as connection:
                of_engine.listen(connection.engine, "before_cursor_execute", explain)
            for flow in (None, "checkout"):
                home.queries.runs(flow, q="r")

    run(story())
    assert sum("runs_by_key (flow_id=? AND run_key>? AND run_key<?)" in plan for plan in plans) == 4, plans
