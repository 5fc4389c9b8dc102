"""Children of `multiprocessing`, and processors beside ours that raise or are slow."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from support.http_sink import HttpSink
from support.processes import arrived, once, script, settings

CHILDREN = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from failpath_otel import FailpathClient

trace.set_tracer_provider(TracerProvider())
failpath = FailpathClient(flows=False)

def library(number):
    names = {"failpath.flow.slug": "checkout", "failpath.run.id": str(number), "failpath.step.key": "library"}
    trace.get_tracer("a-library").start_span("pay", attributes=names).end()
    return failpath.run("checkout", str(number)).step("child", lambda: number)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    failpath.run("checkout", "parent").step("s", lambda: None)
    processes = [context.Process(target=library, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(library, range(3, 9))) == list(range(3, 9))
"""

BESIDE = """
import time
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from failpath_otel import FailpathClient

class Raises(SpanProcessor):
    def on_start(self, span, parent_context=None):
        raise RuntimeError("on_start of another")
    def on_end(self, span):
        raise RuntimeError("on_end of another")

class Slow(SpanProcessor):
    seen = 0
    def on_end(self, span):
        time.sleep(0.02)
        Slow.seen += 1

def seconds(work):
    began = time.monotonic()
    assert [work(number) for number in range(5)] == list(range(5))
    return time.monotonic() - began

def span(number):
    with alone.get_tracer("a-library").start_as_current_span("pay"):
        return number

alone, provider = TracerProvider(), TracerProvider()
for _ in range(3):
    alone.add_span_processor(Slow())
for _ in range(2):
    provider.add_span_processor(Slow())
failpath = FailpathClient(flows=False, tracer_provider=provider)
provider.add_span_processor(Slow())
run = failpath.run("checkout", "slow")
plain = seconds(span)
assert Slow.seen == 15
# As long as the same spans take without steps, and no wait of ours on top: the shortest would be ten times as long.
assert seconds(lambda number: run.step(f"s{number}", lambda: number)) < 5 * plain + 1
assert Slow.seen == 30
provider.add_span_processor(Raises())
run = failpath.run("checkout", "raises")
gone = LookupError("gone")
def fail():
    raise gone
assert run.step("works", lambda: 7) == 7
try:
    run.step("fails", fail)
except LookupError as error:
    assert error is gone
"""


def both(*keys: str) -> list[tuple[str, str]]:
    return [(key, status) for key in keys for status in ("running", "success")]


@pytest.mark.parametrize("method", [name for name in ("fork", "spawn") if name in multiprocessing.get_all_start_methods()])
def test_children_report_their_own_steps_once_and_their_last_ones_at_their_end(
    method: str, sink: HttpSink, tmp_path: Path
) -> None:
    env = settings(sink, {"PYTHONWARNINGS": "ignore::DeprecationWarning"})  # of forking a process with threads
    assert script(tmp_path, CHILDREN, env, method).stderr == ""
    assert arrived(sink) == {
        "parent": once(*both("s")),
        **{str(number): once(*both("library", "child")) for number in range(9)},
    }


def test_beside_processors_that_are_slow_or_raise_functions_run_and_steps_come_once(sink: HttpSink, tmp_path: Path) -> None:
    script(tmp_path, BESIDE, settings(sink))
    assert arrived(sink) == {
        "slow": once(*both("s0", "s1", "s2", "s3", "s4")),
        "raises": once(*both("works"), ("fails", "running"), ("fails", "error")),
    }
