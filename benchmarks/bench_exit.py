"""How long flush, shutdown and the interpreter's exit take with a server that takes requests and never answers."""

from __future__ import annotations

import subprocess
import sys
import time

from bench_step import stepped
from harness import QUICK, Row, Sink, Spread, client, provider, report

BOUND_MILLIS = 100
TIMES = 3 if QUICK else 10
EXIT_MILLIS = 3000

CHILD = """
import sys
from failpath_otel import FailpathClient
failpath = FailpathClient(endpoint=sys.argv[1], flows=False, send_timeout_millis=60_000, exporter=sys.argv[2])
run = failpath.run("checkout")
for _ in range(2000):
    run.step("charge-card", lambda: None)
print("leaving", flush=True)
"""


def over(what: str, deadline_millis: int, taken_seconds: list[float]) -> Row:
    late = [seconds * 1000 - deadline_millis for seconds in taken_seconds]
    spread, worst = Spread.of(late), max(late)
    return Row(
        f"{what}, over its deadline of {deadline_millis} ms",
        f"{spread.show(' ms', 1)}, at worst {worst:.1f} ms",
        f"≤ {BOUND_MILLIS} ms",
        worst <= BOUND_MILLIS,
    )


def ended(method: str, deadline_millis: int, url: str) -> list[float]:
    taken = []
    for _ in range(TIMES):
        failpath = client(tracer_provider=provider(), endpoint=url)
        stepped(failpath)(1000)
        before = time.perf_counter()
        getattr(failpath, method)(deadline_millis)
        taken.append(time.perf_counter() - before)
        failpath.shutdown(1)
    return taken


def left(url: str, exporter: str) -> float:
    with subprocess.Popen([sys.executable, "-c", CHILD, url, exporter], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leaving\n"
        before = time.perf_counter()
        assert process.wait() == 0  # with a timeout it would look only every 50 ms
        return time.perf_counter() - before


def left_longer(url: str) -> list[float]:
    """What is left of an exit when the time that the interpreter takes for its own things is taken away."""
    return [left(url, "http") - left(url, "none") for _ in range(TIMES)]


def main() -> None:
    with Sink("--hang") as hung:
        rows = [
            over("`flush`", 500, ended("flush", 500, hung.url)),
            over("`shutdown`", 500, ended("shutdown", 500, hung.url)),
            over("the interpreter's exit, less that of the same program without events", EXIT_MILLIS, left_longer(hung.url)),
        ]
    report("exit", rows)


if __name__ == "__main__":
    main()
