"""What a step's function returns passes through unchanged; the step ends when it does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import logging
import threading
import types
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from support.tracing import Tracing, told

from failpath_otel.testing import RecordingClient


class Declined(Exception):
    pass


async def later() -> str:
    await asyncio.sleep(0)
    return "paid"


def test_a_task_is_passed_through_and_ends_the_step_when_it_is_done(client: RecordingClient) -> None:
    async def main() -> None:
        task = asyncio.create_task(later())
        assert client.run("checkout", "1").step("charge", lambda: task) is task
        assert told(client.events) == ["charge:running"]
        assert await task == "paid"
        await asyncio.sleep(0)  # callbacks of a task run in the loop's next round

    asyncio.run(main())
    assert told(client.events) == ["charge:running", "charge:success"]


@pytest.mark.parametrize(("fail", "story"), [("raise", "charge:error(Declined)"), ("cancel", "charge:error(CancelledError)")])
def test_a_task_that_fails_or_is_cancelled_is_the_steps_error(client: RecordingClient, fail: str, story: str) -> None:
    async def charge() -> None:
        if fail == "raise":
            raise Declined
        await asyncio.Event().wait()

    async def main() -> None:
        task = client.run("checkout", "1").step("charge", lambda: asyncio.create_task(charge()))
        await asyncio.sleep(0)
        if fail == "cancel":
            task.cancel()
        with pytest.raises((Declined, asyncio.CancelledError)):
            await task
        await asyncio.sleep(0)

    asyncio.run(main())
    assert client.story("checkout") == story


def test_asyncio_still_tells_of_a_tasks_exception_that_nobody_retrieved(
    client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def charge() -> None:
        raise Declined

    async def main() -> None:
        client.run("checkout", "1").step("charge", lambda: asyncio.create_task(charge()))
        for _ in range(4):
            await asyncio.sleep(0)
        gc.collect()

    with caplog.at_level(logging.ERROR, "asyncio"):
        asyncio.run(main())
    assert "exception was never retrieved" in caplog.text
    assert client.story("checkout") == "charge:error(Declined)"


def test_a_future_of_a_thread_pool_ends_the_step_when_it_is_done(client: RecordingClient) -> None:
    gate = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = client.run("checkout", "1").step("charge", lambda: pool.submit(gate.wait, 20))
        assert isinstance(future, concurrent.futures.Future)
        assert told(client.events) == ["charge:running"]
        gate.set()
        assert future.result(20)
    assert told(client.events) == ["charge:running", "charge:success"]


def test_a_future_that_is_done_already_ends_the_step_at_once(client: RecordingClient) -> None:
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    future.set_exception(Declined())
    assert client.run("checkout", "1").step("charge", lambda: future) is future
    assert client.story("checkout") == "charge:error(Declined)"


def test_a_future_whose_loop_is_closed_passes_through_and_ends_the_step(client: RecordingClient) -> None:
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    assert client.run("checkout", "1").step("charge", lambda: future) is future
    assert client.story("checkout") == "charge:error(CancelledError)"


class FutureLike:
    """What asyncio takes for a future, by the attribute that it goes by; of another library, without ``get_loop``."""

    _asyncio_future_blocking = False

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], object]] = []

    def done(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def exception(self) -> BaseException | None:
        return None

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)

    def end(self) -> None:
        for callback in self._callbacks:
            callback(self)


def test_a_future_of_another_library_is_followed(client: RecordingClient) -> None:
    future = FutureLike()
    assert client.run("checkout", "1").step("charge", lambda: future) is future
    assert told(client.events) == ["charge:running"]
    future.end()
    assert told(client.events) == ["charge:running", "charge:success"]


def test_a_future_of_another_threads_loop_is_followed(client: RecordingClient) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        future: asyncio.Future[str] = loop.create_future()
        ended = threading.Event()
        client.on_event = lambda event: event.is_outcome and ended.set()
        assert client.run("checkout", "1").step("charge", lambda: future) is future
        loop.call_soon_threadsafe(future.set_result, "paid")
        assert ended.wait(20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert client.story("checkout") == "charge:success"


class Request:
    """Awaitable and an asynchronous context manager, as aiohttp's requests and asyncpg's acquires are: the coroutine's methods
    are aiohttp's."""

    def send(self, value: Any) -> Any:
        raise StopIteration("response")

    def throw(self, *error: Any) -> Any:
        raise Declined

    def close(self) -> None:
        """Nothing is open."""

    def __await__(self) -> Generator[Any, None, str]:
        yield from ()
        return "response"

    async def __aenter__(self) -> str:
        return "response"

    async def __aexit__(self, *error: object) -> None:
        """Nothing is open."""


class Reference:
    """A reference to a remote result, with methods of its own."""

    def future(self) -> str:
        return "remote"

    def __await__(self) -> Generator[Any, None, str]:
        yield from ()
        return "value"


@pytest.mark.parametrize("kind", [Request, Reference])
def test_an_object_that_is_more_than_awaitable_passes_through_and_ends_the_step_at_once(
    client: RecordingClient, caplog: pytest.LogCaptureFixture, kind: Callable[[], Any]
) -> None:
    given = kind()
    for _ in range(3):
        assert client.run("checkout", "1").step("charge", lambda: given) is given
    assert client.story("checkout") == "charge:success,success,success"
    assert caplog.text.count("can be awaited but not followed") == 1

    async def use() -> str:
        if isinstance(given, Request):
            async with client.run("checkout", "2").step("charge", lambda: given) as response:
                return response
        return str(await given)

    assert asyncio.run(use()) in ("response", "value")


