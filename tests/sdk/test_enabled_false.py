"""``enabled=False``: functions run, and nothing else happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry.trace import INVALID_SPAN
from support.tracing import Tracing

from failpath_otel import FailpathClient, FlushResult, Stats


@pytest.fixture(params=["argument", "environment"])
def off(request: pytest.FixtureRequest, tracing: Tracing, monkeypatch: pytest.MonkeyPatch) -> FailpathClient:
    if request.param == "environment":
        monkeypatch.setenv("FAILPATH_ENABLED", "false")
        return FailpathClient(tracer_provider=tracing.provider, flows=False)
    return FailpathClient(enabled=False, tracer_provider=tracing.provider, flows=False)


def test_functions_run_and_nothing_is_recorded(off: FailpathClient, tracing: Tracing, caplog: pytest.LogCaptureFixture) -> None:
    threads = threading.active_count()
    run = off.run("checkout", "1", metadata={"a": 1})
    assert run.step("call", lambda: 5) == 5
    with run.step("block", metadata={"a": 1}) as step:
        step.set_metadata(b=2)
        assert step.span is INVALID_SPAN
    run.skip("skip")
    off.record_step(flow_key="checkout", run_id="1", step_key="by-hand", status="success")
    with run:
        assert off.step("decorated")(lambda: 6)() == 6
    assert tracing.spans == []
    assert (off.flush(), off.stats()) == (FlushResult(), Stats())
    assert off.flush()
    off.shutdown()
    assert threading.active_count() == threads
    assert caplog.records == []  # no project key is no matter, and no decorator asks for a run


def test_async_code_and_generators_run(off: FailpathClient, tracing: Tracing) -> None:
    @off.step("coroutine")
    async def coroutine() -> int:
        return 1

    @off.step("generator")
    def generator() -> Iterator[int]:
        yield from (2, 3)

    @off.step("async generator")
    async def async_generator() -> AsyncIterator[int]:
        yield 4

    async def main() -> list[int]:
        run = off.run("checkout", "1")
        async with run, run.step("block"):
            pass
        found = [await run.step("call", coroutine), await coroutine(), *generator()]
        return found + [value async for value in async_generator()]

    assert asyncio.run(main()) == [1, 1, 2, 3, 4]
    assert tracing.spans == []


def test_exceptions_pass(off: FailpathClient) -> None:
    failure = ValueError("x")

    def fail() -> None:
        raise failure

    run = off.run("checkout", "1")
    for act in (lambda: run.step("call", fail), off.step("decorated")(fail)):
        with pytest.raises(ValueError, match="x") as caught:
            act()
        assert caught.value is failure


def test_no_processor_is_attached(off: FailpathClient, tracing: Tracing) -> None:
    off.run("checkout", "1").step("call", lambda: None)
    assert len(tracing.provider.added) == 1


def test_hostile_arguments_pass(off: FailpathClient) -> None:
    run = off.run(None, object(), metadata=5)  # type: ignore[arg-type]
    assert run.step(None, lambda: 5, metadata=5) == 5  # type: ignore[call-overload]
    with run.step(5, metadata=5):  # type: ignore[call-overload]
        pass
    run.skip(None, reason=object())  # type: ignore[arg-type]
    assert run.run_id


def test_a_run_still_has_its_ids(off: FailpathClient) -> None:
    run = off.run("checkout", "req_1")
    assert (run.flow_key, run.run_id) == ("checkout", "req_1")
    assert off.run("checkout").run_id != off.run("checkout").run_id
