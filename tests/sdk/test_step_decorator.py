"""``@client.step(key)``: functions of every kind keep their kind, and each call is a step."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest
from support.tracing import Tracing, told

from failpath_otel.testing import RecordingClient

# Every kind of function


def test_a_decorated_function_is_a_step_of_the_current_run(client: RecordingClient) -> None:
    @client.step("charge")
    def charge(amount: int, *, tip: int = 0) -> int:
        """Charges."""
        return amount + tip

    assert (charge.__name__, charge.__doc__) == ("charge", "Charges.")
    with client.run("checkout", "1"):
        assert charge(1, tip=2) == 3
        assert charge(2) == 2
    with client.run("checkout", "2"):
        charge(3)
    assert client.story("checkout", "1") == "charge:success,success"
    assert client.story("checkout", "2") == "charge:success"


def test_decorated_functions_keep_their_kind(client: RecordingClient) -> None:
    step = client.step("any")

    @step
    def plain() -> None: ...

    @step
    async def coroutine() -> None: ...

    @step
    def generator() -> Iterator[int]:
        yield 1

    @step
    async def async_generator() -> AsyncIterator[int]:
        yield 1

    assert not inspect.iscoroutinefunction(plain)
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)


def test_a_decorated_coroutine_function_is_a_step(client: RecordingClient) -> None:
    @client.step("charge")
    async def charge(amount: int) -> int:
        await asyncio.sleep(0)
        return amount

    async def main() -> None:
        with client.run("checkout", "1"):
            pending = charge(5)
            assert client.events == []  # a coroutine begins when it is awaited
            assert await pending == 5

    asyncio.run(main())
    assert client.story("checkout") == "charge:success"


@pytest.mark.parametrize("kind", ["partial", "callable", "returns-awaitable"])
def test_what_gives_a_coroutine_in_another_way_is_awaited(client: RecordingClient, kind: str) -> None:
    async def charge(amount: int) -> int:
        await asyncio.sleep(0)
        return amount

    class Charge:
        async def __call__(self, amount: int) -> int:
            return await charge(amount)

    fn: Callable[[int], Any] = {
        "partial": functools.partial(charge),
        "callable": Charge(),
        "returns-awaitable": lambda amount: charge(amount),  # noqa: PLW0108 - no coroutine function, but it gives a coroutine
    }[kind]

    async def main() -> None:
        with client.run("checkout", "1"):
            assert await client.step("charge")(fn)(5) == 5

    asyncio.run(main())
    assert told(client.events) == ["charge:running", "charge:success"]


def test_methods_can_be_decorated(client: RecordingClient) -> None:
    class Shop:
        @client.step("charge")
        def charge(self, amount: int) -> tuple[Shop, int]:
            return self, amount

        @classmethod
        @client.step("refund")
        def refund(cls) -> type[Shop]:
            return cls

    shop = Shop()
    with client.run("checkout", "1"):
        assert shop.charge(5) == (shop, 5)
        assert Shop.refund() is Shop
    assert client.story("checkout") == "charge:success refund:success"


def test_the_run_of_the_call_counts_not_that_of_the_definition(client: RecordingClient) -> None:
    with client.run("checkout", "definition"):

        @client.step("charge")
        def charge() -> None: ...

    with client.run("checkout", "call"):
        charge()
    assert {event.run_id for event in client.events} == {"call"}


def test_a_step_of_a_certain_run_decorates_as_well(client: RecordingClient) -> None:
    @client.run("checkout", "1").step("charge", metadata={"a": 1})
    def charge() -> int:
        return 5

    assert charge() == 5
    assert client.story("checkout") == "charge:success"
    assert client.events[0].metadata == {"a": 1}


def test_a_decorated_function_that_calls_itself_gives_nested_steps(client: RecordingClient) -> None:
    @client.step("walk")
    def walk(depth: int) -> None:
        if depth:
            walk(depth - 1)

    with client.run("tree", "1"):
        walk(2)
    assert told(client.events) == ["walk:running"] * 3 + ["walk:success"] * 3


# Outside of a run


def test_outside_a_run_functions_run_nothing_is_recorded_and_one_warning_is_given(
    client: RecordingClient, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    @client.step("charge")
    def charge() -> int:
        return 5

    @client.step("charge")
    async def charge_later() -> int:
        return 6

    @client.step("charge")
    def charges() -> Iterator[int]:
        yield 7

    @client.step("charge")
    async def charges_later() -> AsyncIterator[int]:
        yield 8

    async def main() -> list[int]:
        async with client.step("charge") as step:
            step.set_metadata(a=1)
            assert not step.span.is_recording()
        return [await charge_later(), *[value async for value in charges_later()]]

    assert [charge(), *charges(), *asyncio.run(main())] == [5, 7, 6, 8]
    assert client.events == []
    assert tracing.spans == []
    (record,) = caplog.records
    assert "outside of a run" in record.getMessage()


def test_exceptions_and_values_pass_outside_a_run(client: RecordingClient) -> None:
    failure = ValueError("declined")

    @client.step("charge")
    def charges() -> Generator[int, int, str]:
        assert (yield 1) == 2
        raise failure

    generator = charges()
    assert next(generator) == 1
    with pytest.raises(ValueError, match="declined") as caught:
        generator.send(2)
    assert caught.value is failure
