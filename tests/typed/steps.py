"""What type checkers make of runs and steps. Never run: `make check` holds it under mypy and pyright strict.

A line that must be an error carries an ignore of its own, and an ignore that nothing needs is an error.
"""

from __future__ import annotations

from asyncio import Task
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator, Mapping, Sequence
from typing import Any, Literal, cast

from typing_extensions import assert_type

from failpath_otel import EventExporter, FailpathClient, FlushResult, MemoryExporter, Run, Stats, Step, StepEvent, current_run


class Order:
    """Something that a step gives."""


client = FailpathClient(exporter="memory")
run = client.run("checkout", run_id=123, metadata={"route": "/checkout"})


def make() -> Order:
    """A function of the application."""
    return Order()


async def make_later() -> Order:
    """A coroutine function of the application."""
    return Order()


def future() -> Awaitable[int]:
    """A function that gives an awaitable."""
    raise RuntimeError


def task() -> Task[Order]:
    """A function that gives a task."""
    raise RuntimeError


def nothing() -> None:
    """A function without a value."""


assert_type(run, Run[str])
assert_type(run.step("validate-cart", make), Order)
assert_type(run.step("validate-cart", lambda: 1), int)
assert_type(run.step("validate-cart", future), Awaitable[int])
given: Sequence[object] = (
    assert_type(run.step("create-order", make_later), Coroutine[Any, Any, Order]),
    assert_type(run.step("create-order", lambda: make_later()), Coroutine[Any, Any, Order]),  # noqa: PLW0108 - as in the README
)
assert_type(run.step("create-order", task), Task[Order])
assert_type(run.step("create-order"), Step)
assert_type(run.metadata, Mapping[str, Any])
run.step("validate-cart", nothing)


async def in_async_code() -> None:
    """Awaitables, blocks and the current run."""
    assert_type(await run.step("create-order", make_later), Order)
    async with run.step("charge-card") as step:
        assert_type(step, Step)
    async with client.run("checkout") as entered:
        assert_type(entered, Run[str])
    assert_type(await client.aflush(), FlushResult)


with run.step("charge-card", metadata={"amount": 1}) as block:
    assert_type(block, Step)
    block.set_metadata(amount=2)

with run as current:
    assert_type(current, Run[str])
    assert_type(current_run(), "Run[Any] | None")


@client.step("charge-card")
def charge(cart: str, *, amount: int = 0) -> Order:
    """A decorated function keeps its signature."""
    return make()


@client.step("charge-card")
async def charge_later(cart: str) -> Order:
    """A decorated coroutine function too."""
    return make()


@client.step("read-rows")
def rows(count: int) -> Generator[int, str, bool]:
    """A decorated generator function too."""
    yield count
    return True


@client.step("read-rows")
async def rows_later(count: int) -> AsyncGenerator[int, None]:
    """A decorated asynchronous generator function too."""
    yield count


assert_type(charge("c", amount=1), Order)
assert_type(rows(1), Generator[int, str, bool])
assert_type(rows_later(1), AsyncGenerator[int, None])
charge(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def call_decorated() -> None:
    """The decorated coroutine function gives its value."""
    assert_type(await charge_later("c"), Order)


# Generated bindings narrow the keys: a wrong one is an error.
CheckoutStep = Literal["validate-cart", "charge-card"]
checkout = cast("Run[CheckoutStep]", run)
assert_type(checkout.step("charge-card", make), Order)
checkout.skip("charge-card", reason="free")
checkout.step("charge-cart", make)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
checkout.skip("charge-cart")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

client.record_step(flow_key="checkout", run_id="r", step_key="s", status="done")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
FailpathClient(delivery="later")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(client.flush(), FlushResult)
assert_type(client.stats(), Stats)


class OwnExporter:
    """Two methods make an exporter."""

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Takes a batch."""

    def close(self) -> None:
        """Ends."""


class NoExporter:
    """One method does not."""

    def close(self) -> None:
        """Ends."""


own: EventExporter = OwnExporter()
memory: EventExporter = MemoryExporter()
FailpathClient(exporter=OwnExporter())
FailpathClient(exporter=NoExporter())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
