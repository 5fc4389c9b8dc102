"""Threads and executors that see the current run."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.tracing import Tracing

from failpath_otel import ContextExecutor, current_run, with_context
from failpath_otel.testing import RecordingClient


def test_a_thread_and_an_executor_of_a_loop_see_the_run_that_handed_them_the_call(client: RecordingClient) -> None:
    @client.step("ship")
    def ship() -> None:
        pass

    async def main() -> None:
        await asyncio.get_running_loop().run_in_executor(None, with_context(ship))

    with client.run("checkout", "1"):
        thread = threading.Thread(target=with_context(ship))
        thread.start()
        thread.join()
        asyncio.run(main())
    assert client.story("checkout", "1") == "ship:success,success"


def test_calls_of_a_context_executor_are_steps_below_the_span_of_the_submitter(
    client: RecordingClient, tracing: Tracing
) -> None:
    both = threading.Barrier(2, timeout=20)

    @client.step("ship")
    def ship(order: int) -> int:
        both.wait()  # at once, which one context alone could not be entered for
        return order * 2

    parent = tracing.provider.get_tracer("service").start_as_current_span("POST /checkout")
    with client.run("checkout", "1"), parent as span, ContextExecutor(ThreadPoolExecutor(2)) as pool:
        assert list(pool.map(ship, [1, 2])) == [2, 4]
    assert client.story("checkout", "1") == "ship:success,success"
    parents = {each.parent.span_id for each in tracing.spans if each.name == "checkout/ship" and each.parent}
    assert parents == {span.get_span_context().span_id}


def test_the_run_is_that_of_the_moment_of_the_submission(client: RecordingClient) -> None:
    with ThreadPoolExecutor(1) as threads:
        pool = ContextExecutor(threads)
        with client.run("checkout", "1"):
            first = pool.submit(current_run)
        second = pool.submit(current_run)
        assert first.result() is not None
        assert second.result() is None


def test_a_coroutine_function_stays_one_and_each_of_its_steps_runs_in_the_context_that_was_taken(
    client: RecordingClient,
) -> None:
    @client.step("send-mail")
    async def send(order: int) -> int:
        await asyncio.sleep(0)
        run = current_run()
        assert run is not None
        return order * 2

    async def main() -> None:
        with client.run("checkout", "1"):
            later = with_context(send)
        assert inspect.iscoroutinefunction(later)
        assert await asyncio.gather(later(1), asyncio.create_task(later(2))) == [2, 4]
        assert current_run() is None

    asyncio.run(main())
    assert client.story("checkout", "1") == "send-mail:success,success"


def test_a_coroutine_function_sees_exceptions_and_cancellation_in_its_context(client: RecordingClient) -> None:
    seen: list[object] = []

    async def main() -> None:
        begun = asyncio.Event()

        async def waits() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                run = current_run()
                seen.append(run and run.run_id)
                raise

        async def fails() -> None:
            await asyncio.sleep(0)
            raise KeyError("x")

        with client.run("checkout", "1"):
            task = asyncio.create_task(with_context(waits)(), name="own")
            failing = with_context(fails)
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        with pytest.raises(KeyError, match="x"):
            await failing()

    asyncio.run(main())
    assert seen == ["1"]


def test_a_function_keeps_its_name_value_and_exception(client: RecordingClient) -> None:
    def fails() -> None:
        raise KeyError("x")

    wrapped = with_context(fails)
    assert wrapped.__name__ == "fails"
    with pytest.raises(KeyError, match="x"):
        wrapped()


def test_an_object_whose_call_is_a_coroutine_function_becomes_one(client: RecordingClient) -> None:
    """As a background task of Starlette, which would call a function that is none in a thread, and drop the coroutine."""

    class Mail:
        async def __call__(self, order: int) -> int:
            await asyncio.sleep(0)
            assert current_run() is not None
            return order

    with client.run("checkout", "1"):
        mail = with_context(Mail())
    assert inspect.iscoroutinefunction(mail)
    assert asyncio.run(mail(7)) == 7
