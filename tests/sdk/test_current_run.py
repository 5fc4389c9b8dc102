"""The current run: what threads, tasks and copied contexts see of it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import context

from failpath_otel import current_run
from failpath_otel.testing import RecordingClient


@pytest.fixture(autouse=True)
def no_run_is_left_current() -> Iterator[None]:
    assert current_run() is None
    yield
    left = current_run()
    if left is not None:
        context.attach(context.Context())
    assert left is None


class Surroundings:
    """Contexts in which a run is entered, each with a thing of its own in it: a run that was left must not keep them."""

    def __init__(self) -> None:
        self._things: list[weakref.ref[Surroundings]] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        thing = Surroundings()
        self._things.append(weakref.ref(thing))
        token = context.attach(context.set_value("thing", thing))
        try:
            yield
        finally:
            context.detach(token)

    @property
    def kept(self) -> int:
        gc.collect()
        return sum(thing() is not None for thing in self._things)


def test_a_run_is_current_within_its_block(client: RecordingClient) -> None:
    run = client.run("checkout", "1")
    with run as entered:
        assert entered is run
        assert current_run() is run
    assert current_run() is None


def test_a_run_is_current_within_its_async_block(client: RecordingClient) -> None:
    async def main() -> None:
        async with client.run("checkout", "1") as run:
            await asyncio.sleep(0)
            assert current_run() is run
        assert current_run() is None

    asyncio.run(main())


def test_runs_nest(client: RecordingClient) -> None:
    outer, inner = client.run("checkout", "1"), client.run("payment", "2")
    with outer:
        with inner:
            assert current_run() is inner
            with outer:
                assert current_run() is outer
            assert current_run() is inner
        assert current_run() is outer


def test_an_exception_leaves_the_block_and_takes_the_run_along(client: RecordingClient) -> None:
    with pytest.raises(ValueError, match="x"), client.run("checkout", "1"):
        raise ValueError("x")
    assert current_run() is None


def test_a_run_may_be_entered_again(client: RecordingClient) -> None:
    run = client.run("checkout", "1")
    for _ in range(2):
        with run:
            assert current_run() is run
        assert current_run() is None


def test_leaving_a_run_that_was_not_entered_does_nothing(client: RecordingClient) -> None:
    with client.run("checkout", "1") as outer:
        client.run("checkout", "2").__exit__(None, None, None)
        assert current_run() is outer


def test_threads_do_not_inherit_the_current_run(client: RecordingClient) -> None:
    with client.run("checkout", "1"):
        assert _in_thread(current_run) is None


def test_a_copied_context_carries_the_current_run_into_a_thread(client: RecordingClient) -> None:
    @client.step("charge")
    def charge() -> None: ...

    with client.run("checkout", "1") as run:
        copied = contextvars.copy_context()
        assert _in_thread(lambda: copied.run(current_run)) is run
        _in_thread(lambda: copied.run(charge))
    assert client.story("checkout") == "charge:success"


def test_asyncio_tasks_and_to_thread_inherit_the_current_run(client: RecordingClient) -> None:
    async def look() -> Any:
        await asyncio.sleep(0)
        return current_run()

    async def main() -> None:
        with client.run("checkout", "1") as run:
            task = asyncio.create_task(look())
            assert await asyncio.to_thread(current_run) is run
        assert current_run() is None
        assert await task is run

    asyncio.run(main())


def test_a_run_entered_in_a_task_is_not_current_elsewhere(client: RecordingClient) -> None:
    async def work(number: int) -> str:
        with client.run("checkout", number) as run:
            for _ in range(3):
                await asyncio.sleep(0)
                assert current_run() is run
            return run.run_id

    async def main() -> list[str]:
        done = await asyncio.gather(*(work(number) for number in range(5)))
        assert current_run() is None
        return done

    assert asyncio.run(main()) == ["0", "1", "2", "3", "4"]


def test_threads_that_share_a_run_each_leave_it_for_themselves(client: RecordingClient) -> None:
    """The first in is the first out; a pooled thread must not keep the run for the next job."""
    run = client.run("batch", "1")
    both_in, first_out = threading.Barrier(2), threading.Event()
    surroundings = Surroundings()

    def first() -> object:
        with surroundings(), run:
            both_in.wait(10)
        left = current_run()
        first_out.set()
        return left

    def second() -> object:
        with surroundings(), run:
            both_in.wait(10)
            assert first_out.wait(10)
            assert current_run() is run
        return current_run()

    with ThreadPoolExecutor(2) as pool:
        assert [job.result(10) for job in (pool.submit(first), pool.submit(second))] == [None, None]
        assert surroundings.kept == 0


def test_many_threads_share_a_run_without_losing_count(client: RecordingClient) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns as often as they can, so that each meets the others half-way
    run = client.run("batch", "1")
    surroundings = Surroundings()

    def work(_: int) -> object:
        with surroundings():
            for _ in range(100):
                with run:
                    run.step("item", lambda: None)
        return current_run()

    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(work, range(32))) == {None}
    finally:
        sys.setswitchinterval(before)
    assert surroundings.kept == 0
    assert len(client.events) == 32 * 100 * 2


def test_a_run_left_in_another_context_makes_no_noise(client: RecordingClient, caplog: pytest.LogCaptureFixture) -> None:
    """An asynchronous generator that another task closes leaves its blocks in that task's context."""

    async def main() -> None:
        async def values() -> AsyncIterator[int]:
            with client.run("checkout", "1"):
                yield 1

        generator: Any = values()

        async def begin() -> None:
            await generator.__anext__()

        await asyncio.create_task(begin())
        await asyncio.create_task(generator.aclose())
        assert current_run() is None

    asyncio.run(main())
    assert caplog.records == []


def test_a_step_block_within_the_run_block_keeps_the_run(client: RecordingClient) -> None:
    with client.run("checkout", "1") as run, run.step("outer"):
        assert current_run() is run
        with client.step("inner"):
            assert current_run() is run
    assert client.story("checkout") == "outer:success inner:success"


def test_a_decorated_step_belongs_to_the_client_of_the_run(client: RecordingClient) -> None:
    """So a module's decorators, made with the service's client, tell a test's client of that test's run."""
    service = RecordingClient(flows=False)

    @service.step("charge")
    def charge() -> None: ...

    with client.run("checkout", "1"):
        charge()
    assert client.story("checkout") == "charge:success"
    assert service.events == []


def _in_thread(work: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(10)
