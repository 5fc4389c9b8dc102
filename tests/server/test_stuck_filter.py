"""The list of runs that are stuck: which these are follows from the clock, so runs are gone through."""

from __future__ import annotations

import math

from support import databases
from support.story import all_pages, event, house, run

from failpath_otel.server.queries import bounded_scan

db, postgres_url, query = databases.db, databases.postgres_url, databases.query


def listed(home, **filters):
    return [row.run_id for row in home.queries.runs(status="stuck", **filters).runs]


def test_runs_with_a_step_that_runs_for_too_long_are_listed_and_no_others(db):
    async def story():
        async with house(db) as home:
            await home.tell(*(event("a", at=1, started=0.9, run=f"done{n}") for n in range(20)))
            await home.tell(
                event("a", "running", 0, run="by its own percentile"),
                event("b", "running", 0, run="not yet by the default"),
                event("b", "running", 30, run="under way"),
                event("a", "running", 0, run="failed as well"),
                event("b", "error", 0, run="failed as well"),
            )
            home.clock.at(11)
            assert listed(home) == ["by its own percentile"]
            home.clock.at(61)
            assert listed(home) == ["not yet by the default", "by its own percentile"]
            assert listed(home, flow="another") == []
            assert listed(home, q="DEFAULT") == listed(home, q="not") == ["not yet by the default"]
            await home.tell(event("b", "success", 62, run="not yet by the default", started=0))
            assert listed(home) == ["by its own percentile"]
            running = {row.run_id for row in home.queries.runs(status="running").runs}
            assert {"by its own percentile", "under way"} <= running

    run(story())


def test_every_stuck_run_comes_once_over_all_pages_though_most_are_not(db):
    async def story():
        async with house(db) as home:
            for number in range(150):
                began = event("a", at=number, run=f"r{number}")
                await home.tell(began, event("b", "running", 395 if number % 15 else number, run=f"r{number}"))
            home.clock.at(400)
            expected = [row.run_id for row in home.queries.runs(limit=200).runs if row.stuck]
            assert expected == [f"r{number}" for number in range(135, -1, -15)]
            for limit in (1, 3, 10, 50):
                assert all_pages(home, limit, status="stuck")[0] == expected

    run(story())


def test_a_call_ends_in_its_time_says_how_far_it_came_and_goes_on_from_there(db, monkeypatch):
    monkeypatch.setattr(bounded_scan, "SECONDS", 0.0)  # over when the first look is

    async def story():
        async with house(db) as home:
            await home.tell(*(event("a", "running", number / 4, run=f"r{number}") for number in range(200)))
            home.clock.at(60 + 10.5)  # the first 42 are stuck
            page = home.queries.runs(status="stuck")
            assert page.runs == []
            looked_at = [row.started_at for row in home.queries.runs(limit=200).runs].index(page.searched_to) + 1
            assert 0 < looked_at < 200 - 42
            assert page.next_cursor is not None
            seen, pages = all_pages(home, 50, status="stuck")
            assert (seen, pages) == ([f"r{number}" for number in reversed(range(42))], math.ceil(200 / looked_at))

    run(story())
