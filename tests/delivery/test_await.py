"""``delivery="await"`` and ``raise_on_send_error``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.delivery import ScriptedExporter, event, sooner_than, until

from failpath_otel import DeliveryError, FailpathClient, FlushResult, Run
from failpath_otel.delivery import Delivery
from failpath_otel.errors import ExportError, RejectedError, RetryableError, UnauthorizedError

Client = Callable[..., FailpathClient]
Deliver = Callable[..., Delivery]
Body = Callable[[], Coroutine[Any, Any, None]]


async def as_a_block(run: Run[str], body: Body) -> None:
    async with run.step("pay"):
        await body()


async def as_a_call(run: Run[str], body: Body) -> None:
    await run.step("pay", body)


async def as_a_decorated_function(run: Run[str], body: Body) -> None:
    await run.step("pay")(body)()


both_async_ways = pytest.mark.parametrize("step", [as_a_block, as_a_call, as_a_decorated_function])


def test_each_event_is_sent_before_the_call_goes_on(client: Client) -> None:
    exporter = ScriptedExporter()
    run = client(exporter=exporter, delivery="await").run("checkout", "r1")
    seen_inside = run.step("pay", lambda: [e.status for e in exporter.events])
    assert seen_inside == ["running"]
    assert [e.status for e in exporter.events] == ["running", "success"]
    run.skip("ship")
    assert [e.status for e in exporter.events] == ["running", "success", "skipped"]


@both_async_ways
def test_each_event_is_sent_before_an_async_call_goes_on(client: Client, step: Any) -> None:
    exporter = ScriptedExporter()
    failpath = client(exporter=exporter, delivery="await")

    async def body() -> None:
        assert [e.status for e in exporter.events] == ["running"]

    async def main() -> None:
        await step(failpath.run("checkout", "r1"), body)
        assert [e.status for e in exporter.events] == ["running", "success"]

    asyncio.run(main())


def test_a_function_on_an_event_loop_is_sent_at_its_end(client: Client) -> None:
    """Nobody knows before the call whether it gives an awaitable, for which the loop would be held up in vain."""
    exporter = ScriptedExporter()
    failpath = client(exporter=exporter, delivery="await")

    async def main() -> None:
        run = failpath.run("checkout", "r1")
        run.step("pay", lambda: None)
        assert [e.status for e in exporter.events] == ["running", "success"]
        with pytest.raises(ZeroDivisionError):
            run.step("ship", lambda: 1 / 0)
        assert [e.status for e in exporter.events][2:] == ["running", "error"]

    asyncio.run(main())


def test_a_send_error_is_raised_after_the_function_ran(client: Client) -> None:
    exporter = ScriptedExporter(None, ExportError("400 bad"))
    run = client(exporter=exporter, delivery="await", raise_on_send_error=True).run("checkout", "r1")
    ran: list[int] = []
    with pytest.raises(DeliveryError, match="400 bad") as caught:
        run.step("pay", lambda: ran.append(1))
    assert ran == [1]
    assert isinstance(caught.value.__cause__, ExportError)


def test_a_send_error_of_the_start_is_raised_after_the_function_too(client: Client) -> None:
    exporter = ScriptedExporter(ExportError("first"))
    run = client(exporter=exporter, delivery="await", raise_on_send_error=True).run("checkout", "r1")
    ran: list[int] = []
    with pytest.raises(DeliveryError, match="first"):
        run.step("pay", lambda: ran.append(1))
    assert ran == [1]


def test_the_applications_own_exception_goes_first(client: Client) -> None:
    exporter = ScriptedExporter(ExportError("x"), ExportError("y"))
    run = client(exporter=exporter, delivery="await", raise_on_send_error=True).run("checkout", "r1")
    own = ValueError("declined")

    def fail() -> None:
        raise own

    with pytest.raises(ValueError, match="declined") as caught:
        run.step("pay", fail)
    assert caught.value is own


@pytest.mark.parametrize("failure", [ExportError("x"), RetryableError("y"), UnauthorizedError("z"), SystemExit(1)])
def test_send_errors_are_swallowed_unless_asked_for(client: Client, failure: BaseException) -> None:
    run = client(exporter=ScriptedExporter(failure), delivery="await").run("checkout", "r1")
    assert run.step("pay", lambda: 5) == 5


@both_async_ways
def test_the_event_loop_is_not_held_up(client: Client, step: Any) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=30_000)

    async def main() -> None:
        entered = asyncio.ensure_future(step(failpath.run("checkout", "r1"), body))
        assert await asyncio.to_thread(exporter.entered.wait, 20)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not entered.done()
        assert exporter.batches == []
        exporter.gate.set()
        await entered

    async def body() -> None:
        pass

    asyncio.run(main())
    assert [e.status for e in exporter.events] == ["running", "success"]


@both_async_ways
def test_cancelled_while_it_waits_a_step_ends_as_an_error(client: Client, step: Any) -> None:
    """And its events are delivered all the same."""
    exporter = ScriptedExporter()
    exporter.gate.clear()
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=500)

    async def body() -> None:
        raise AssertionError("not reached")

    async def main() -> None:
        task = asyncio.ensure_future(step(failpath.run("checkout", "r1"), body))
        await asyncio.to_thread(exporter.entered.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    exporter.gate.set()
    assert failpath.flush(20_000)
    assert [e.status for e in exporter.events] == ["running", "error"]
    assert exporter.events[1].error is not None
    assert exporter.events[1].error.name == "CancelledError"


def test_a_loop_whose_threads_are_gone_sends_from_the_loop(client: Client) -> None:
    exporter = ScriptedExporter()
    failpath = client(exporter=exporter, delivery="await")

    async def main() -> None:
        await asyncio.get_running_loop().shutdown_default_executor()
        async with failpath.run("checkout", "r1").step("pay"):
            pass

    asyncio.run(main())
    assert [e.status for e in exporter.events] == ["running", "success"]


def test_a_hanging_destination_holds_a_call_up_for_the_send_timeout_only(client: Client) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    run = client(exporter=exporter, delivery="await", send_timeout_millis=100, raise_on_send_error=True).run("checkout", "r1")
    with pytest.raises(DeliveryError, match="not sent within 100 ms"):
        run.step("pay", lambda: None)
    assert exporter.batches == [], "the exporter's end was waited for, a minute later"
    exporter.gate.set()


def test_while_the_destination_fails_nothing_is_waited_for(client: Client) -> None:
    exporter = ScriptedExporter(RetryableError("down", retry_after=600))
    failpath = client(exporter=exporter, delivery="await", send_timeout_millis=60_000)
    run = failpath.run("checkout", "r1")
    with sooner_than(30):
        for _ in range(20):
            run.step("pay", lambda: None)
    assert len(exporter.calls) == 1
    assert failpath.stats().pending == 40


def test_an_event_is_not_blamed_for_the_failure_of_another(deliver: Deliver) -> None:
    """Of two threads that wait, only the one whose event was refused learns of it."""
    first, second = event(1), event(2)
    exporter = ScriptedExporter(RejectedError({first.event_id: "odd"}))
    exporter.gate.clear()
    delivery = deliver(exporter)
    verdicts: dict[str, Any] = {}
    threads = []
    for each in (first, second):

        def wait(each: Any = each) -> None:
            verdicts[each.event_id] = delivery.record_and_wait(each, 20_000)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        until(lambda: exporter.entered.is_set() and delivery.stats().recorded == len(threads))
    exporter.gate.set()
    for thread in threads:
        thread.join()
    assert isinstance(verdicts[first.event_id], DeliveryError)
    assert verdicts[second.event_id] is None


def test_an_event_that_finds_no_room_is_a_send_error(deliver: Deliver) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    delivery = deliver(exporter, max_queue_size=1)
    delivery.record(event(1))
    assert exporter.entered.wait(10)
    verdict = delivery.record_and_wait(event(2), 20_000)
    assert isinstance(verdict, DeliveryError)
    assert "queue_full" in str(verdict)


def test_after_shutdown_an_event_is_a_send_error_at_once(deliver: Deliver) -> None:
    delivery = deliver(ScriptedExporter())
    delivery.shutdown(100)
    verdict = delivery.record_and_wait(event(1), 20_000)
    assert isinstance(verdict, DeliveryError)
    assert "shutdown" in str(verdict)


def test_in_the_background_flush_raises_what_was_lost(client: Client) -> None:
    exporter = ScriptedExporter(ExportError("400"))
    failpath = client(exporter=exporter, raise_on_send_error=True)
    assert failpath.run("checkout", "r1").step("pay", lambda: 3) == 3
    with pytest.raises(DeliveryError, match="400"):
        failpath.flush(20_000)
    assert failpath.flush(20_000)


def test_in_the_background_flush_raises_while_events_are_held(client: Client) -> None:
    exporter = ScriptedExporter(RetryableError("503", retry_after=600))
    failpath = client(exporter=exporter, raise_on_send_error=True)
    failpath.run("checkout", "r1").step("pay", lambda: 3)
    with pytest.raises(DeliveryError, match="503"):
        failpath.flush(1000)


def test_a_failure_that_a_retry_made_good_is_not_raised(client: Client) -> None:
    exporter = ScriptedExporter(RetryableError("503"))
    failpath = client(exporter=exporter, raise_on_send_error=True)
    failpath.run("checkout", "r1").step("pay", lambda: 3)
    assert failpath.flush(20_000)
    assert failpath.stats().retries == 1


def test_record_step_raises_only_where_asked_for(client: Client) -> None:
    def record(failpath: FailpathClient) -> None:
        failpath.record_step(flow_key="checkout", run_id="r1", step_key="pay", status="success")

    record(client(exporter=ScriptedExporter(ExportError("no")), delivery="await"))
    with pytest.raises(DeliveryError):
        record(client(exporter=ScriptedExporter(ExportError("no")), delivery="await", raise_on_send_error=True))


def test_aflush_does_not_hold_the_loop_up(client: Client) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    failpath = client(exporter=exporter)
    failpath.run("checkout", "r1").skip("pay")

    async def main() -> None:
        flushing = asyncio.ensure_future(failpath.aflush(20_000))
        await asyncio.to_thread(exporter.entered.wait, 10)
        assert not flushing.done()
        exporter.gate.set()
        assert await flushing

    asyncio.run(main())


def test_aflush_keeps_its_bound_where_the_threads_of_the_loop_are_all_taken(client: Client) -> None:
    failpath = client(exporter=ScriptedExporter())
    failpath.run("checkout", "r1").skip("pay")
    done = threading.Event()

    async def main() -> FlushResult:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as threads:
            loop.set_default_executor(threads)
            hanging = loop.run_in_executor(None, done.wait, 60)
            try:
                return await asyncio.wait_for(failpath.aflush(20_000), 30)
            finally:
                done.set()
                await hanging

    assert asyncio.run(main()).sent == 1
