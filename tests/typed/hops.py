"""What type checkers make of runs that come from elsewhere, of threads, and of steps that end elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from typing_extensions import assert_type

from failpath_otel import ContextExecutor, FailpathClient, Run, StepError, with_context

client = FailpathClient(exporter="memory")

assert_type(client.current_run(), Run[Any] | None)
assert_type(client.resume({"baggage": ""}), Run[Any])
assert_type(client.run("checkout").carrier(), dict[str, str])
assert_type(client.complete("token", StepError("Declined")), bool)

with client.run("checkout").step("approve") as step:
    assert_type(step.detach(), str)


def ship(order: int, *, fast: bool) -> str:
    return f"{order}{fast}"


shipping: Callable[..., str] = with_context(ship)
with_context(ship)(1, fast=True)
with_context(ship)("1", fast=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

with ContextExecutor(ThreadPoolExecutor()) as pool:
    assert_type(pool.submit(ship, 1, fast=True), Future[str])
    pool.submit(ship, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
