"""With a real Redis and real workers of RQ, a job is of its sender's run, and its outcome leaves the work horse."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.http_sink import HttpSink
from support.processes import SECONDS, arrived, once, script, settings

from failpath_otel.testing import RecordingClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TELEMETRY = """
from rq.worker import SpawnWorker

from failpath_otel import FailpathClient
from failpath_otel.integrations.rq import connect
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
failpath = FailpathClient(flows=False)
STEPS = {"charge", "flaky", "broken", "slow", "asks_again"}
connect(
    failpath,
    flows={"jobs.nightly": "report"},
    step_key=lambda job: job.func_name.removeprefix("jobs.") if job.func_name.removeprefix("jobs.") in STEPS else None,
)


class Spawning(SpawnWorker):
    pass
"""

JOBS = """
import os
import time

from redis import Redis
from rq import Queue, Retry, get_current_job
from telemetry import failpath

queue = Queue(connection=Redis.from_url(os.environ["BROKER"]))


def say(key):
    failpath.step(key)(lambda: None)()


async def pack():
    say("pack")


def charge():
    say("ask-the-bank")
    queue.enqueue(notify)


def notify():
    say("mail")


def done(job, connection, result):
    queue.enqueue(notify)


def flaky():
    if get_current_job().retries_left == 1:
        raise OSError("busy")


def asks_again():
    job = get_current_job()
    if not job.meta.get("asked"):
        job.meta["asked"] = True
        job.save_meta()
        return Retry(max=1)


def broken():
    raise LookupError("no such order")


def slow():
    time.sleep(60)


def nightly():
    say("collect")


def alone():
    return None if failpath.current_run() is None else failpath.current_run().run_id
"""

SENDER = """
import jobs
from jobs import failpath, queue
from opentelemetry import trace
from rq import Retry

meta = {"of": "the service"}
with failpath.run("checkout", "r1"), trace.get_tracer("shop").start_as_current_span("POST /checkout") as span:
    queue.enqueue(jobs.pack, meta=meta)
    queue.enqueue(jobs.charge)
    queue.enqueue(jobs.flaky, retry=Retry(max=1))
    queue.enqueue(jobs.asks_again)
    queue.enqueue(jobs.broken)
    queue.enqueue(jobs.slow, job_timeout=1)
    queue.enqueue_many([queue.prepare_data(jobs.notify, meta=meta)])
assert meta == {"of": "the service"}
queue.enqueue(jobs.nightly, job_id="tonight")
queue.enqueue(jobs.alone, job_id="alone")
print(f"{span.get_span_context().trace_id:032x}")
"""

AFTER = """
from jobs import queue

assert queue.fetch_job("alone").return_value() is None
assert queue.fetch_job("alone").get_status() == "finished"
"""

CHECKOUT = once(
    ("pack", "running"), ("pack", "success"),
    ("charge", "running"), ("charge", "success"), ("ask-the-bank", "running"), ("ask-the-bank", "success"),
    ("flaky", "running"), ("flaky", "error"), ("flaky", "running"), ("flaky", "success"),
    ("asks_again", "running"), ("asks_again", "error"), ("asks_again", "running"), ("asks_again", "success"),
    ("broken", "running"), ("broken", "error"),
    ("slow", "running"), ("slow", "error"),
    ("mail", "running"), ("mail", "success"), ("mail", "running"), ("mail", "success"),
)  # fmt: skip


@pytest.fixture(scope="module")
def broker(redis_url: str, needs: Callable[..., None]) -> str:
    needs("rq", "redis")
    return redis_url


def work(folder: Path, env: dict[str, str], kind: str) -> str:
    """A worker that does what there is and ends; what it says."""
    command = [sys.executable, "-m", "rq.cli", "worker", "-c", "telemetry", "--worker-class", kind, "--burst"]
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        return process.communicate(timeout=4 * SECONDS)[0]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(SECONDS)


def prepared(folder: Path, sink: HttpSink, address: str) -> dict[str, str]:
    (folder / "telemetry.py").write_text(TELEMETRY)
    (folder / "jobs.py").write_text(JOBS)
    return settings(sink, {"BROKER": address, "RQ_REDIS_URL": address, "PYTHONPATH": str(folder)})


def errors_of(sink: HttpSink) -> dict[str, str]:
    found: list[dict[str, Any]] = [event for event in sink.events if event["status"] == "error"]
    return {event["stepKey"]: event["error"]["name"] for event in found}


@pytest.mark.parametrize(
    ("kind", "database"),
    [("rq.worker.Worker", 0), ("rq.worker.SimpleWorker", 1)],
    ids=["a forked work horse", "no work horse"],
)
def test_a_run_goes_on_in_the_worker_and_no_outcome_is_lost(
    kind: str, database: int, sink: HttpSink, tmp_path: Path, broker: str
) -> None:
    env = prepared(tmp_path, sink, f"{broker}/{database}")
    trace_id = script(tmp_path, SENDER, env).stdout.strip()
    said = work(tmp_path, env, kind)
    script(tmp_path, AFTER, env)
    told = arrived(sink)
    assert told.get("r1") == CHECKOUT, said
    assert {run for run in told if run != "r1"} == {"tonight"}
    assert told["tonight"] == once(("collect", "running"), ("collect", "success"))
    assert {event["traceId"] for event in sink.events if event["runId"] == "r1"} == {trace_id}
    assert errors_of(sink) == {
        "flaky": "OSError",
        "asks_again": "Retry",
        "broken": "LookupError",
        "slow": "JobTimeoutException",
    }


SENDER_OF_TWO = """
import jobs
from jobs import failpath, queue

