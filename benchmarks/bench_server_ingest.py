"""How many spans and events a second ``failpath-otel serve`` accepts durably: answered after the commit, decoding included.

The server is a process of its own; this process sends bodies made beforehand over loopback, from several connections at once.
Runs of five steps arrive together, as exporters send them: OTLP/HTTP protobuf with gzip and 512 spans a request, then wire
events with gzip and 500 a request. The spans come alone, and among nine foreign ones each as from a busy service.

With ``--bridge`` that server sends on to a second one, a process of its own too, and the answer comes after that one's
commit; with ``--bridge=no-store`` the first one keeps nothing itself.

Usage: ``python benchmarks/bench_server_ingest.py [thousands of spans, default 60] [--bridge[=no-store]] [--profile FILE]``.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import platform
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

STEPS = ("validate-cart", "charge-card", "reserve-stock", "create-order", "send-receipt-email")
SPANS_IN_BODY = 512
EVENTS_IN_BODY = 500
SENDERS = 4
PACKAGES = ("opentelemetry-proto", "protobuf", "msgspec", "uvicorn", "h11", "starlette", "sqlalchemy")


@dataclass(frozen=True)
class Load:
    """Bodies for one path, and how many items of which kind they hold."""

    name: str
    path: str
    media_type: str
    bodies: Sequence[bytes]
    steps: int
    items: int


def put(attributes: Any, name: str, value: str | int) -> None:
    """Adds one attribute."""
    pair = attributes.add(key=name)
    if isinstance(value, int):
        pair.value.int_value = value
    else:
        pair.value.string_value = value


def span_body(spans: Iterable[tuple[str, bytes, str] | None], now_ns: int) -> bytes:
    """A request body; ``None`` stands for a foreign span."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    put(resource.resource.attributes, "service.name", "shop")
    scope = resource.scope_spans.add()
    for number, step in enumerate(spans):
        run_id, trace_id, key = step or ("", secrets.token_bytes(16), "GET /checkout")
        span = scope.spans.add(trace_id=trace_id, span_id=secrets.token_bytes(8), name=f"checkout/{key}", kind=1)
        span.start_time_unix_nano = now_ns + number * 1_000_000
        span.end_time_unix_nano = span.start_time_unix_nano + 5_000_000
        if step is None:
            put(span.attributes, "http.route", "/checkout")
            put(span.attributes, "http.response.status_code", 200)
            continue
        put(span.attributes, "failpath.flow.slug", "checkout")
        put(span.attributes, "failpath.run.id", run_id)
        put(span.attributes, "failpath.step.key", key)
        put(span.attributes, "failpath.step.status", "success")
        put(span.attributes, "failpath.metadata.route", "/checkout")
        put(span.attributes, "failpath.metadata.cart", number)
    return gzip.compress(request.SerializeToString(), 1)


def spans_of(count: int, foreign_each: int) -> Load:
    """``count`` steps in runs of five, ``foreign_each`` other spans for each."""
    now_ns = time.time_ns()
    bodies: list[bytes] = []
    waiting: list[tuple[str, bytes, str] | None] = []
    made = 0
    while made < count:
        run_id, trace_id = secrets.token_hex(16), secrets.token_bytes(16)
        for key in STEPS:
            waiting += [(run_id, trace_id, key), *[None] * foreign_each]
            made += 1
        while len(waiting) >= SPANS_IN_BODY or (made >= count and waiting):
            bodies.append(span_body(waiting[:SPANS_IN_BODY], now_ns))
            del waiting[:SPANS_IN_BODY]
    name = f"step spans among {foreign_each} foreign ones each" if foreign_each else "step spans"
    return Load(f"OTLP protobuf, gzip: {name}", "/v1/traces", "application/x-protobuf", bodies, made, made * (1 + foreign_each))


