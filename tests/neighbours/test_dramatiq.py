"""With a real broker and real worker processes of Dramatiq, a message is of its sender's run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.http_sink import HttpSink
from support.processes import SECONDS, arrived, once, running, script, settings
from support.served import until

from failpath_otel.testing import RecordingClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ACTORS = """
import os
import signal
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, CurrentMessage
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from failpath_otel import FailpathClient
from failpath_otel.integrations.dramatiq import connect

trace.set_tracer_provider(TracerProvider())
failpath = FailpathClient(flows=False)
broker = RedisBroker(url=os.environ["BROKER"])
broker.add_middleware(AsyncIO())
broker.add_middleware(CurrentMessage())
STEPS = {"charge", "flaky", "broken", "slow"}
connect(
    failpath,
    broker,
    flows={"nightly": "report"},
    step_key=lambda message: message.actor_name if message.actor_name in STEPS else None,
)
dramatiq.set_broker(broker)


def say(key):
    failpath.step(key)(lambda: None)()


@dramatiq.actor
async def pack(number):
    say(f"pack-{number}")
    return number + 1


@dramatiq.actor
def charge():
    say("ask-the-bank")
    notify.send()


@dramatiq.actor
def notify():
    say("mail")


@dramatiq.actor
def done(message, result):
    say("tell")


@dramatiq.actor(max_retries=1, min_backoff=1)
def flaky():
    if CurrentMessage.get_current_message().options.get("retries", 0) == 0:
        raise OSError("busy")


@dramatiq.actor(max_retries=0)
def broken():
    raise LookupError("no such order")


@dramatiq.actor(max_retries=0, time_limit=1)
def slow():
    while True:
        time.sleep(0.01)


@dramatiq.actor(max_age=1)
def late():
    say("never")


@dramatiq.actor
def nightly():
    say("collect")


@dramatiq.actor
def last():
    say("last")
    os.kill(os.getppid(), signal.SIGTERM)


@dramatiq.actor
def alone():
    assert failpath.current_run() is None
    broker.client.set("alone", "yes")
"""

SENDER = """
import actors
from actors import failpath
from opentelemetry import trace

with failpath.run("checkout", "r1"), trace.get_tracer("shop").start_as_current_span("POST /checkout") as span:
    (actors.pack.message(1) | actors.pack.message()).run()
    actors.charge.send()
    actors.notify.send_with_options(on_success=actors.done)
    actors.flaky.send()
    actors.broken.send()
    actors.slow.send()
    actors.late.send()
    actors.notify.send_with_options(delay=100)
actors.nightly.send()
actors.alone.send()
print(f"{span.get_span_context().trace_id:032x}")
"""

LAST = """
import actors

with actors.failpath.run("restock", "r2"):
    actors.last.send()  # ends the worker
"""

CHECKOUT = once(
    ("pack-1", "running"), ("pack-1", "success"), ("pack-2", "running"), ("pack-2", "success"),
    ("charge", "running"), ("charge", "success"), ("ask-the-bank", "running"), ("ask-the-bank", "success"),
    ("flaky", "running"), ("flaky", "error"), ("flaky", "running"), ("flaky", "success"),
    ("broken", "running"), ("broken", "error"),
    ("slow", "running"), ("slow", "error"),
    ("tell", "running"), ("tell", "success"),
    *[("mail", "running"), ("mail", "success")] * 3,
)  # fmt: skip


@pytest.fixture(scope="module")
def broker(redis_url: str, needs: Callable[..., None]) -> str:
    needs("dramatiq", "redis")
    return redis_url


def test_a_run_goes_on_in_the_worker_and_nothing_of_it_stays_behind(sink: HttpSink, tmp_path: Path, broker: str) -> None:
    import redis

    (tmp_path / "actors.py").write_text(ACTORS)
    env = settings(sink, {"BROKER": f"{broker}/0"})
    trace_id = script(tmp_path, SENDER, env).stdout.strip()
    worker = (sys.executable, "-m", "dramatiq", "actors", "-p", "1", "-t", "2")
    with running(tmp_path, env, *worker) as (process, log), redis.Redis.from_url(f"{broker}/0") as asked:
        try:
            until(lambda: arrived(sink).get("r1") == CHECKOUT and asked.get("alone"), 2 * SECONDS)
        except AssertionError:
            raise AssertionError((arrived(sink), log.read_text())) from None
        script(tmp_path, LAST, env)
        process.wait(SECONDS)
    told = arrived(sink)
    assert told.pop("r2") == once(("last", "running"), ("last", "success"))
    assert told.pop("r1") == CHECKOUT
    assert list(told.values()) == [once(("collect", "running"), ("collect", "success"))]
    assert {event["traceId"] for event in sink.events if event["flowKey"] == "checkout"} == {trace_id}
    errors: list[Any] = [event for event in sink.events if event["status"] == "error"]
    assert {event["stepKey"]: event["error"]["name"] for event in errors} == {
        "flaky": "OSError",
        "broken": "LookupError",
        "slow": "TimeLimitExceeded",
    }
    assert "Unexpected failure" not in log.read_text()


def test_connect_called_again_for_a_broker_takes_the_place_of_the_call_before(
    needs: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    needs("dramatiq")
    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    from failpath_otel.integrations.dramatiq import connect

    broker = StubBroker()
    with RecordingClient(flows=False) as client:
        connect(client, broker, step_key=lambda message: "first")
        connect(client, broker, step_key=lambda message: message.actor_name)

        @dramatiq.actor(broker=broker)
        def ship() -> None: ...

        worker = dramatiq.Worker(broker, worker_timeout=100)
        worker.start()
        try:
            with client.run("checkout", "r1"):
                ship.send()
            broker.join("default", timeout=SECONDS * 1000)
            worker.join()
        finally:
            worker.stop()
            broker.close()
        told = [(event.run_id, event.step_key, event.status) for event in client.events]
    assert told == [("r1", "ship", "running"), ("r1", "ship", "success")]
    assert caplog.text.count("connect() was called again") == 1


def test_a_message_that_another_middleware_fails_is_no_attempt(needs: Callable[..., None]) -> None:
    needs("dramatiq")
    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    from failpath_otel.integrations.dramatiq import connect

    class Gate(dramatiq.Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            message.fail()

    broker = StubBroker(middleware=[Gate()])
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=1)
    with RecordingClient(flows=False) as client:
        connect(client, broker, step_key=lambda message: message.actor_name)

        @dramatiq.actor(broker=broker)
        def ship() -> None: ...

        with client.run("checkout", "r1"):
            ship.send()
        worker.start()
        try:
            broker.join(ship.queue_name, fail_fast=False, timeout=60_000)
            worker.join()
        finally:
            worker.stop()
        assert client.events == []