with failpath.run("checkout", "r1"):
    queue.enqueue(jobs.pack)
    queue.enqueue(jobs.broken)
"""


def test_a_spawned_work_horse_knows_of_it_by_the_module_of_its_worker_class(
    sink: HttpSink, tmp_path: Path, broker: str
) -> None:
    if version("rq").startswith("2."):
        pytest.skip("before RQ 3 a spawned work horse has the plain worker class")
    env = prepared(tmp_path, sink, f"{broker}/2")
    script(tmp_path, SENDER_OF_TWO, env)
    said = work(tmp_path, env, "telemetry.Spawning")
    assert arrived(sink) == {
        "r1": once(("pack", "running"), ("pack", "success"), ("broken", "running"), ("broken", "error"))
    }, said


def test_a_queue_that_performs_its_jobs_at_once_and_what_comes_after_disconnect(
    broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    from redis import Redis
    from rq import Queue

    from failpath_otel.integrations.rq import connect

    with RecordingClient(flows=False) as client, Redis.from_url(f"{broker}/3") as redis:
        connect(client)
        connection = connect(client, step_key=lambda job: job.func_name)
        queue = Queue(connection=redis, is_async=False)
        with client.run("checkout", "r1"):
            job = queue.enqueue(abs, -7)
            assert client.current_run() is not None
            connection.disconnect()
            queue.enqueue(abs, -7)
        assert job.meta["failpath"]["baggage"] == "failpath.flow.slug=checkout,failpath.run.id=r1"
        told = [(event.run_id, event.step_key, event.status) for event in client.events]
    assert told == [("r1", "builtins.abs", "running"), ("r1", "builtins.abs", "success")]
    assert caplog.text.count("connect() was called again") == 1


def replaces_its_meta() -> None:
    from rq import get_current_job

    job = get_current_job()
    job.meta = {"of": "the job"}
    job.save_meta()
    raise OSError("busy")


def test_a_job_that_puts_a_meta_of_its_own_in_place_runs_again_in_its_run(broker: str) -> None:
    from redis import Redis
    from rq import Queue, Retry, SimpleWorker

    from failpath_otel.integrations.rq import connect

    with RecordingClient(flows=False) as client, Redis.from_url(f"{broker}/4") as redis:
        connection = connect(client, step_key=lambda job: "charge")
        queue = Queue(connection=redis)
        with client.run("checkout", "r1"):
            job = queue.enqueue(replaces_its_meta, retry=Retry(max=1))
        SimpleWorker([queue], connection=redis).work(burst=True)
        connection.disconnect()
        client.assert_story("checkout", "charge:error(OSError),error(OSError)", "r1")
        assert job.get_meta()["of"] == "the job"
