"""How long each read of the API takes over HTTP, while 2,000 events a second come in.

The server is a process of its own on a database that ``make_store.py`` made, and so is the sender; this process asks, one
request at a time over one connection, each question in turn, so that a slow moment of the machine meets all of them alike.

Usage: ``python benchmarks/bench_reads.py [DATABASE] [rounds, default 40] [events a second, default 2000]``; flows.json lies
beside the database, which is written to: give it a copy where that matters. Without one, 20,000 runs are made first.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from make_store import FLOWS, Maker, flows_json, make

from failpath_otel.events.wire import encode_event, join_events

BOUND_MS = 100
BATCHES_A_SECOND = 10


class Caller:
    """Asks the server over one connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)

    def get(self, path: str, **query: Any) -> tuple[bytes, float]:
        """The body of the answer and how many milliseconds it took."""
        began = time.perf_counter()
        self._connection.request("GET", f"{path}?{urlencode(query)}" if query else path)
        response = self._connection.getresponse()
        body = response.read()
        millis = (time.perf_counter() - began) * 1000
        assert response.status == 200, (path, query, response.status, body[:300])
        return body, millis

    def json(self, path: str, **query: Any) -> Any:
        return json.loads(self.get(path, **query)[0])


def questions(caller: Caller) -> dict[str, tuple[str, dict[str, Any]]]:
    """What pages ask, by name."""
    flow = "checkout"
    newest = caller.json("/api/runs", flow=flow, limit=200)
    run = newest["runs"][0]
    deep = caller.json("/api/flow", flow=flow, last=1000)["window"]["nextCursor"]
    for _ in range(20):
        deep = caller.json("/api/flow", flow=flow, last=1000, cursor=deep)["window"]["nextCursor"] or deep
    middle = caller.json("/api/flow", flow=flow, last=1, cursor=deep)["runs"][0]
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "flows": ("/api/flows", {}),
        **{f"flow, last {last}": ("/api/flow", {"flow": flow, "last": last}) for last in (30, 100, 300, 1000)},
        "flow, last 1000 before 20,000 runs": ("/api/flow", {"flow": flow, "last": 1000, "cursor": deep}),
        "runs": ("/api/runs", {}),
        "runs, limit 200": ("/api/runs", {"limit": 200}),
        **{
            f"runs, {status}": ("/api/runs", {"flow": flow, "status": status})
            for status in ("success", "error", "running", "incomplete")
        },
        "runs, stuck": ("/api/runs", {"flow": flow, "status": "stuck"}),
        "runs, of all flows, stuck": ("/api/runs", {"status": "stuck"}),
        "runs, of all flows, error": ("/api/runs", {"status": "error"}),
        "runs, of all flows, incomplete": ("/api/runs", {"status": "incomplete"}),
        "runs, of a day": ("/api/runs", {"since": middle["startedAt"][:10] + "T00:00:00Z", "until": middle["startedAt"]}),
        "runs, before 20,000 others": ("/api/runs", {"flow": flow, "cursor": deep}),
        "search, a run id": ("/api/runs", {"q": middle["runId"], "limit": 1}),
        "search, all runs": ("/api/runs", {"q": "cus_"}),
        "search, an error": ("/api/runs", {"q": "insufficient funds"}),
        "search, in nothing": ("/api/runs", {"q": "there is no such text"}),
        "run": ("/api/run", {"flow": flow, "run_id": middle["runId"]}),
        "run, the newest": ("/api/run", {"flow": flow, "run_id": run["runId"]}),
        "run, its events": ("/api/run/events", {"flow": flow, "run_id": middle["runId"]}),
        "intake": ("/api/intake", {}),
        "about": ("/api/about", {}),
        "health": ("/healthz", {}),
    }
    return asked


def send(url: str, rate: int) -> None:
    """Sends so many events a second until it is ended, and counts what was late."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    maker = Maker(seed=time.time_ns())
    number, waiting, slowest = 0, [], 0.0
    due = time.monotonic()
    while True:
        while len(waiting) < rate // BATCHES_A_SECOND:
            number += 1
            waiting += maker.run(number, time.time_ns(), late=False)
        part, waiting = waiting[: rate // BATCHES_A_SECOND], waiting[rate // BATCHES_A_SECOND :]
        body = gzip.compress(join_events(map(encode_event, part)), 1)
        began = time.monotonic()
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        connection.request("POST", "/v1/events", body, headers)
        response = connection.getresponse()
        response.read()
        assert response.status == 202, response.status
        slowest = max(slowest, time.monotonic() - began)
        due += 1 / BATCHES_A_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
        print(f"{slowest * 1000:.0f}", flush=True)


def measured(caller: Caller, rounds: int) -> dict[str, list[float]]:
    """The milliseconds of each question in each round."""
    asked = questions(caller)
    took: dict[str, list[float]] = {name: [] for name in asked}
    for round_ in range(-2, rounds):
        for name, (path, query) in asked.items():
            _, millis = caller.get(path, **query)
            if round_ >= 0:
                took[name].append(millis)
    return took


def show(took: dict[str, list[float]]) -> None:
    """Prints the median, the 95th percentile and the worst of each question."""
    print(f"{'':36}{'p50':>9}{'p95':>9}{'max':>9}  ms")
    for name, millis in took.items():
        p95 = statistics.quantiles(millis, n=20, method="inclusive")[-1]
        mark = "" if p95 <= BOUND_MS else f"  over {BOUND_MS} ms"
        print(f"{name:36}{statistics.median(millis):9.1f}{p95:9.1f}{max(millis):9.1f}{mark}")


def main() -> None:
    """Runs the benchmark, or the sender within it."""
    if sys.argv[1:2] == ["--send"]:
        send(sys.argv[2], int(sys.argv[3]))
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    rate = int(sys.argv[3]) if len(sys.argv) > 3 else 2000
    if len(sys.argv) > 1:
        measure(sys.argv[1], rounds, rate)
        return
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "runs.db"
        db.with_name("flows.json").write_text(json.dumps(flows_json()))
        make(str(db), 20_000)
        measure(str(db), rounds, rate)


def measure(db: str, rounds: int, rate: int) -> None:
    """Asks a server on this database while so many events a second come in, and prints how long that took."""
    serve = [sys.executable, "-m", "failpath_otel.cli", "serve", "--port", "0", "--db", db]
    serve += ["--flows", str(Path(db).with_name("flows.json"))]
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    print(f"{versions}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().rpartition(" ")[2].strip()
        caller = Caller(url)
        runs = sum(flow["stats"]["runs"] for flow in caller.json("/api/flows")["flows"])
        print(f"{runs:,} runs of {len(FLOWS)} flows, {Path(db).stat().st_size / 1e9:.1f} GB; {rate:,} events/s come in")
        sender = None
        if rate:
            sender = subprocess.Popen([sys.executable, __file__, "--send", url, str(rate)], stdout=subprocess.PIPE, text=True)
        before = caller.json("/api/intake")["accepted"]
        began = time.monotonic()
        try:
            took = measured(caller, rounds)
            seconds = time.monotonic() - began
            accepted = caller.json("/api/intake")["accepted"] - before
        finally:
            if sender is not None:
                sender.terminate()
                slowest = sender.communicate()[0].split()
            server.send_signal(signal.SIGTERM)
        show(took)
        if sender is not None:
            print(f"{accepted / seconds:,.0f} events/s came in meanwhile; the sender's slowest request took {slowest[-1]} ms")


if __name__ == "__main__":
    main()
