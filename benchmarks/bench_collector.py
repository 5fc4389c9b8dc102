"""A Collector between senders and server: how many spans and events a second get through, how much later `running` shows.

The Collector is the one that ``make collector`` builds (or ``OTELCOL``), with quickstart.yaml as it is shipped; Collector,
server and this process share the machine. Rates go from the first request to the moment when the server has stored the last
item, answered after its commit. Direct and through the Collector take turns, with bodies made beforehand.

The latency goes from before the step's start to the answer of the API that shows it as running, asked again and again.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from bench_server_ingest import EVENTS_IN_BODY, Load, accepted, put, send, spans_of, with_server
from harness import QUICK, Row, Spread, client, report
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "collector-config" / "quickstart.yaml"
ITEMS = 5_000 if QUICK else 40_000
ROUNDS = 1 if QUICK else 3
STEPS = 20 if QUICK else 200
START_SECONDS = 60
STORED_SECONDS = 300


def records_of(count: int) -> Load:
    """``count`` step events as log records, starts and outcomes in turn."""
    bodies = []
    for _ in range(count // EVENTS_IN_BODY):
        request = ExportLogsServiceRequest()
        resource = request.resource_logs.add()
        put(resource.resource.attributes, "service.name", "shop")
        scope = resource.scope_logs.add()
        now = time.time_ns()
        for number in range(EVENTS_IN_BODY):
            if number % 10 == 0:
                run_id, trace_id = secrets.token_hex(16), secrets.token_bytes(16)
            if number % 2 == 0:
                span_id = secrets.token_bytes(8)
            record = scope.log_records.add(time_unix_nano=now + number * 1000, trace_id=trace_id, span_id=span_id)
            record.event_name = "failpath.step"
            put(record.attributes, "failpath.flow.slug", "checkout")
            put(record.attributes, "failpath.run.id", run_id)
            put(record.attributes, "failpath.step.key", f"step-{number % 10 // 2}")
            put(record.attributes, "failpath.step.status", "success" if number % 2 else "running")
            put(record.attributes, "failpath.metadata.route", "/checkout")
        bodies.append(gzip.compress(request.SerializeToString(), 1))
    made = len(bodies) * EVENTS_IN_BODY
    return Load("OTLP protobuf, gzip: step events as log records", "/v1/logs", "application/x-protobuf", bodies, made, made)


def collector_path() -> str:
    """The Collector's program."""
    where = subprocess.run(
        [ROOT / "tools" / "collector.sh", "--where"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = os.environ.get("OTELCOL") or f"{where}/otelcol-failpath"
    if not Path(found).exists():
        print("no Collector: `make collector` builds one, or OTELCOL names it", file=sys.stderr)
        sys.exit(0)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def collector(server: str, folder: str) -> Iterator[str]:
    """A Collector that brings steps to the server, and where it takes OTLP/HTTP."""
    http_port, own = free_port(), free_port()
    names = {"OTELCOL_OTLP_HTTP": http_port, "OTELCOL_OTLP_GRPC": free_port(), "OTELCOL_HEALTH": free_port()}
    env = os.environ | {name: f"127.0.0.1:{port}" for name, port in names.items()}
    env |= {"FAILPATH_ENDPOINT": server, "BACKEND_FILE": os.devnull}
    metrics = (
        f"yaml:service::telemetry::metrics::readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {own}}}}}}}}}]"
    )
    with Path(folder, "collector.log").open("wb") as log:
        command = [collector_path(), "--config", str(CONFIG), "--config", metrics]
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_open(http_port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(Path(folder, "collector.log").read_text())
            time.sleep(0.1)
        yield f"http://127.0.0.1:{http_port}"
    finally:
        process.kill()
        process.wait()


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def rate(server: str, to: str, load: Load) -> float:
    """Items a second, until the last is stored."""
    before = accepted(server)
    begin = time.perf_counter()
    send(to, load)
    while accepted(server) - before < load.steps:
        if time.perf_counter() - begin > STORED_SECONDS:
            raise SystemExit(f"{load.name}: {accepted(server) - before} of {load.steps} stored")
        time.sleep(0.01)
    return load.steps / (time.perf_counter() - begin)


def rates(server: str, through: str) -> list[Row]:
    rows = []
    for make in (lambda: spans_of(ITEMS, 0), lambda: records_of(ITEMS)):
        direct, by_collector = [], []
        name = make().name
        rate(server, server, make())  # warm
        rate(server, through, make())
        for _ in range(ROUNDS):
            direct.append(rate(server, server, make()))
            by_collector.append(rate(server, through, make()))
        ratio = statistics.median(by_collector) / statistics.median(direct)
        every = ", ".join(f"{value:,.0f}" for value in by_collector)
        through_it = f"{statistics.median(by_collector):,.0f}/s durable ({every})"
        measured = f"{through_it}, {ratio:.2f} × the {statistics.median(direct):,.0f}/s without a Collector"
        rows.append(Row(f"through a Collector, {name}", measured))
    return rows


def seen_running(server: str, run_id: str, begin: float) -> float:
    """Milliseconds until the API shows the run."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc)
    path = f"/api/run?flow=checkout&run_id={quote(run_id)}"
    while True:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200 and json.loads(body)["steps"][0]["status"] == "running":
            connection.close()
            return (time.perf_counter() - begin) * 1000
        if time.perf_counter() - begin > START_SECONDS:
            raise SystemExit("a step did not show as running")
        time.sleep(0.001)


def latencies(server: str, through: str) -> list[Row]:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = through
    clients = {
        "directly, as events": client(endpoint=server, exporter="http"),
        "through the Collector, as log records": client(exporter="otlp"),
    }
    taken: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(STEPS):
        for name, own in clients.items():
            run_id = secrets.token_hex(8)
            begin = time.perf_counter()
            with own.run("checkout", run_id=run_id).step("charge-card"):
                taken[name].append(seen_running(server, run_id, begin))
            own.flush()
    for own in clients.values():
        own.shutdown()
    rows = []
    for name, millis in taken.items():
        p95 = statistics.quantiles(millis, n=20)[18]
        rows.append(
            Row(
                f"from a step's start to `running` in the API, {name}",
                f"p50 {Spread.of(millis).median:.0f} ms, p95 {p95:.0f} ms",
                "≤ 2 s",
                p95 <= 2000,
            )
        )
    return rows


def main() -> None:
    rows: list[Row] = []

    def work(server: str, _: int) -> None:
        with collector(server, folder) as through:
            rows.extend(latencies(server, through))
            rows.extend(rates(server, through))

    with tempfile.TemporaryDirectory() as folder:
        with_server(folder, ("--db", f"{folder}/runs.db"), None, work)
    version = subprocess.run([collector_path(), "--version"], capture_output=True, text=True, check=False).stdout.strip()
    print(version, file=sys.stderr)
    report("collector", rows)


if __name__ == "__main__":
    main()
