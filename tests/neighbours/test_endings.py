"""Processes that end without Python's exit handlers have told what they did: pools that are terminated, RQ's work horses."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.http_sink import HttpSink, hang
from support.processes import SECONDS, arrived, once, script, settings

METHODS = [name for name in ("fork", "spawn", "forkserver") if name in multiprocessing.get_all_start_methods()]
QUIET = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}  # of forking a process with threads

POOL = """
import importlib, os
from failpath_otel import FailpathClient

failpath = FailpathClient(flows=False)
package = importlib.import_module(os.environ["PACKAGE"])

def work(number):
    with failpath.run("checkout", str(number)).step("outer") as step:
        step.set_metadata(number=number)
        return failpath.run("checkout", str(number)).step("inner", lambda: number)

if __name__ == "__main__":
    context = package.get_context(os.environ["METHOD"])
    with context.Pool(2) as pool:  # whose end terminates its processes
        assert pool.map(work, range(20), chunksize=1) == list(range(20))
"""

PROCESSES = """
import importlib, os
from failpath_otel import FailpathClient

failpath = FailpathClient(flows=False)
package = importlib.import_module(os.environ["PACKAGE"])

def work(number):
    failpath.run("checkout", str(number)).step("outer", lambda: None)

if __name__ == "__main__":
    processes = [package.Process(target=work, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
"""

JOBS = """
import asyncio

from failpath_otel import FailpathClient

failpath = FailpathClient(flows=False)


def begin(run_id):
    run = failpath.run("checkout", run_id)
    run.step("begin", lambda: None)
    failpath.flush()  # what comes next finds the delivery at rest
    return run


def ship(run_id):
    begin(run_id).step("end", lambda: None)


async def mail(run_id):
    async with begin(run_id).step("end"):
        await asyncio.sleep(0)


def declined(run_id):
    with begin(run_id).step("end"):
        raise ValueError("declined")
"""


def both(*keys: str) -> list[tuple[str, str]]:
    return [(key, status) for key in keys for status in ("running", "success")]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("package", ["multiprocessing", "multiprocess"])
def test_the_processes_of_a_pool_that_is_terminated_have_told_all(
    package: str, method: str, sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs(package)
    script(tmp_path, POOL, settings(sink, {**QUIET, "PACKAGE": package, "METHOD": method}))
    assert arrived(sink) == {str(number): once(*both("outer", "inner")) for number in range(20)}


@pytest.mark.parametrize("package", ["multiprocess", "billiard"])
def test_children_of_packages_made_of_multiprocessing_tell_all_at_their_end(
    package: str, sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs(package)
    script(tmp_path, PROCESSES, settings(sink, {**QUIET, "PACKAGE": package}))
    assert arrived(sink) == {str(number): once(*both("outer")) for number in range(3)}


def test_a_pool_goes_on_where_the_destination_hangs(sink: HttpSink, tmp_path: Path) -> None:
    """The waits are bounded, all of them together: a minute would not do for 20 tasks that wait for two outcomes each."""
    sink.answer = hang(sink)
    script(tmp_path, POOL, settings(sink, {**QUIET, "PACKAGE": "multiprocessing", "METHOD": METHODS[0]}))


@pytest.mark.slow
@pytest.mark.parametrize("worker", ["rq.Worker", "rq.SpawnWorker", "rq.SimpleWorker"])
def test_the_last_step_of_a_job_is_told_before_rqs_work_horse_ends(
    worker: str, redis_url: str, sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("rq", "redis")
    from redis import Redis  # type: ignore[import-not-found,unused-ignore]
    from rq import Queue  # type: ignore[import-not-found,unused-ignore]

    (tmp_path / "jobs.py").write_text(JOBS)
    queue = Queue(worker.lower(), connection=Redis.from_url(redis_url))
    for number in range(3):
        for job in ("ship", "mail", "declined"):
            queue.enqueue(f"jobs.{job}", f"{job}-{number}")
    command = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", redis_url, "--worker-class", worker, queue.name]
    done = subprocess.run(
        command,
        check=False,
        cwd=tmp_path,
        env=settings(sink),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    expected = {f"{job}-{number}": once(*both("begin", "end")) for number in range(3) for job in ("ship", "mail")}
    failed = once(*both("begin"), ("end", "running"), ("end", "error"))
    expected.update({f"declined-{number}": failed for number in range(3)})
    assert arrived(sink) == expected, done.stderr
