"""With a real Redis and real consumers of Huey, a task is of its sender's run."""

from __future__ import annotations

import logging
import signal
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

TASKS = """
import os
import signal

from huey import RedisHuey
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from failpath_otel import FailpathClient
from failpath_otel.integrations.huey import connect

trace.set_tracer_provider(TracerProvider())
failpath = FailpathClient(flows=False)
huey = RedisHuey("shop", url=os.environ["BROKER"])
STEPS = {"charge", "flaky", "later", "broken", "cancelled"}
connect(failpath, huey, flows={"nightly": "report"}, step_key=lambda task: task.name if task.name in STEPS else None)


def say(key):
    failpath.step(key)(lambda: None)()


@huey.task()
def pack(number):
    say(f"pack-{number}")
    return number + 1


@huey.task()
def charge():
    say("ask-the-bank")
    notify()


@huey.task()
def notify():
    say("mail")


@huey.task()
def total(numbers):
    say(f"total-{sum(numbers)}")


@huey.task()
def complain(error):
    say("complain")


@huey.task(retries=1, context=True)
def flaky(task=None):
    if task.retries:
        raise OSError("busy")


@huey.task(retries=1, retry_delay=1, context=True)
def later(task=None):
    if task.retries:
        raise OSError("busy")


@huey.task()
def broken():
    raise LookupError("no such order")


@huey.pre_execute()
def forbid(task):
    if task.name == "cancelled":
        from huey.exceptions import CancelExecution

        raise CancelExecution


@huey.task()
def cancelled():
    say("never")


@huey.task()
def nightly():
    say("collect")


@huey.task()
def last(consumer):
    say("last")
    os.kill(consumer, signal.SIGINT)


@huey.task()
def alone():
    return failpath.current_run() is None
"""

SENDER = """
from huey.api import chord
from opentelemetry import trace
from tasks import alone, broken, cancelled, charge, complain, failpath, flaky, huey, later, nightly, notify, pack, total

with failpath.run("checkout", "r1"), trace.get_tracer("shop").start_as_current_span("POST /checkout") as span:
    huey.enqueue(pack.s(1).then(pack))
    huey.enqueue(chord([pack.s(3), pack.s(4)], total.s()))
    charge()
    flaky()
    later()
    huey.enqueue(broken.s().error(complain))
    cancelled()
    notify.schedule(delay=1)
nightly()
assert alone().get(blocking=True, timeout=50) is True
print(f"{span.get_span_context().trace_id:032x}")
"""

LAST = """
import sys

import tasks

with tasks.failpath.run("restock", "r2"):
    tasks.last(int(sys.argv[1]))  # ends the consumer
"""

CHECKOUT = once(
    *[(f"pack-{number}", status) for number in (1, 2, 3, 4) for status in ("running", "success")],
    ("total-9", "running"), ("total-9", "success"),
    ("charge", "running"), ("charge", "success"), ("ask-the-bank", "running"), ("ask-the-bank", "success"),
    *[(key, status) for key in ("flaky", "later") for status in ("running", "error", "running", "success")],
    ("broken", "running"), ("broken", "error"), ("complain", "running"), ("complain", "success"),
    ("cancelled", "running"), ("cancelled", "error"),
    *[("mail", "running"), ("mail", "success")] * 2,
)  # fmt: skip


@pytest.fixture(scope="module")
def broker(redis_url: str, needs: Callable[..., None]) -> str:
    needs("huey", "redis")
    return redis_url


