"""``run.step(key, fn)``: the value passes through, the events tell what happened."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Generator
from typing import Any

import pytest
from opentelemetry import trace
from support.tracing import Tracing, ids_are_consistent, told

from failpath_otel import current_run
from failpath_otel.testing import RecordingClient


def test_a_functions_value_is_passed_through(client: RecordingClient) -> None:
    value = object()
    assert client.run("checkout", "1").step("charge", lambda: value) is value
    assert told(client.events) == ["charge:running", "charge:success"]


def test_running_is_recorded_before_the_function_is_called(client: RecordingClient) -> None:
    seen = client.run("checkout", "1").step("charge", lambda: told(client.events))
    assert seen == ["charge:running"]


def test_the_two_events_of_an_attempt_share_ids_and_the_outcome_carries_the_start(client: RecordingClient) -> None:
    client.run("checkout", "1").step("charge", lambda: None)
    start, end = client.events
    assert ids_are_consistent(client.events)
    assert (start.trace_id, start.span_id) == (end.trace_id, end.span_id)
    assert start.started_at is None
    assert end.started_at == start.timestamp
    assert end.timestamp >= start.timestamp
    assert (end.flow_key, end.run_id, end.service) == ("checkout", "1", "shop")


def test_a_coroutine_function_gives_an_awaitable_and_ends_when_that_is_awaited(client: RecordingClient) -> None:
    async def main() -> None:
        async def charge() -> str:
            await asyncio.sleep(0)
            return "paid"

        pending = client.run("checkout", "1").step("charge", charge)
        assert told(client.events) == ["charge:running"]
        assert await pending == "paid"

    asyncio.run(main())
    assert told(client.events) == ["charge:running", "charge:success"]


def test_a_lambda_that_returns_a_coroutine_is_awaited_as_well(client: RecordingClient) -> None:
    async def create(cart: int) -> int:
        return cart * 2

    async def main() -> int:
        return await client.run("checkout", "1").step("create-order", lambda: create(21))

    assert asyncio.run(main()) == 42
    assert told(client.events) == ["create-order:running", "create-order:success"]


def test_a_task_and_a_future_are_awaited_as_well(client: RecordingClient) -> None:
    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        run = client.run("checkout", "1")
        future = loop.create_future()
        loop.call_soon(future.set_result, 1)
        first = await run.step("future", lambda: future)
        return first, await run.step("task", lambda: loop.create_task(asyncio.sleep(0, 2)))

    assert asyncio.run(main()) == (1, 2)
    assert told(client.events) == ["future:running", "future:success", "task:running", "task:success"]


def test_an_object_of_ones_own_with_await_is_awaited_as_well(client: RecordingClient) -> None:
    class Later:
        def __await__(self) -> Generator[Any, None, str]:
            yield from asyncio.sleep(0).__await__()
            return "later"

    async def main() -> str:
        return await client.run("checkout", "1").step("later", Later)

    assert asyncio.run(main()) == "later"
    assert told(client.events) == ["later:running", "later:success"]


def test_a_coroutine_that_raises_ends_the_step_as_error(client: RecordingClient) -> None:
    failure = ValueError("declined")

    async def charge() -> None:
        raise failure

    async def main() -> None:
        with pytest.raises(ValueError, match="declined") as caught:
            await client.run("checkout", "1").step("charge", charge)
        assert caught.value is failure

    asyncio.run(main())
    assert told(client.events) == ["charge:running", "charge:error"]


def test_steps_gathered_at_once_keep_their_own_spans(client: RecordingClient, tracing: Tracing) -> None:
    async def work(name: str) -> str:
        await asyncio.sleep(0)
        with tracing.tracer.start_as_current_span(f"inside-{name}"):
            await asyncio.sleep(0)
        return name

    async def main() -> list[str]:
        run = client.run("checkout", "1")
        return await asyncio.gather(*(run.step(name, functools.partial(work, name)) for name in "abc"))

    assert asyncio.run(main()) == ["a", "b", "c"]
    for name in "abc":
        step = tracing.named(f"checkout/{name}")
        inside = tracing.named(f"inside-{name}")
        assert step.parent is None
        assert inside.parent is not None
        assert inside.parent.span_id == step.context.span_id


def test_the_callers_context_is_current_between_the_call_and_the_await(client: RecordingClient, tracing: Tracing) -> None:
    async def main() -> None:
        async def inner() -> int:
            return trace.get_current_span().get_span_context().span_id

        with tracing.tracer.start_as_current_span("caller") as caller:
            pending = client.run("checkout", "1").step("charge", inner)
            assert trace.get_current_span() is caller
            inside = await pending
            assert trace.get_current_span() is caller
        assert inside == tracing.named("checkout/charge").context.span_id

    asyncio.run(main())


def test_a_task_cancelled_in_a_step_ends_it_as_error(client: RecordingClient) -> None:
    async def main() -> None:
        started = asyncio.Event()

        async def charge() -> None:
            started.set()
            await asyncio.Event().wait()

        async def work() -> None:
            await client.run("checkout", "1").step("charge", charge)

        task = asyncio.create_task(work())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    error = client.events[-1].error
    assert told(client.events) == ["charge:running", "charge:error"]
    assert error is not None
    assert error.name == "CancelledError"


def test_a_step_that_times_out_is_an_error_and_the_next_one_is_not(client: RecordingClient) -> None:
    async def main() -> None:
        run = client.run("checkout", "1")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run.step("slow", asyncio.Event().wait), timeout=0.01)
        await run.step("next", lambda: asyncio.sleep(0))

    asyncio.run(main())
    assert told(client.events) == ["slow:running", "slow:error", "next:running", "next:success"]


def test_steps_nest(client: RecordingClient, tracing: Tracing) -> None:
    run = client.run("checkout", "1")
    run.step("outer", lambda: run.step("inner", lambda: None))
    assert told(client.events) == ["outer:running", "inner:running", "inner:success", "outer:success"]
    inner = tracing.named("checkout/inner")
    assert inner.parent is not None
    assert inner.parent.span_id == tracing.named("checkout/outer").context.span_id


def test_a_step_tried_twice_is_two_attempts(client: RecordingClient) -> None:
    run = client.run("checkout", "1")
    with pytest.raises(TimeoutError):
        run.step("charge", _raising(TimeoutError()))
    run.step("charge", lambda: None)
    assert client.story("checkout") == "charge:error(TimeoutError),success"


def test_a_value_that_says_it_has_anything_is_no_awaitable(client: RecordingClient) -> None:
    class Yes:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    value = Yes()
    assert client.run("checkout", "1").step("charge", lambda: value) is value
    assert told(client.events) == ["charge:running", "charge:success"]


def test_what_is_not_callable_is_the_functions_error(client: RecordingClient) -> None:
    with pytest.raises(TypeError, match="not callable"):
        client.run("checkout", "1").step("charge", 5)  # type: ignore[call-overload]
    assert client.story("checkout") == "charge:error(TypeError)"


def test_a_step_does_not_change_the_current_run(client: RecordingClient) -> None:
    run = client.run("checkout", "1")
    assert run.step("charge", current_run) is None


def test_threads_may_share_a_run(client: RecordingClient) -> None:
    run = client.run("checkout", "1")
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait(10)
        for _ in range(50):
            run.step(f"step-{number}", lambda: None)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.events) == 8 * 50 * 2
    assert ids_are_consistent(client.events)


def _raising(error: BaseException) -> Any:
    def raises() -> None:
        raise error

    return raises


def test_a_lazy_value_is_passed_through_without_being_asked_for_anything(client: RecordingClient) -> None:
    """Lazy proxies, such as Django's, do their work when their ``__class__`` is looked at."""

    class Lazy:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(f"{name} was asked for")

    value = Lazy()
    assert client.run("checkout", "1").step("charge", lambda: value) is value
    with client.run("checkout", "1"):
        assert client.step("decorated")(lambda: value)() is value
    assert client.story("checkout") == "charge:success decorated:success"
