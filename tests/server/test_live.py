"""Which runs have news: numbered, gathered, resumable, bounded."""

from __future__ import annotations

import asyncio
import contextlib

from support.story import Clock, event, house, run

from failpath_otel.server.store.changes import Changes

QUICK = 0.01


def changes(**options):
    return Changes(coalesce_seconds=QUICK, clock=Clock(1_000_000_000), **options)


async def take(subscription, n):
    """The next changes as (id, run)."""
    found = [await asyncio.wait_for(anext_(subscription), 10) for _ in range(n)]
    return [(change.id, change.run_id) for change in found]


async def anext_(subscription):
    return await subscription.__anext__()


async def waiting(subscription):
    """The next change, asked for and not there yet."""
    task = asyncio.ensure_future(anext_(subscription))
    await asyncio.sleep(0)
    return task


def test_a_subscriber_sees_what_comes_after_it_each_run_once():
    async def story():
        news = changes()
        news.record([("f", "old")])
        subscription = news.subscribe()
        first = await waiting(subscription)
        news.record([("f", "a"), ("f", "b")])
        news.record([("f", "a")])
        assert (await first).run_id == "b"
        assert await take(subscription, 1) == [(1004, "a")]

    run(story())


def test_a_subscriber_that_comes_back_gets_what_it_missed():
    async def story():
        news = changes()
        news.record([("f", "a"), ("f", "b"), ("f", "c")])
        assert await take(news.subscribe(1001), 2) == [(1002, "b"), (1003, "c")]

    run(story())


def test_what_is_not_known_any_more_is_told_as_a_change_of_anything():
    async def story():
        news = changes(max_remembered=2)
        news.record([("f", "a"), ("f", "b"), ("f", "c")])
        assert await take(news.subscribe(1000), 3) == [(1001, None), (1002, "b"), (1003, "c")]
        assert await take(news.subscribe(7), 1) == [(1001, None)], "an id of an earlier process"
        assert await take(news.subscribe(9999), 1) == [(1003, None)], "an id of another server"

    run(story())


def test_ids_grow_across_restarts():
    clock = Clock()
    before = Changes(clock=clock)
    clock.at(1)
    assert Changes(clock=clock).last_id > before.last_id


def test_closing_ends_every_subscription():
    async def story():
        news = changes()
        waiters = [await waiting(news.subscribe()) for _ in range(3)]
        news.close()
        done = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 10)
        assert [type(one) for one in done] == [StopAsyncIteration] * 3
        assert [change async for change in news.subscribe()] == []

    run(story())


def test_the_writer_announces_after_commit_so_that_a_subscriber_reads_the_news(tmp_path):
    async def story():
        async with house(tmp_path / "runs.db", changes=Changes(coalesce_seconds=QUICK)) as home:
            subscription = home.changes.subscribe()
            first = await waiting(subscription)
            await home.tell(event("a", run="x"), event("b", run="x"), event("a", run="y"))
            found = [(await asyncio.wait_for(first, 10)).run_id, *(run_id for _, run_id in await take(subscription, 1))]
            assert found == ["x", "y"]
            assert home.queries.run("checkout", "x") is not None

    run(story())


def test_duplicates_are_no_news(tmp_path):
    async def story():
        async with house(tmp_path / "runs.db") as home:
            told = event("a")
            await home.tell(told)
            await asyncio.sleep(0)
            before = home.changes.last_id
            await home.tell(told)
            await asyncio.sleep(0)
            assert home.changes.last_id == before

    run(story())


def test_announcing_to_a_closed_loop_is_harmless():
    news = changes()
    loop = asyncio.new_event_loop()
    news.bind(loop)
    loop.close()
    with contextlib.nullcontext():
        news.announce([("f", "a")])
    assert news.last_id == 1000
