"""Threads and executors that see the current run."""

from __future__ import annotations

import asyncio
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


def test_a_function_keeps_its_name_value_and_exception(client: RecordingClient) -> None:
    def fails() -> None:
        raise KeyError("x")

    wrapped = with_context(fails)
    assert wrapped.__name__ == "fails"
    with pytest.raises(KeyError, match="x"):
        wrapped()