def events_of(count: int) -> Load:
    """``count`` outcome events in runs of five."""
    bodies: list[bytes] = []
    for _ in range(count // EVENTS_IN_BODY):
        events: list[dict[str, Any]] = []
        while len(events) < EVENTS_IN_BODY:
            run_id, trace_id = secrets.token_hex(16), secrets.token_hex(16)
            events += [wire_event(run_id, trace_id, key) for key in STEPS]
        bodies.append(gzip.compress(json.dumps({"events": events}).encode(), 1))
    made = len(bodies) * EVENTS_IN_BODY
    return Load("wire events, gzip", "/v1/events", "application/json", bodies, made, made)


def wire_event(run_id: str, trace_id: str, key: str) -> dict[str, Any]:
    """One outcome."""
    span_id = secrets.token_hex(8)
    return {
        "eventId": f"{trace_id}-{span_id}-end",
        "flowKey": "checkout",
        "runId": run_id,
        "stepKey": key,
        "status": "success",
        "timestamp": "2026-03-01T12:00:00.005000Z",
        "startedAt": "2026-03-01T12:00:00.000000Z",
        "durationMs": 5.0,
        "metadata": {"route": "/checkout", "cart": 42},
        "traceId": trace_id,
        "spanId": span_id,
        "service": "shop",
    }


def send(url: str, load: Load) -> float:
    """Sends all bodies and gives the seconds until the last answer."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    headers = {"Content-Type": load.media_type, "Content-Encoding": "gzip"}
    local = threading.local()

    def post(body: bytes) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(str(host), port)
        while True:
            local.connection.request("POST", load.path, body, headers)
            response = local.connection.getresponse()
            answer = response.read()
            if response.status in (200, 202):
                return
            if response.status != 503:
                raise RuntimeError(f"{response.status}: {answer[:300]!r}")
            time.sleep(float(response.headers["Retry-After"]))

    with ThreadPoolExecutor(SENDERS) as pool:
        begin = time.perf_counter()
        list(pool.map(post, load.bodies))
        return time.perf_counter() - begin


def accepted(url: str) -> int:
    """What the server says it has stored."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", "/api/intake")
    count = json.loads(connection.getresponse().read())["accepted"]
    connection.close()
    return int(count)


def cpu_seconds(pid: int) -> float:
    """The processor time that a process took so far, where the system tells it; it varies less than a rate."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def with_server(folder: str, options: Sequence[str], profile: str | None, work: Callable[[str, int], None]) -> None:
    """Runs a server for as long as ``work`` takes."""
    profiled = ["-m", "cProfile", "-o", profile] if profile else []
    command = [sys.executable, *profiled, "-m", "failpath_otel.cli", "serve", "--port", "0", *options]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FAILPATH_", "OTEL_"))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=kept) as process:
        try:
            assert process.stdout is not None
            work(process.stdout.readline().strip().rpartition(" ")[2], process.pid)
        finally:
            process.send_signal(signal.SIGTERM)


def main() -> None:
    """Prints the rates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("thousands", nargs="?", type=int, default=60)
    parser.add_argument("--bridge", nargs="?", const="store", choices=("store", "no-store"))
    parser.add_argument("--profile")
    asked = parser.parse_args()
    count = asked.thousands * 1000
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} CPUs, {packages}")
    print(f"{SENDERS} connections; answered after commit; synchronous=FULL")
    loads = [spans_of(count, 0), spans_of(count // 10, 9), events_of(count)]

    def work(url: str, pid: int, last: str | None = None) -> None:
        send(url, spans_of(2000, 0))
        for load in loads:
            before, cpu = accepted(last or url), cpu_seconds(pid)
            seconds = send(url, load)
            stored = accepted(last or url) - before
            if stored != load.steps:
                raise SystemExit(f"{load.name}: {load.steps} sent, {stored} stored")
            rate = f"{load.items / seconds:8,.0f} items/s accepted, {stored / seconds:8,.0f} events/s durable"
            used = (cpu_seconds(pid) - cpu) / load.items * 1e6
            print(f"{load.name:62} {rate}, {used:4.1f} us of CPU an item ({load.items:,} in {seconds:.2f} s)")

    with tempfile.TemporaryDirectory() as folder:
        own, other = ("--db", f"{folder}/runs.db"), ("--db", f"{folder}/behind.db")

        def bridged(last: str, _: int) -> None:
            print(f"through a bridge, {asked.bridge}")
            options = ("--forward-to", last, *(own if asked.bridge == "store" else ("--no-store",)))
            with_server(folder, options, asked.profile, lambda url, pid: work(url, pid, last))

        if asked.bridge is None:
            with_server(folder, own, asked.profile, work)
        else:
            with_server(folder, other, None, bridged)


if __name__ == "__main__":
    main()
