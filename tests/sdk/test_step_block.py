"""``with run.step(key) as step:`` in all its forms."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
from opentelemetry import trace
from support.tracing import Tracing, told

from failpath_otel.testing import RecordingClient


def test_a_block_is_a_step(client: RecordingClient) -> None:
    with client.run("checkout", "1").step("charge") as step:
        assert step.step_key == "charge"
        assert told(client.events) == ["charge:running"]
    assert told(client.events) == ["charge:running", "charge:success"]


def test_an_async_block_is_a_step(client: RecordingClient) -> None:
    async def main() -> None:
        async with client.run("checkout", "1").step("charge"):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert told(client.events) == ["charge:running", "charge:success"]


def test_an_exception_leaves_the_block_unchanged(client: RecordingClient) -> None:
    failure = ValueError("declined")
    with pytest.raises(ValueError, match="declined") as caught, client.run("checkout", "1").step("charge"):
        raise failure
    assert caught.value is failure
    assert client.story("checkout") == "charge:error(ValueError)"


def test_an_exception_handled_within_the_block_is_none_of_the_steps(client: RecordingClient) -> None:
    with client.run("checkout", "1").step("charge"), contextlib.suppress(ValueError):
        raise ValueError
    assert client.story("checkout") == "charge:success"


def test_a_block_left_by_return_and_by_break_succeeded(client: RecordingClient) -> None:
    run = client.run("checkout", "1")

    def leave() -> int:
        with run.step("return"):
            return 1

    leave()
    for _ in range(3):
        with run.step("break"):
            break
    assert client.story("checkout") == "return:success break:success"


def test_the_span_of_a_block_is_current_within_it(client: RecordingClient, tracing: Tracing) -> None:
    before = trace.get_current_span()
    with client.run("checkout", "1").step("charge") as step:
        assert trace.get_current_span() is step.span
        assert step.span.is_recording()
    assert trace.get_current_span() is before
    assert not step.span.is_recording()
    assert not step.span.get_span_context().is_valid


def test_a_step_object_entered_again_is_another_attempt(client: RecordingClient) -> None:
    step = client.run("checkout", "1").step("charge")
    with contextlib.suppress(ValueError), step:
        raise ValueError
    with step:
        pass
    assert client.story("checkout") == "charge:error(ValueError),success"
    assert len({event.span_id for event in client.events}) == 2


def test_a_step_object_entered_within_itself_nests(client: RecordingClient, tracing: Tracing) -> None:
    step = client.run("checkout", "1").step("walk")
    with step:
        outer = step.span
        with step:
            assert step.span is not outer
        assert step.span is outer
    assert told(client.events) == ["walk:running", "walk:running", "walk:success", "walk:success"]


def test_leaving_a_block_that_was_not_entered_does_nothing(client: RecordingClient) -> None:
    client.run("checkout", "1").step("charge").__exit__(None, None, None)
    asyncio.run(client.run("checkout", "1").step("charge").__aexit__(None, None, None))
    assert client.events == []


def test_a_block_is_left_in_another_thread_without_noise(client: RecordingClient, caplog: pytest.LogCaptureFixture) -> None:
    step = client.run("checkout", "1").step("charge").__enter__()
    thread = threading.Thread(target=step.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert told(client.events) == ["charge:running", "charge:success"]
    assert caplog.records == []
    _forget_what_is_current()


def test_a_block_in_an_async_generator_that_another_task_closes_ends_without_noise(
    client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    """GeneratorExit leaves the block, as any exception would: the block's code did not come to its end."""

    async def main() -> None:
        async def values():
            with client.run("checkout", "1").step("charge"):
                yield 1

        generator = values()
        await asyncio.create_task(_first(generator))
        await asyncio.create_task(generator.aclose())

    asyncio.run(main())
    assert client.story("checkout") == "charge:error(GeneratorExit)"
    assert caplog.records == []


def test_threads_that_share_a_step_object_leave_their_own_blocks(client: RecordingClient) -> None:
    """The first to enter is the first to leave: what it raised must not become the other's outcome."""
    step = client.step("charge")
    entered, failed = threading.Event(), threading.Event()

    def first() -> None:
        with contextlib.suppress(ValueError), client.run("checkout", "fails"), step:
            step.set_metadata(who="first")
            assert entered.wait(10)
            step.set_metadata(again="first")
            raise ValueError
        failed.set()

    thread = threading.Thread(target=first)
    thread.start()
    while not client.events:
        failed.wait(0.001)
    with client.run("checkout", "works"), step:
        step.set_metadata(who="second")
        entered.set()
        assert failed.wait(10)
    thread.join()
    assert client.story("checkout", "fails") == "charge:error(ValueError)"
    assert client.story("checkout", "works") == "charge:success"
    outcomes = {event.run_id: event.metadata for event in client.events if event.is_outcome}
    assert outcomes == {"fails": {"who": "first", "again": "first"}, "works": {"who": "second"}}


def test_tasks_that_share_a_step_object_leave_their_own_blocks(client: RecordingClient) -> None:
    step = client.step("charge")

    async def main() -> None:
        second_is_in = asyncio.Event()

        async def first() -> None:
            with contextlib.suppress(ValueError), client.run("checkout", "fails"):
                async with step:
                    await second_is_in.wait()
                    raise ValueError

        async def second(other: asyncio.Task[None]) -> None:
            with client.run("checkout", "works"), step:
                second_is_in.set()
                await other

        task = asyncio.create_task(first())
        await asyncio.sleep(0)
        await second(task)

    asyncio.run(main())
    assert client.story("checkout", "fails") == "charge:error(ValueError)"
    assert client.story("checkout", "works") == "charge:success"


async def _first(generator: object) -> object:
    return await generator.__anext__()  # type: ignore[attr-defined]


def _forget_what_is_current() -> None:
    """What was entered here and left elsewhere stays current in this context; the next test is to find nothing."""
    from opentelemetry import context

    context.attach(context.Context())
