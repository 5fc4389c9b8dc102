"""Beside tests that hold the clock still: what is recorded is sent, in real time, and says when it happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from support.http_sink import HttpSink, always, hang
from support.otlp_grpc import grpc_sink
from support.processes import script, settings

FREEZEGUN = """
from freezegun import freeze_time
def frozen():
    return freeze_time({arguments})
"""
FROZEN = {
    "freezegun": ("freezegun", FREEZEGUN.format(arguments="'2012-01-14 12:00:01'")),
    "freezegun, an hour at each look": ("freezegun", FREEZEGUN.format(arguments="'2012-01-14', auto_tick_seconds=3600")),
    "freezegun, in a year to come and in threads": (
        "freezegun",
        "import freezegun\nfreezegun.configure(default_ignore_list=['no.such.module'])\n"
        + FREEZEGUN.format(arguments="'2099-01-14'"),
    ),
    "time-machine": (
        "time_machine",
        "import time_machine\ndef frozen():\n    return time_machine.travel('2012-01-14T12:00:01Z', tick=False)\n",
    ),
    "functions that the test replaced": (
        "unittest.mock",
        """
import contextlib, time
from unittest import mock
@contextlib.contextmanager
def frozen():
    with contextlib.ExitStack() as stack:
        for name in ("time", "monotonic", "perf_counter", "sleep"):
            stack.enter_context(mock.patch(f"time.{name}", lambda *_: 1000.0))
            stack.enter_context(mock.patch(f"time.{name}_ns", lambda: 10**12, create=True))
        yield
""",
    ),
}
LOADED = "import asyncio, os, threading\nfrom failpath_otel import FailpathClient\n"
SLOW = """
def slow():
    threading.Event().wait(0.05)  # the lock's own clock, which is C's and cannot be frozen
"""


@pytest.fixture(params=FROZEN)
def frozen(request: pytest.FixtureRequest, needs: Callable[..., None]) -> str:
    """Source that defines ``frozen()``, within which the clock does not go."""
    module, source = FROZEN[request.param]
    needs(module)
    return source


def nanoseconds(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e9)


def assert_real(events: list[dict[str, Any]], began_ns: int) -> None:
    """The events happened since then, as the clock of this process says."""
    for event in events:
        for name in ("timestamp", "startedAt"):
            if name in event:
                # On the wire a time has microseconds.
                assert began_ns - 1_000 <= nanoseconds(event[name]) <= time.time_ns(), event


def test_flush_and_shutdown_return_and_what_was_recorded_has_real_times(frozen: str, sink: HttpSink, tmp_path: Path) -> None:
    began_ns = time.time_ns()
    source = (
        LOADED
        + frozen
        + SLOW
        + """
failpath = FailpathClient(flows=False)
with frozen():
    run = failpath.run("checkout", "1")
    run.step("slow", slow)
    run.skip("mail")
    failpath.record_step(flow_key="checkout", run_id="1", step_key="told", status="error", error=ValueError("no"))
    assert failpath.flush(), failpath.stats()
    run.step("next", slow)
    assert asyncio.run(failpath.aflush()), failpath.stats()
    run.step("last", slow)
    failpath.shutdown()
    assert failpath.stats().sent == 8, failpath.stats()
"""
    )
    script(tmp_path, source, settings(sink))
    assert len(sink.events) == 8
    assert_real(sink.events, began_ns)
    slow = next(event for event in sink.events if event["stepKey"] == "slow" and event["status"] == "success")
    assert slow["durationMs"] >= 50


def test_a_step_that_the_freeze_begins_or_ends_within_has_its_real_duration(
    frozen: str, sink: HttpSink, tmp_path: Path
) -> None:
    began_ns = time.time_ns()
    source = (
        LOADED
        + frozen
        + SLOW
        + """
failpath = FailpathClient(flows=False)
run = failpath.run("checkout", "1")
with run.step("around"):
    with frozen():
        slow()
freeze = frozen()
with run.step("into"):
    freeze.__enter__()
    slow()
with run.step("out-of"):
    slow()
    freeze.__exit__(None, None, None)
