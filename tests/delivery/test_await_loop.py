"""``delivery="await"`` and ``aflush`` beside an event loop: they take nothing of the service's, and end within their bounds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.delivery import ScriptedExporter, sooner_than, until, until_async

from failpath_otel import FailpathClient

Client = Callable[..., FailpathClient]
Finish = Callable[..., dict[str, str]]


def test_a_step_is_sent_where_the_loops_only_thread_waits_for_what_comes_after_it(client: Client) -> None:
    exporter = ScriptedExporter()
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=20_000)

    async def main() -> None:
        after = threading.Event()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as threads:
            loop.set_default_executor(threads)
            waiting = loop.run_in_executor(None, after.wait, 60)
            async with failpath.run("checkout", "1").step("pay"):
                pass
            after.set()
            assert await waiting

    asyncio.run(asyncio.wait_for(main(), 50))
    assert [event.status for event in exporter.events] == ["running", "success"]


def test_hundreds_of_steps_at_once_wait_without_a_thread_for_each(client: Client) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=60_000)
    run = failpath.run("checkout", "1")

    async def main() -> int:
        async def pay() -> None:
            pass

        steps = [asyncio.ensure_future(run.step(f"pay-{number}", pay)) for number in range(300)]
        await until_async(lambda: failpath.stats().pending >= 300)
        threads = threading.active_count()
        exporter.gate.set()
        await asyncio.gather(*steps)
        return threads

    before = threading.active_count()
    assert asyncio.run(main()) <= before + 1
    assert len(exporter.events) == 600


@pytest.mark.parametrize("form", ["block", "call", "decorated"])
def test_a_step_waits_no_longer_than_the_send_timeout(client: Client, form: str) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=100)
    run = failpath.run("checkout", "1")

    async def pay() -> str:
        return "paid"

    async def main() -> str:
        if form == "block":
            async with run.step("pay"):
                return "paid"
        return await (run.step("pay", pay) if form == "call" else run.step("pay")(pay)())

    with sooner_than(30):
        assert asyncio.run(main()) == "paid"
    assert failpath.stats().pending == 2
    exporter.gate.set()


def test_so_it_is_where_a_test_holds_the_clock_of_the_loop(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=100)

    async def main() -> None:
        async with failpath.run("checkout", "1").step("pay"):
            pass

    with sooner_than(30), monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: 1000.0)  # as freezegun does
        asyncio.run(main())
    assert failpath.stats().pending == 2
    exporter.gate.set()


def test_a_cancellation_ends_the_wait_and_the_outcome_is_sent_all_the_same(client: Client) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=60_000)

    async def main() -> None:
        async def pay() -> None:
            pytest.fail("the start was not sent")

        task = asyncio.ensure_future(failpath.run("checkout", "1").step("pay", pay))
        await until_async(exporter.entered.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with sooner_than(30):
        asyncio.run(main())
    exporter.gate.set()
    assert failpath.flush(20_000)
    assert [event.status for event in exporter.events] == ["running", "error"]


def test_a_cancellation_in_the_wait_for_the_outcome_leaves_it_a_success(client: Client) -> None:
    exporter = ScriptedExporter()
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=60_000)

    async def main() -> None:
        async def pay() -> None:
            exporter.gate.clear()
            exporter.entered.clear()

        task = asyncio.ensure_future(failpath.run("checkout", "1").step("pay", pay))
        await until_async(lambda: not exporter.gate.is_set() and exporter.entered.is_set())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    exporter.gate.set()
    assert failpath.flush(20_000)
    assert [event.status for event in exporter.events] == ["running", "success"]


def test_steps_of_trio_are_sent_before_they_go_on(client: Client) -> None:
    trio: Any = pytest.importorskip("trio")
    exporter = ScriptedExporter()
    failpath = client(exporter=exporter, delivery="await")

    async def main() -> None:
        async with failpath.run("checkout", "1").step("pay"):
            assert [event.status for event in exporter.events] == ["running"]
        assert await failpath.aflush(20_000)

    trio.run(main)
    assert [event.status for event in exporter.events] == ["running", "success"]


def test_a_flush_that_is_cancelled_does_not_hold_up_the_end_of_the_process(finish: Finish) -> None:
    """The exit has three seconds of its own; the flush was given an hour."""
    with sooner_than(50):
        told = finish(
            """
            import asyncio

            class Hanging:
                def export(self, batch, /, *, timeout_millis):
                    threading.Event().wait()
                def close(self):
                    pass

            client = make(exporter=Hanging())
            client.run("checkout", "1").step("pay", lambda: None)

            async def main():
                try:
                    await asyncio.wait_for(client.aflush(3_600_000), 0.1)
                except asyncio.TimeoutError:
                    told("cancelled", True)

            asyncio.run(main())
            """,
            noise="events are dropped (shutdown)",
        )
    assert told["cancelled"] == "True"


def test_the_loop_is_told_of_an_end_only_while_it_is_open(client: Client) -> None:
    """A loop may be closed while a step of it waits; the worker goes on."""
    exporter = ScriptedExporter()
    exporter.gate.clear()
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=60_000)

    async def pay() -> None:
        async with failpath.run("checkout", "1").step("pay"):
            pass

    loop = asyncio.new_event_loop()
    task = loop.create_task(pay())
    while not exporter.entered.is_set():
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    exporter.gate.set()
    until(lambda: failpath.stats().pending == 0)
    assert not task.done()
    failpath.run("checkout", "2").step("pay", lambda: None)
    assert failpath.flush(20_000)
