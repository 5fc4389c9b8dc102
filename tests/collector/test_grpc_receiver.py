"""Foreign senders straight at our server, by gRPC and by HTTP: ``telemetrygen``, and a Collector's ``otlp_grpc`` exporter."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support.collector import Collector, StartCollector, generate
from support.otlp_bodies import add_span, step, traces
from support.otlp_calls import CODES, call
from support.served import Client, Served, until
from support.shop import assert_exact, shop

KEY = "s3nder"
COLLECTOR = """\
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "${env:OTELCOL_OTLP_GRPC}"}
      http: {endpoint: "${env:OTELCOL_OTLP_HTTP}"}
exporters:
  otlp_grpc/failpath:
    endpoint: ${env:FAILPATH_GRPC}
    tls: {insecure: true}
    compression: ${env:COMPRESSION}
    headers: {authorization: "Bearer ${env:FAILPATH_INGEST_KEY}"}
    sending_queue:
      sizer: bytes
      queue_size: 50000000
      batch: {sizer: bytes, flush_timeout: 100ms, min_size: 1, max_size: 4000000}
    retry_on_failure: {initial_interval: 50ms, max_interval: 200ms, max_elapsed_time: 0}
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_grpc/failpath]}
    logs: {receivers: [otlp], exporters: [otlp_grpc/failpath]}
