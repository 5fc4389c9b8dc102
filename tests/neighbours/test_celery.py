"""With a real worker and a real broker, a task's steps are steps of its sender's run, in one trace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.http_sink import HttpSink
from support.processes import arrived, once, running, script, settings

pytestmark = pytest.mark.slow

TASKS = """
import os

from celery import Celery, signals
from celery.exceptions import Ignore
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from failpath_otel import FailpathClient
from failpath_otel.integrations.celery import connect

app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True
trace.set_tracer_provider(TracerProvider())
failpath = FailpathClient(flows=False)


def instrument(**_):
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    CeleryInstrumentor().instrument()


# As OpenTelemetry's documentation has it, in the processes of the pool; or before us, as opentelemetry-instrument does it.
if os.environ["INSTRUMENTED"] == "in the pool":
    signals.worker_process_init.connect(instrument, weak=False)
if os.environ["INSTRUMENTED"] == "first":
    instrument()
connect(
    failpath,
    flows={"nightly": "report"},
    step_key=lambda task: task.name if task.name in {"charge", "flaky", "broken", "ignored"} else None,
)


def say(key):
    failpath.step(key)(lambda: None)()


@app.task(name="pack")
def pack(number):
    say(f"pack-{number}")
    return number + 1


@app.task(name="charge")
def charge():
    say("ask-the-bank")
    notify.delay()


@app.task(name="notify")
def notify():
    say("mail")


@app.task(name="flaky", bind=True, max_retries=1)
def flaky(self):
    if self.request.retries == 0:
        raise self.retry(exc=OSError("busy"), countdown=0)


@app.task(name="broken")
def broken():
    raise LookupError("no such order")


@app.task(name="ignored")
def ignored():
    raise Ignore


@app.task(name="nightly")
def nightly():
    say("collect")


@app.task(name="alone")
def alone():
    return None if failpath.current_run() is None else failpath.current_run().run_id
"""

SENDER = """
from celery import chain
from tasks import alone, broken, charge, failpath, flaky, ignored, instrument, nightly, os, pack, trace

if os.environ["INSTRUMENTED"] == "in the pool":
    instrument()

with failpath.run("checkout", "r1"), trace.get_tracer("shop").start_as_current_span("POST /checkout") as span:
    chain(pack.s(1), pack.s())().get(timeout=50)
    flaky.delay().get(timeout=50)
    broken.delay().get(timeout=50, propagate=False)
    ignored.delay()
    charge.delay().get(timeout=50)
print(f"{span.get_span_context().trace_id:032x}")
nightly.apply_async(task_id="tonight").get(timeout=50)
# In the process that has just worked for a run.
assert [alone.delay().get(timeout=50) for _ in range(4)] == [None] * 4
"""

CHECKOUT = once(
    ("pack-1", "running"), ("pack-1", "success"), ("pack-2", "running"), ("pack-2", "success"),
    ("flaky", "running"), ("flaky", "error"), ("flaky", "running"), ("flaky", "success"),
    ("broken", "running"), ("broken", "error"),
    ("ignored", "running"), ("ignored", "success"),
    ("charge", "running"), ("charge", "success"), ("ask-the-bank", "running"), ("ask-the-bank", "success"),
    ("mail", "running"), ("mail", "success"),
)  # fmt: skip


@pytest.fixture(scope="module")
def broker(redis_url: str, needs: Callable[..., None]) -> str:
    needs("celery", "redis", "opentelemetry.instrumentation.celery")
    return redis_url


def events(sink: HttpSink, run_id: str) -> list[dict[str, Any]]:
    return [event for event in sink.stored.values() if event["runId"] == run_id]


@pytest.mark.parametrize(
    ("instrumented", "pool", "database"),
    [
        ("in the pool", ["prefork"], 0),
        ("first", ["solo"], 1),
        ("no", ["prefork", "--max-tasks-per-child", "1"], 2),  # each process ends as soon as its task has said its last
    ],
    ids=["instrumented in the pool", "instrumented first", "a process a task"],
)
def test_a_run_goes_on_in_the_worker_and_nothing_of_it_stays_behind(
    instrumented: str, pool: list[str], database: int, sink: HttpSink, tmp_path: Path, broker: str
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    env = settings(sink, {"BROKER": f"{broker}/{database}", "INSTRUMENTED": instrumented})
    worker = (sys.executable, "-m", "celery", "-A", "tasks", "worker", "-l", "warning", "-c", "1", "-P", *pool)
    with running(tmp_path, env, *worker) as (_, log):
        trace_id = script(tmp_path, SENDER, env).stdout.strip()
    told = arrived(sink)
    assert told.get("r1") == CHECKOUT, log.read_text()
    assert {run for run in told if run != "r1"} == {"tonight"}
    assert told["tonight"] == once(("collect", "running"), ("collect", "success"))
    assert {event["traceId"] for event in events(sink, "r1")} == {trace_id}
    errors = [event["error"]["name"] for event in events(sink, "r1") if event["status"] == "error"]
    assert sorted(errors) == ["LookupError", "OSError"]
    assert not [word for word in ("Failed to detach", "Signal handler", "failpath_otel") if word in log.read_text()], (
        log.read_text()
    )
