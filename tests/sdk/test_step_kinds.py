"""``@client.step(key)`` on what is no plain function, and below or above other decorators: its kind stays what it was."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from failpath_otel.testing import RecordingClient


def rows(count: int) -> Iterator[int]:
    yield from range(count)


def listed(count: int) -> list[int]:
    return list(range(count))


async def rows_async(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class Rows:
    def __call__(self, count: int) -> Iterator[int]:
        yield from range(count)

    async def charge(self, count: int) -> list[int]:
        return list(range(count))


class Charge:
    async def __call__(self, count: int) -> list[int]:
        await asyncio.sleep(0)
        return list(range(count))


def as_asynchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that gives another kind of function than it is given."""

    @functools.wraps(function)
    async def values(*args: Any) -> AsyncIterator[int]:
        for value in function(*args):
            yield value

    return values


def as_generator(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def values(*args: Any) -> Iterator[int]:
        yield from function(*args)

    return values


@pytest.mark.parametrize(
    "function",
    [functools.partial(rows), functools.partial(Rows()), Rows(), as_generator(listed)],
    ids=["partial", "partial of an object", "object", "decorated"],
)
def test_what_gives_a_generator_is_a_generator_function(client: RecordingClient, function: Callable[..., Any]) -> None:
    step: Any = client.step("read")(function)
    assert inspect.isgeneratorfunction(step)
    assert not inspect.isasyncgenfunction(step)
    assert copy.deepcopy(step) is step
    with client.run("checkout", "1"):
        assert list(step(3)) == [0, 1, 2]
    assert client.story("checkout") == "read:success"


@pytest.mark.parametrize("function", [functools.partial(rows_async), as_asynchronous(rows)], ids=["partial", "decorated"])
def test_what_gives_an_asynchronous_generator_is_a_function_of_that_kind(
    client: RecordingClient, function: Callable[..., Any]
) -> None:
    step: Any = client.step("read")(function)
    assert inspect.isasyncgenfunction(step)
    assert not inspect.isgeneratorfunction(step)

    async def main() -> list[int]:
        with client.run("checkout", "1"):
            return [value async for value in step(3)]

    assert asyncio.run(main()) == [0, 1, 2]
    assert client.story("checkout") == "read:success"


@pytest.mark.parametrize(
    "function",
    [Charge(), functools.partial(Charge()), functools.partial(Rows().charge)],
    ids=["object", "partial of an object", "partial of a method"],
)
def test_what_gives_a_coroutine_is_a_coroutine_function(client: RecordingClient, function: Callable[..., Any]) -> None:
    """Starlette calls a background task in a thread that is none, and would drop the coroutine."""
    step: Any = client.step("charge")(function)
    assert inspect.iscoroutinefunction(step)

    async def main() -> Any:
        with client.run("checkout", "1"):
            return await step(3)

    assert asyncio.run(main()) == [0, 1, 2]
    assert client.story("checkout") == "charge:success"


def test_a_generator_function_that_is_a_coroutine_function_can_be_awaited(client: RecordingClient) -> None:
    @client.step("charge")
    @types.coroutine
    def charge() -> Iterator[None]:
        yield
        return "paid"  # type: ignore[return-value]

    async def main() -> Any:
        with client.run("checkout", "1"):
            return await charge()

    assert asyncio.run(main()) == "paid"
    assert client.story("checkout") == "charge:success"


def test_a_decorated_generator_is_a_method_of_a_class_that_makes_fields_of_what_is_none(client: RecordingClient) -> None:
    class Cart(BaseModel):
        items: int = 2

        @client.step("read")
        def rows(self) -> Iterator[int]:
            yield from range(self.items)

    assert inspect.isfunction(Cart.rows)
    with client.run("checkout", "1"):
        assert list(Cart().rows()) == [0, 1]
    assert client.story("checkout") == "read:success"


def test_an_argument_of_a_generator_function_may_have_any_name(client: RecordingClient) -> None:
    @client.step("read")
    def read(self: int) -> Iterator[int]:
        yield self

    with client.run("checkout", "1"):
        assert list(read(self=3)) == [3]


def test_class_methods_and_static_methods_can_be_decorated_in_either_order(client: RecordingClient) -> None:
    class Shop:
        @client.step("charge")
        @classmethod
        def charge(cls, amount: int) -> tuple[type[Shop], int]:
            return cls, amount

        @client.step("refund")
        @staticmethod
        def refund(amount: int) -> int:
            return amount

        @client.step("read")
        @classmethod
        def rows(cls) -> Iterator[type[Shop]]:
            yield cls

        @staticmethod
        @client.step("list")
        def listed(amount: int) -> Iterator[int]:
            yield amount

    shop: Any = Shop
    for called in (shop, shop()):
        with client.run("checkout", "1"):
            assert (called.charge(5), called.refund(5)) == ((Shop, 5), 5)
            assert (list(called.rows()), list(called.listed(5))) == ([Shop], [5])
    assert client.story("checkout") == "charge:success,success refund:success,success read:success,success list:success,success"