class Compiled(Coroutine[Any, Any, str]):
    """A coroutine of another type than Python's, as Cython makes them."""

    def __init__(self) -> None:
        self._inner = later()

    def send(self, value: Any) -> Any:
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, str]:
        return self._inner.__await__()


def test_a_compiled_coroutine_ends_the_step_when_it_ends(client: RecordingClient) -> None:
    async def main() -> str:
        pending = client.run("checkout", "1").step("charge", Compiled)
        assert told(client.events) == ["charge:running"]
        return await pending

    assert asyncio.run(main()) == "paid"
    assert told(client.events) == ["charge:running", "charge:success"]


def test_a_coroutine_of_ours_is_one_of_pythons_with_the_names_of_the_one_it_wraps(client: RecordingClient) -> None:
    pending = client.run("checkout", "1").step("charge", later)
    assert inspect.iscoroutine(pending)
    assert asyncio.iscoroutine(pending)
    assert (pending.__name__, pending.__qualname__) == ("later", "later")
    assert asyncio.run(pending) == "paid"


def test_a_generator_based_coroutine_is_awaited(client: RecordingClient) -> None:
    @types.coroutine
    def charge() -> Generator[Any, Any, str]:
        value = yield from asyncio.sleep(0, "paid").__await__()
        return value

    async def main() -> str:
        return await client.run("checkout", "1").step("charge", charge)

    assert asyncio.run(main()) == "paid"
    assert client.story("checkout") == "charge:success"


# Generators


def rows(count: int) -> Iterator[int]:
    for number in range(count):
        if number == 2:
            raise Declined
        yield number


def test_a_generator_ends_the_step_with_its_iteration(client: RecordingClient, tracing: Tracing) -> None:
    with tracing.tracer.start_as_current_span("request") as request:
        generator = client.run("checkout", "1").step("read", lambda: rows(2))
        assert inspect.isgenerator(generator)
        assert trace.get_current_span() is request
        assert told(client.events) == ["read:running"]
        assert list(generator) == [0, 1]
    assert told(client.events) == ["read:running", "read:success"]


def test_a_generators_exception_is_the_steps_error(client: RecordingClient) -> None:
    generator = client.run("checkout", "1").step("read", lambda: rows(3))
    with pytest.raises(Declined):
        list(generator)
    assert client.story("checkout") == "read:error(Declined)"


def test_a_generator_closed_early_is_a_success_and_one_never_begun_a_cancelled_step(client: RecordingClient) -> None:
    early = client.run("checkout", "1").step("read", lambda: rows(2))
    assert next(early) == 0
    early.close()
    never = client.run("checkout", "2").step("read", lambda: rows(2))
    del never
    assert client.story("checkout", "1") == "read:success"
    assert client.story("checkout", "2") == "read:error(CancelledError)"


def test_an_asynchronous_generator_ends_the_step_with_its_iteration(client: RecordingClient) -> None:
    async def values() -> AsyncIterator[int]:
        yield 1
        raise Declined

    async def main() -> None:
        seen = []
        with pytest.raises(Declined):
            async for value in client.run("checkout", "1").step("read", values):
                seen.append(value)
        assert seen == [1]

    asyncio.run(main())
    assert client.story("checkout") == "read:error(Declined)"


# Coroutines that never run


def test_a_coroutine_cancelled_before_its_first_step_ends_the_step(client: RecordingClient) -> None:
    async def main() -> None:
        tasks = [
            asyncio.create_task(client.run("checkout", str(number)).step("charge", made)) for number, made in enumerate(forms)
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stories = [client.story("checkout", str(number)) for number in range(len(forms))]
        assert stories == ["charge:error(CancelledError)"] * len(forms)  # while the tasks are still held
        assert all(task.cancelled() for task in tasks)

    forms: list[Callable[[], Coroutine[Any, Any, str]]] = [later, lambda: later(), Compiled]  # noqa: PLW0108
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())


def test_a_coroutine_that_is_closed_ends_the_step_without_a_warning(client: RecordingClient) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.run("checkout", "1").step("charge", later).close()
        gc.collect()
    assert client.story("checkout") == "charge:error(CancelledError)"


def test_a_coroutine_that_is_never_awaited_ends_the_step_and_python_warns_once(client: RecordingClient) -> None:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        pending = client.run("checkout", "1").step("charge", later)
        del pending
        gc.collect()
    assert [str(each.message) for each in given] == ["coroutine 'later' was never awaited"]
    assert client.story("checkout") == "charge:error(CancelledError)"


def test_a_coroutine_closed_half_way_ends_the_step_as_cancelled(client: RecordingClient) -> None:
    pending = client.run("checkout", "1").step("charge", later)
    pending.send(None)
    pending.close()
    assert client.story("checkout") == "charge:error(CancelledError)"


def test_a_future_that_is_never_done_ends_the_step_when_nobody_has_it(client: RecordingClient) -> None:
    client.run("checkout", "1").step("charge", concurrent.futures.Future)
    gc.collect()
    assert client.story("checkout") == "charge:error(CancelledError)"
