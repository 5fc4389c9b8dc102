"""``exporter="otlp"`` through a Collector, by HTTP and by gRPC."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.collector import Collector, StartCollector
from support.served import Client, until
from support.shop import assert_exact, known, shop

from failpath_otel import FailpathClient


@pytest.fixture(params=["http/protobuf", "grpc"])
def collector(
    request: pytest.FixtureRequest,
    start_collector: StartCollector,
    api: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Collector:
    """A Collector to which the environment sends OTLP, by this protocol."""
    started = start_collector(
        "quickstart.yaml", {"FAILPATH_ENDPOINT": api.url, "BACKEND_FILE": str(tmp_path / "backend.jsonl")}
    )
    endpoint = f"http://{started.grpc_endpoint}" if request.param == "grpc" else started.endpoint
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    return started


def test_running_is_seen_while_the_step_runs(collector: Collector, api: Client) -> None:
    with FailpathClient(exporter="otlp", flows=False) as failpath:
        with failpath.run("checkout", run_id="r1").step("charge-card"):
            story = until(lambda: known(api, "r1"))  # how soon is what benchmarks/bench_collector.py measures
            assert story.steps["charge-card"].status == "running"
        failpath.flush()
        until(lambda: (story := known(api, "r1")) and story.steps["charge-card"].status == "success")


def test_events_and_spans_by_two_ways_are_one(collector: Collector, api: Client) -> None:
    with shop(exporter="otlp", spans_to=collector.endpoint) as service:
        service.checkouts(12)
        service.flush()
        assert_exact(api, service)


def test_the_client_holds_what_it_has_while_the_collector_is_away(collector: Collector, api: Client) -> None:
    with shop(exporter="otlp") as service:
        service.checkouts(4)
        service.client.flush()
        assert_exact(api, service)
        collector.stop()
        service.checkouts(40)
        assert service.client.flush(500).pending
        collector.start()
        assert service.client.flush(30_000)
        stats = service.client.stats()
        assert (stats.pending, stats.dropped) == (0, {})
        assert_exact(api, service, events=stats.sent)


def test_compressed_records_with_headers_pass(collector: Collector, api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=t1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with shop(exporter="otlp") as service:
        service.checkouts(4)
        service.client.flush()
        assert_exact(api, service)
