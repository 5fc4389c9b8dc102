"""With a real Redis and a real worker of arq, a job is of its sender's run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.http_sink import HttpSink
from support.processes import SECONDS, arrived, once, script, settings

from failpath_otel.errors import ConfigError
from failpath_otel.testing import RecordingClient

# arq asks for redis below 6 and says so of an argument that it gives to a later one.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:.*retry_on_timeout:DeprecationWarning"),
]

JOBS = """
import asyncio
import os

from arq import Retry, cron, func
from arq.connections import RedisSettings
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from failpath_otel import FailpathClient
from failpath_otel.integrations.arq import connect

trace.set_tracer_provider(TracerProvider())
failpath = FailpathClient(flows=False)
redis_settings = RedisSettings.from_dsn(os.environ["BROKER"])


def say(key):
    failpath.step(key)(lambda: None)()


async def charge(ctx):
    say("ask-the-bank")
    await ctx["redis"].enqueue_job("mail")


async def notify(ctx):
    await asyncio.sleep(0)
    say("mail")


async def flaky(ctx):
    if ctx["job_try"] == 1:
        raise Retry(defer=0)


async def broken(ctx):
    raise LookupError("no such order")


async def slow(ctx):
    await asyncio.sleep(60)


async def nightly(ctx):
    say("collect")


async def alone(ctx):
    return failpath.current_run() is None


class WorkerSettings:
    functions = [charge, func(notify, name="mail"), flaky, broken, func(slow, timeout=0.5), nightly, alone]
    cron_jobs = [cron(nightly, run_at_startup=True, hour=3, minute=14)]
    redis_settings = redis_settings
    burst = True
    poll_delay = 0.1


STEPS = {"charge", "flaky", "broken", "slow"}
connect(
    failpath,
    WorkerSettings,
    flows={"cron:nightly": "report", "nightly": "report"},
    step_key=lambda job: job.name if job.name in STEPS else None,
)
"""

SENDER = """
import asyncio

from arq import create_pool
from jobs import connect, failpath, redis_settings
from opentelemetry import trace


async def main():
    pool = await create_pool(redis_settings)
    connect(failpath, pool)
    with failpath.run("checkout", "r1"), trace.get_tracer("shop").start_as_current_span("POST /checkout") as span:
        for name in ("charge", "mail", "flaky", "broken", "slow"):
            await pool.enqueue_job(name)
        await pool.enqueue_job("mail", _defer_by=0.1)
    await pool.enqueue_job("nightly", _job_id="tonight")
    await pool.enqueue_job("alone", _job_id="alone")
    await pool.aclose()
    print(f"{span.get_span_context().trace_id:032x}")


asyncio.run(main())
"""

AFTER = """
import asyncio

from arq import create_pool
from arq.jobs import Job
from jobs import redis_settings


async def main():
    pool = await create_pool(redis_settings)
    assert await Job("alone", pool).result(timeout=0) is True
    await pool.aclose()


asyncio.run(main())
"""

CHECKOUT = once(
    ("charge", "running"), ("charge", "success"), ("ask-the-bank", "running"), ("ask-the-bank", "success"),
    ("flaky", "running"), ("flaky", "error"), ("flaky", "running"), ("flaky", "success"),
    ("broken", "running"), ("broken", "error"),
    ("slow", "running"), ("slow", "error"),
    *[("mail", "running"), ("mail", "success")] * 3,
)  # fmt: skip


@pytest.fixture(scope="module")
def broker(redis_url: str, needs: Callable[..., None]) -> str:
    needs("arq", "redis")
    return redis_url


def work(folder: Path, env: dict[str, str]) -> str:
    """A worker that does what there is and ends; what it says."""
    command = [sys.executable, "-m", "arq", "jobs.WorkerSettings"]
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        return process.communicate(timeout=2 * SECONDS)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECONDS)


def test_a_run_goes_on_in_the_worker_and_nothing_of_it_stays_behind(sink: HttpSink, tmp_path: Path, broker: str) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    env = settings(sink, {"BROKER": f"{broker}/0", "PYTHONPATH": str(tmp_path)})
    trace_id = script(tmp_path, SENDER, env).stdout.strip()
    said = work(tmp_path, env)
    script(tmp_path, AFTER, env)
    told = arrived(sink)
    assert told.pop("r1", None) == CHECKOUT, said
    assert told.pop("tonight") == once(("collect", "running"), ("collect", "success"))
    assert {run_id.rpartition(":")[0] for run_id in told} == {"cron:nightly"}
    assert {event["traceId"] for event in sink.events if event["runId"] == "r1"} == {trace_id}
    errors: list[Any] = [event for event in sink.events if event["status"] == "error"]
    assert {event["stepKey"]: event["error"]["name"] for event in errors} == {
        "flaky": "Retry",
        "broken": "LookupError",
        "slow": "CancelledError",
    }


def test_a_worker_that_nobody_connected_runs_the_jobs_and_one_connected_twice_records_them_once(broker: str) -> None:
    from arq import Worker, create_pool
    from arq.connections import RedisSettings

    from failpath_otel.integrations.arq import connect

    async def ship(ctx: Any, number: int) -> int:
        return number

    async def both() -> list[Any]:
        pool = await create_pool(RedisSettings.from_dsn(f"{broker}/1"))
        connect(client, pool)
        found = []
        for times in (0, 2):
            with client.run("checkout", f"connected {times} times"):
                job = await pool.enqueue_job("ship", 7)
            assert job is not None
            worker = Worker(functions=[named], redis_pool=pool, burst=True, poll_delay=0.05, handle_signals=False)
            for _ in range(times):
                connect(client, worker, step_key=lambda job: f"{job.name}-{job.args[0]}")
            await worker.async_run()
            found.append(await job.result(timeout=0))
        await pool.aclose()
        return found

    from arq import func

    named = func(ship, name="ship")
    with RecordingClient(flows=False) as client:
        assert asyncio.run(both()) == [7, 7]
        told = [(event.run_id, event.step_key, event.status) for event in client.events]
        with pytest.raises(ConfigError, match="target must be a pool of arq, a Worker or its settings, got 7"):
            connect(client, 7)
    assert told == [("connected 2 times", "ship-7", "running"), ("connected 2 times", "ship-7", "success")]