assert failpath.flush()
"""
    )
    script(tmp_path, source, settings(sink))
    assert_real(sink.events, began_ns)
    durations = {event["stepKey"]: event["durationMs"] for event in sink.events if event["status"] == "success"}
    assert durations.keys() == {"around", "into", "out-of"}
    assert all(50 <= duration < 60_000 for duration in durations.values()), durations


def test_the_package_may_be_imported_within_a_freeze(frozen: str, sink: HttpSink, tmp_path: Path) -> None:
    began_ns = time.time_ns()
    source = (
        "import threading\n"
        + frozen
        + SLOW
        + """
with frozen():
    from failpath_otel import FailpathClient
    from failpath_otel.events.wire import decode_event, encode_event
    from failpath_otel.testing import RecordingClient
    failpath = FailpathClient(flows=False)
    failpath.run("checkout", "1").step("within", slow)
    assert failpath.flush(), failpath.stats()
failpath.run("checkout", "1").step("after", slow)
assert failpath.flush()
client = RecordingClient(flows=False)
with frozen():
    client.run("checkout", "1").step("again", slow)
again = client.events[-1]
assert again.duration_ms >= 50, again
assert decode_event(encode_event(again)).status == "success"
"""
    )
    script(tmp_path, source, settings(sink))
    assert len(sink.events) == 4
    assert_real(sink.events, began_ns)


def test_delivery_await_waits_and_comes_to_an_end(frozen: str, sink: HttpSink, tmp_path: Path) -> None:
    source = (
        LOADED
        + frozen
        + """
failpath = FailpathClient(flows=False, delivery="await", send_timeout_millis=20_000)
with frozen():
    failpath.run("checkout", "1").step("awaited", lambda: None)
    assert failpath.stats().sent == 2, failpath.stats()
os._exit(0)
"""
    )
    script(tmp_path, source, settings(sink))
    assert len(sink.events) == 2


def test_the_process_sends_and_ends_though_it_exits_within_the_freeze(frozen: str, sink: HttpSink, tmp_path: Path) -> None:
    began_ns = time.time_ns()
    source = (
        LOADED
        + frozen
        + """
failpath = FailpathClient(flows=False)
freeze = frozen()
freeze.__enter__()
failpath.run("checkout", "1").step("last", lambda: None)
"""
    )
    script(tmp_path, source, settings(sink))
    assert len(sink.events) == 2
    assert_real(sink.events, began_ns)


def test_without_an_answer_a_flush_ends_at_its_deadline(frozen: str, sink: HttpSink, tmp_path: Path) -> None:
    sink.answer = hang(sink)
    source = (
        LOADED
        + frozen
        + """
failpath = FailpathClient(flows=False, send_timeout_millis=0)
with frozen():
    failpath.run("checkout", "1").step("held", lambda: None)
    assert not failpath.flush(timeout_millis=300)
    failpath.shutdown(timeout_millis=300)
    assert failpath.stats().sent == 0
os._exit(0)
"""
    )
    script(tmp_path, source, settings(sink))


def test_a_wait_until_a_date_that_the_server_names_is_waited_out_and_ends(frozen: str, sink: HttpSink, tmp_path: Path) -> None:
    waits: list[bool] = []

    def answer(request: Any, connection: Any) -> None:
        if not waits:
            waits.append(True)
            always(503, b"", Retry_After=formatdate(time.time() + 1, usegmt=True))(request, connection)
        else:
            always(202, sink.store(request))(request, connection)

    sink.answer = answer
    source = (
        LOADED
        + frozen
        + """
failpath = FailpathClient(flows=False)
with frozen():
    failpath.run("checkout", "1").step("held", lambda: None)
    assert failpath.flush(timeout_millis=30_000), failpath.stats()
"""
    )
    script(tmp_path, source, settings(sink))
    assert len(sink.events) == 2


def test_a_call_by_grpc_has_its_real_deadline(frozen: str, sink: HttpSink, tmp_path: Path) -> None:
    source = (
        LOADED
        + frozen
        + """
failpath = FailpathClient(flows=False, exporter="otlp", send_timeout_millis=20_000)
with frozen():
    failpath.run("checkout", "1").step("by-grpc", lambda: None)
    assert failpath.flush(), failpath.stats()
"""
    )
    with grpc_sink() as collector:
        otlp = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}
        script(tmp_path, source, settings(sink, otlp))
        assert sum(collector.arrivals.values()) == 2