"""
FAILPATH = "otlp_grpc/failpath"

Start = Callable[..., Served]


@pytest.fixture
def server(start_server: Start) -> Served:
    """Our server with an ingest key, taking gRPC."""
    return start_server("--grpc-port", "0", "--ingest-key", KEY)


@pytest.fixture(params=["none", "gzip"])
def collector(request: pytest.FixtureRequest, start_collector: StartCollector, server: Served, tmp_path: Path) -> Collector:
    config = tmp_path / "grpc.yaml"
    config.write_text(COLLECTOR)
    env = {"FAILPATH_GRPC": server.grpc, "FAILPATH_INGEST_KEY": KEY, "COMPRESSION": request.param}
    return start_collector(config, env)


def failed(collector: Collector) -> float:
    """How many spans the Collector gave up."""
    return collector.metric("exporter_send_failed_spans", exporter=FAILPATH)


def intake(server: Client, *names: str) -> list[int]:
    counts = server.get("/api/intake").json
    return [counts[name] for name in names]


def attributes(**values: str) -> list[str]:
    """What ``telemetrygen`` puts on each span or record."""
    return [
        part for name, value in values.items() for part in ("--telemetry-attributes", f'{name.replace("__", ".")}="{value}"')
    ]


STEP = {"failpath__flow__slug": "checkout", "failpath__step__key": "charge-card"}


def to(server: Served, protocol: str) -> list[str]:
    where = ["--otlp-http", "--otlp-endpoint", server.url.removeprefix("http://")]
    return [
        *(where if protocol == "http" else ["--otlp-endpoint", server.grpc]),
        "--otlp-header",
        f'authorization="Bearer {KEY}"',
    ]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_generated_steps_are_all_there(server: Served, telemetrygen: Path, protocol: str) -> None:
    named = attributes(**STEP, failpath__run__id=f"generated-{protocol}")
    generate(telemetrygen, "traces", *to(server, protocol), "--workers", "4", "--traces", "100", *named)
    assert intake(server, "accepted", "duplicates", "rejected", "unmapped", "incomplete") == [800, 0, 0, 0, 0]
    run = server.get("/api/run", flow="checkout", run_id=f"generated-{protocol}").json
    assert [(found["stepKey"], len(found["attempts"])) for found in run["steps"]] == [("charge-card", 800)]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_generated_records_with_one_identity_are_one_event(server: Served, telemetrygen: Path, protocol: str) -> None:
    named = attributes(
        **STEP,
        failpath__run__id="logged",
        failpath__step__status="error",
        exception__type="a.Declined",
        event__name="failpath.step",
    )
    span = ["--trace-id", "5b8efff798038103d269b633813fc60c", "--span-id", "eee19b7ec3c1b174"]
    generate(telemetrygen, "logs", *to(server, protocol), "--logs", "50", *span, *named)
    assert intake(server, "accepted", "duplicates", "rejected") == [1, 49, 0]
    run = server.get("/api/run", flow="checkout", run_id="logged").json
    assert run["steps"][0]["error"]["name"] == "Declined"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_generated_spans_and_records_of_others_are_counted_and_left_alone(
    server: Served, telemetrygen: Path, protocol: str
) -> None:
    generate(telemetrygen, "traces", *to(server, protocol), "--traces", "50")
    generate(telemetrygen, "logs", *to(server, protocol), "--logs", "50")
    half = attributes(failpath__run__id="half")
    generate(telemetrygen, "traces", *to(server, protocol), "--traces", "5", *half)
    assert intake(server, "accepted", "rejected", "unmapped", "incomplete") == [0, 0, 150, 10]


def test_runs_through_a_collector_and_grpc_are_exactly_as_done(collector: Collector, server: Served) -> None:
    with shop(spans_to=collector.endpoint) as service:
        service.checkouts(40)
        service.flush()
        assert_exact(server, service, events=service.attempts)
    assert failed(collector) == 0


def test_what_waits_while_the_server_is_away_arrives_once(collector: Collector, server: Served, start_server: Start) -> None:
    with shop(spans_to=collector.endpoint) as service:
        service.checkouts(8)
        service.flush()
        assert_exact(server, service)
        server.process.kill()
        server.process.wait(timeout=10)
        service.checkouts(40)
        service.flush()
        until(lambda: "will retry" in collector.said() or "Will retry" in collector.said())
        again = start_server("--grpc-port", server.grpc.rpartition(":")[2], "--ingest-key", KEY)
        assert_exact(again, service, events=service.attempts)
    assert failed(collector) == 0


def test_a_store_that_cannot_be_written_costs_nothing_and_retry_info_is_honoured(
    collector: Collector, server: Served, tmp_path: Path
) -> None:
    lock = sqlite3.connect(tmp_path / "server" / "runs.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with shop(spans_to=collector.endpoint) as service:
        service.checkouts(8)
        service.flush()
        refusals = until(lambda: [line for line in collector.said().splitlines() if "Will retry" in line])
        lock.close()
        # Its own intervals are of 50 to 200 ms; it waits for as long as RetryInfo says.
        assert "Unavailable" in refusals[0]
        assert '"interval": "1s"' in refusals[0]
        assert_exact(server, service, events=service.attempts)
    assert failed(collector) == 0


def test_bad_spans_are_told_to_the_collector_and_not_sent_again(collector: Collector, server: Served) -> None:
    request = traces(step("good"), trace_id=b"\1" * 16)
    add_span(request, step(""), trace_id=b"\2" * 16)
    assert call(collector.grpc_endpoint, request).code is CODES.OK
    until(lambda: "failpath.run.id is empty" in collector.said())
    with shop(spans_to=collector.endpoint) as service:
        service.checkouts(1)
        service.flush()
        assert_exact(server, service)
    assert intake(server, "accepted", "duplicates", "rejected") == [service.attempts + 1, 0, 1]
    assert failed(collector) == 0


def test_a_wrong_key_is_said_by_the_collector(start_collector: StartCollector, server: Served, tmp_path: Path) -> None:
    config = tmp_path / "grpc.yaml"
    config.write_text(COLLECTOR)
    env = {"FAILPATH_GRPC": server.grpc, "FAILPATH_INGEST_KEY": "wrong", "COMPRESSION": "gzip"}
    collector = start_collector(config, env)
    assert call(collector.grpc_endpoint, traces(step("lost"))).code is CODES.OK
    until(lambda: failed(collector) == 1)
    assert "Senders must show the ingest key" in collector.said()
    assert intake(server, "accepted", "rejected") == [0, 0]