@pytest.mark.parametrize(("kind", "database"), [("thread", 0), ("process", 1)])
def test_a_run_goes_on_in_the_consumer_and_nothing_of_it_stays_behind(
    kind: str, database: int, sink: HttpSink, tmp_path: Path, broker: str
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    env = settings(sink, {"BROKER": f"{broker}/{database}", "PYTHONPATH": str(tmp_path)})
    consumer = (sys.executable, "-m", "huey.bin.huey_consumer", "tasks.huey", "-k", kind, "-w", "2")
    with running(tmp_path, env, *consumer, ends_by=signal.SIGINT) as (process, log):
        trace_id = script(tmp_path, SENDER, env).stdout.strip()
        try:
            until(lambda: arrived(sink).get("r1") == CHECKOUT, 2 * SECONDS)
        except AssertionError:
            raise AssertionError((arrived(sink), log.read_text())) from None
        script(tmp_path, LAST, env, str(process.pid))
        process.wait(SECONDS)
    told = arrived(sink)
    assert told.pop("r2") == once(("last", "running"), ("last", "success"))
    assert told.pop("r1") == CHECKOUT
    assert list(told.values()) == [once(("collect", "running"), ("collect", "success"))]
    assert {event["traceId"] for event in sink.events if event["flowKey"] == "checkout"} == {trace_id}
    errors: list[Any] = [event for event in sink.events if event["status"] == "error"]
    assert {event["stepKey"]: event["error"]["name"] for event in errors} == {
        "flaky": "OSError",
        "later": "OSError",
        "broken": "LookupError",
        "cancelled": "CancelExecution",
    }
    assert "hook failpath" not in log.read_text()
    assert "Error occurred in receiver" not in log.read_text()


def test_a_task_gets_its_own_arguments_and_connect_called_again_takes_the_place_of_the_call_before(
    needs: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    needs("huey")
    from huey import MemoryHuey

    from failpath_otel.integrations.huey import connect

    huey = MemoryHuey(immediate=True)
    with RecordingClient(flows=False) as client:
        connect(client, huey, step_key=lambda task: "first")
        connect(client, huey, step_key=lambda task: task.name)

        @huey.task()
        def ship(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        order = {"number": 7}
        with client.run("checkout", "r1"):
            assert ship(1, **order).get() == ((1,), {"number": 7})
            assert client.current_run() is not None
        assert ship(2, **order).get() == ((2,), {"number": 7})
        told = [(event.run_id, event.step_key, event.status) for event in client.events]
    assert order == {"number": 7}
    assert told == [("r1", "ship", "running"), ("r1", "ship", "success")]
    assert caplog.text.count("connect() was called again") == 1


def test_a_task_that_still_runs_when_the_consumer_ends_did_not_succeed(needs: Callable[..., None]) -> None:
    needs("huey")
    from huey import MemoryHuey

    from failpath_otel.integrations.huey import connect

    huey = MemoryHuey(immediate=True)
    with RecordingClient(flows=False) as client:
        connect(client, huey, step_key=lambda task: task.name)

        @huey.task()
        def ship() -> None:
            huey.notify_interrupted_tasks()

        with client.run("checkout", "r1"):
            ship()
        found = [(event.status, event.error and event.error.name) for event in client.events]
    assert found == [("running", None), ("error", "KeyboardInterrupt")]


def test_the_run_of_a_task_that_another_hook_cancels_is_not_given_to_the_retry_of_a_later_one(
    needs: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    needs("huey")
    caplog.set_level(logging.CRITICAL + 1, "huey")  # a record of an exception keeps the task
    from huey import MemoryHuey
    from huey.exceptions import CancelExecution

    from failpath_otel.integrations.huey import connect

    huey = MemoryHuey(immediate=True)
    ran_in: list[Any] = []
    with RecordingClient(flows=False) as client:
        connect(client, huey)

        @huey.task()
        def closed() -> None: ...

        @huey.task(retries=1)
        def flaky() -> None:
            ran_in.append(client.current_run())
            raise OSError("busy")

        @huey.pre_execute()
        def gate(task: Any) -> None:
            if task.name == "closed":
                raise CancelExecution

        for number in range(10):  # Python soon gives a new task the place of one that is over
            with client.run("checkout", number):
                closed()
            flaky()
    assert ran_in == [None] * 20
