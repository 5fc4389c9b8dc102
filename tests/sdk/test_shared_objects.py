"""One step, run or client in many hands: threads, tasks of any library, generators."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from contextvars import copy_context
from typing import Any

import pytest

from failpath_otel import Run, current_run
from failpath_otel.testing import RecordingClient


def outcomes(client: RecordingClient) -> dict[str, str]:
    """How the step of each run ended."""
    return {event.run_id: client.story("checkout", event.run_id) for event in client.events}


class Declined(Exception):
    pass


# A step that is shared


def test_a_step_entered_and_left_in_different_threads_and_contexts_keeps_to_its_own_block(client: RecordingClient) -> None:
    """As a synchronous dependency with ``yield`` under FastAPI, ten rounds of two requests at once."""
    step = client.step("charge")

    @contextmanager
    def dependency() -> Iterator[None]:
        with step:
            yield

    for round_ in range(10):
        with ThreadPoolExecutor(4) as threads:
            requests = [dependency() for _ in range(2)]
            for number, request in enumerate(requests):
                with client.run("checkout", f"{round_}-{number}"):
                    threads.submit(copy_context().run, request.__enter__).result()
            first, second = requests
            threads.submit(copy_context().run, first.__exit__, Declined, Declined(), None).result()
            threads.submit(copy_context().run, second.__exit__, None, None, None).result()
    assert outcomes(client) == {
        **{f"{round_}-0": "charge:error(Declined)" for round_ in range(10)},
        **{f"{round_}-1": "charge:success" for round_ in range(10)},
    }


def test_tasks_of_trio_that_share_a_step_leave_their_own_blocks(client: RecordingClient) -> None:
    trio: Any = pytest.importorskip("trio")
    testing: Any = pytest.importorskip("trio.testing")
    step = client.step("charge")

    async def request(number: int, entered: Any, leave: Any) -> None:
        with client.run("checkout", str(number)):
            try:
                async with step:
                    entered.set()
                    await leave.wait()
                    if number == 0:
                        raise Declined
            except Declined:
                pass

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            events = [(trio.Event(), trio.Event()) for _ in range(2)]
            for number, (entered, leave) in enumerate(events):
                nursery.start_soon(request, number, entered, leave)
                await entered.wait()
            for _, leave in events:
                leave.set()
                await testing.wait_all_tasks_blocked()

    trio.run(main)
    assert outcomes(client) == {"0": "charge:error(Declined)", "1": "charge:success"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_exit_stacks_of_two_contexts_that_share_a_step_leave_their_own(client: RecordingClient, order: tuple[int, ...]) -> None:
    step = client.step("charge")
    stacks = [ExitStack(), ExitStack()]
    contexts = [copy_context(), copy_context()]
    for number, (stack, context) in enumerate(zip(stacks, contexts, strict=True)):
        context.run(stack.enter_context, client.run("checkout", str(number)))
        context.run(stack.enter_context, step)
    for number in order:
        error = Declined() if number == 0 else None
        contexts[number].run(stacks[number].__exit__, type(error) if error else None, error, None)
        assert contexts[number].run(current_run) is None
    assert outcomes(client) == {"0": "charge:error(Declined)", "1": "charge:success"}


def test_blocks_of_two_contexts_that_one_frame_enters_are_kept_apart(client: RecordingClient) -> None:
    """As compiled coroutines do, whose nearest frame is that of an event loop which is compiled as well."""
    step, run = client.step("charge"), client.run("checkout", "shared")
    contexts = [copy_context(), copy_context()]
    for number, context in enumerate(contexts):
        context.run(client.run("checkout", str(number)).__enter__)
        context.run(step.__enter__)
        context.run(run.__enter__)
    assert [context.run(current_run) for context in contexts] == [run, run]
    contexts[0].run(run.__exit__, None, None, None)
    assert contexts[0].run(current_run) is not run
    assert contexts[1].run(current_run) is run
    contexts[0].run(step.__exit__, Declined, Declined(), None)
    contexts[1].run(step.__exit__, None, None, None)
    assert outcomes(client) == {"0": "charge:error(Declined)", "1": "charge:success"}


def test_metadata_set_within_a_shared_step_belongs_to_the_block_that_runs(client: RecordingClient) -> None:
    step = client.step("charge")

    async def request(number: int, others: asyncio.Barrier | Any) -> None:
        with client.run("checkout", str(number)):
            async with step:
                await others()
                step.set_metadata(number=number)
                await others()

    async def main() -> None:
        waiting: list[asyncio.Event] = []

        async def others() -> None:
            event = asyncio.Event()
            waiting.append(event)
            if len(waiting) == 3:
                for each in waiting:
                    each.set()
                waiting.clear()
            await event.wait()

        await asyncio.gather(*(request(number, others) for number in range(3)))

    asyncio.run(main())
    assert {event.run_id: event.metadata for event in client.events if event.is_outcome} == {
        str(number): {"number": number} for number in range(3)
    }


# Runs and generators


def test_a_decorated_generator_takes_the_run_of_its_call(client: RecordingClient) -> None:
    @client.step("stream")
    def rows(count: int) -> Iterator[int]:
        yield from range(count)

    with client.run("checkout", "1"):
        generator = rows(3)
    assert list(generator) == [0, 1, 2]
    with client.run("checkout", "2"):
        generator = rows(1)
    with client.run("middleware", "m"):
        list(generator)
    assert outcomes(client) == {"1": "stream:success", "2": "stream:success"}
    with pytest.raises(TypeError):
        rows()  # type: ignore[call-arg]  # at the call, as ever


def test_a_decorated_asynchronous_generator_takes_the_run_of_its_call(client: RecordingClient) -> None:
    @client.step("stream")
    async def rows() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        with client.run("checkout", "1"):
            generator = rows()
        assert [value async for value in generator] == [1]

    asyncio.run(main())
    assert outcomes(client) == {"1": "stream:success"}


class Shop:
    """With a method that is a step."""

    def __init__(self, name: str) -> None:
        self.name = name


def test_a_decorated_generator_is_one_for_inspect_and_binds_as_a_method(client: RecordingClient) -> None:
    import inspect

    def rows(self: Shop, count: int = 1) -> Iterator[str]:
        """Its rows."""
        yield from [self.name] * count

    decorated: Any = client.step("read")(rows)
    Shop.rows = decorated  # type: ignore[attr-defined]
    assert inspect.isgeneratorfunction(decorated)
    assert inspect.isgeneratorfunction(Shop("a").rows)  # type: ignore[attr-defined]
    assert inspect.signature(decorated) == inspect.signature(rows)
    assert (decorated.__name__, decorated.__doc__) == ("rows", "Its rows.")
    with client.run("checkout", "1"):
        assert list(Shop("a").rows(2)) == ["a", "a"]  # type: ignore[attr-defined]


def test_a_run_in_a_generator_that_another_task_closes_does_not_stay_with_the_consumer(client: RecordingClient) -> None:
    async def stream() -> AsyncIterator[Run[Any] | None]:
        with client.run("inner", "i"):
            while True:
                yield current_run()

    async def main() -> None:
        with client.run("checkout", "1"):
            generator = stream()
            await generator.__anext__()
            inside = current_run()
            assert inside is not None
            assert inside.flow_key == "inner"  # Python gives a generator the context of whoever iterates it

            async def close() -> None:
                await generator.aclose()  # type: ignore[attr-defined]

            await asyncio.create_task(close())
            after = current_run()
            assert after is not None
            assert after.flow_key == "checkout"
            assert client.run("x").carrier()["baggage"].count("inner") == 0
        assert current_run() is None

    asyncio.run(main())


def test_what_began_within_a_run_keeps_it_after_the_block_has_ended(client: RecordingClient) -> None:
    @client.step("ship")
    def ship() -> None:
        pass

    async def later(go: asyncio.Event) -> None:
        await go.wait()
        ship()

    async def main() -> None:
        go = asyncio.Event()
        with client.run("checkout", "1"):
            task = asyncio.create_task(later(go))
            taken = copy_context()
            await asyncio.sleep(0)
        assert current_run() is None
        go.set()
        await task
        taken.run(ship)

    asyncio.run(main())
    assert outcomes(client) == {"1": "ship:success,success"}


@pytest.mark.parametrize("what", ["run", "step", "run in a stack", "step in a stack"])
def test_one_run_or_step_entered_by_a_thousand_tasks_is_left_without_looking_at_the_others(
    client: RecordingClient, what: str
) -> None:
    """The cost of one entry is the same among thousands: what is done for each is counted, not timed."""
    run = client.run("checkout", "1")
    shared: Any = run if "run" in what else run.step("charge")

    def lines_of(tasks: int) -> int:
        count = 0

        async def work() -> None:
            with ExitStack() as stack:
                if "stack" in what:
                    stack.enter_context(shared)
                    await asyncio.sleep(0)
                else:
                    with shared:
                        await asyncio.sleep(0)

        async def main() -> None:
            await asyncio.gather(*(work() for _ in range(tasks)))

        def trace_(frame: Any, what: str, argument: object) -> Any:
            nonlocal count
            count += what == "line" and "failpath_otel" in frame.f_code.co_filename
            return trace_ if "failpath_otel" in frame.f_code.co_filename or what == "call" else None

        sys.settrace(trace_)
        try:
            asyncio.run(main())
        finally:
            sys.settrace(None)
        return count

    few, many = lines_of(10), lines_of(1000)
    assert many <= few * 110


def test_one_run_entered_by_tasks_that_end_in_any_order_is_current_in_each_to_its_end(client: RecordingClient) -> None:
    run = client.run("checkout", "1")

    async def work(number: int) -> None:
        with run:
            for _ in range(number % 7):
                await asyncio.sleep(0)
            assert current_run() is run
            with run:
                await asyncio.sleep(0)
            assert current_run() is run
        assert current_run() is None

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(200)))

    asyncio.run(main())


def test_tasks_that_begin_one_another_within_runs_and_steps_keep_nothing_of_those_that_ended(client: RecordingClient) -> None:
    """As a poller that schedules its next round from within this one."""

    async def round_(left: int) -> None:
        with client.run("checkout", str(left)):
            async with client.step("poll"):
                if left:
                    following.append(asyncio.create_task(round_(left - 1)))

    async def main(rounds: int) -> None:
        following.append(asyncio.create_task(round_(rounds)))
        while following:
            await following.pop(0)

    def kept(rounds: int) -> int:
        """How many attempts and entered runs are alive in the last round."""
        alive = 0

        def count(event: Any) -> None:
            nonlocal alive
            if event.run_id == "0" and event.status == "running":
                gc.collect()
                alive = sum(type(each).__name__ in ("Attempt", "EnteredRun") for each in gc.get_objects())

        client.on_event = count
        asyncio.run(main(rounds))
        client.reset()
        return alive

    following: list[asyncio.Task[None]] = []
    kept(3)
    assert kept(60) <= kept(5) + 4


def test_an_asynchronous_exit_stack_leaves_a_shared_run(client: RecordingClient) -> None:
    run = client.run("checkout", "1")

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(run)
            await stack.enter_async_context(run.step("charge"))
            assert current_run() is run
        assert current_run() is None

    asyncio.run(main())
    assert outcomes(client) == {"1": "charge:success"}


def test_threads_that_share_a_run_have_it_each_to_their_own_end(client: RecordingClient) -> None:
    run = client.run("checkout", "1")
    both = threading.Barrier(2)
    left: list[Any] = []

    def work(first: bool) -> None:
        with run:
            both.wait(20)
            if not first:
                both.wait(20)
                left.append(current_run())
        if first:
            both.wait(20)

    threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == [run]
