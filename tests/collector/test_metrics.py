"""metrics.yaml: what Prometheus is given is what was done, once, and every query of the Grafana dashboard finds something."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from support.collector import CONFIGS, ROOT, Collector, StartCollector, generate, missing, validate
from support.otlp_backend import OtlpBackend
from support.otlp_bodies import PROTOBUF, add_span, step, traces
from support.ports import free_port
from support.served import Client, environment, until
from support.shop import Shop, assert_exact, shop

CONFIG = "metrics.yaml"
DASHBOARD = CONFIGS / "grafana" / "failpath.json"
# Conditions that cannot be evaluated are seen, and metrics come soon.
ARGUMENTS = (
    "--config",
    "yaml:processors: {filter/failpath: {error_mode: propagate}, filter/finished: {error_mode: propagate}}",
    "--config",
    "yaml:processors::transform/status::error_mode: propagate",
    "--config",
    "yaml:connectors::span_metrics::metrics_flush_interval: 200ms",
)
SAMPLE = re.compile(r"^(\w+)\{(.*)\} ([0-9.e+-]+)", re.MULTILINE)
CALLS, SECONDS = "failpath_step_calls_total", "failpath_step_duration_seconds"
BY_KEY_AND_STATUS = ("failpath_step_key", "failpath_step_status")


class Metered:
    """A Collector with its metrics for Prometheus."""

    def __init__(self, collector: Collector, port: int) -> None:
        self.collector = collector
        self.port = port

    def scrape(self) -> list[tuple[str, dict[str, str], float]]:
        """Every sample: its name, labels and value."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        return [
            (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for name, labels, value in SAMPLE.findall(text)
        ]

    def counts(self, metric: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The samples of one metric, summed by some labels."""
        found: Counter[tuple[str, ...]] = Counter()
        for name, own, value in self.scrape():
            if name == metric:
                found[tuple(own.get(label, "") for label in labels)] += value  # type: ignore[assignment]
        return dict(found)


@pytest.fixture
def metered(start_collector: StartCollector, api: Client, backend: OtlpBackend) -> Metered:
    port = free_port()
    env = {"FAILPATH_ENDPOINT": api.url, "BACKEND_ENDPOINT": backend.url, "OTELCOL_PROMETHEUS": f"127.0.0.1:{port}"}
    return Metered(start_collector(CONFIG, env, arguments=ARGUMENTS), port)


def done(service: Shop) -> dict[tuple[str, ...], float]:
    """How often which step of the shop ended how."""
    found: Counter[tuple[str, ...]] = Counter()
    for run in service.done.values():
        for key, story in run.steps.items():
            found.update((key, status) for status in story.attempts)
    return {key: float(n) for key, n in found.items()}


def test_the_configuration_is_valid() -> None:
    validate(CONFIGS / CONFIG)


@pytest.mark.parametrize("exporter", ["none", "otlp"], ids=["spans", "spans and events"])
def test_each_attempt_is_counted_once_by_flow_step_and_status(
    metered: Metered, api: Client, backend: OtlpBackend, exporter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", metered.collector.endpoint)
    with shop(exporter=exporter, spans_to=metered.collector.endpoint) as service:
        with service.provider.get_tracer("a-library").start_as_current_span("no step"):
            service.checkouts(16)
        service.flush()
        assert_exact(api, service)
        until(lambda: metered.counts(CALLS, *BY_KEY_AND_STATUS) == done(service))
    assert metered.counts(CALLS, "failpath_flow_slug", "service_name") == {("checkout", "shop"): float(service.attempts)}
    assert metered.counts(f"{SECONDS}_count", *BY_KEY_AND_STATUS) == done(service)
    until(lambda: len(backend.traces) == service.attempts + 1)


def test_events_alone_are_not_counted(metered: Metered, api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", metered.collector.endpoint)
    with shop(exporter="otlp") as service:
        service.checkouts(4)
        service.flush()
        assert_exact(api, service, events=service.events)
    assert metered.counts(CALLS) == {}


def test_spans_of_other_libraries_count_by_their_status_and_no_run_is_a_series(metered: Metered, api: Client) -> None:
    request = traces(*(step(f"run-{n}") for n in range(50)))
    failed = add_span(request, step("run-50"), span_id=b"12345678")
    failed.status.code = 2
    add_span(request, {"failpath.flow.slug": "checkout"}, span_id=b"23456789")  # no step: it lacks two attributes
    add_span(request, step("run-51") | {"failpath.step.status": "running"}, span_id=b"34567890")
    with closing(Client(metered.collector.endpoint)) as sender:
        assert sender.post("/v1/traces", request.SerializeToString(), {"Content-Type": PROTOBUF}).status == 200
    until(lambda: metered.counts(CALLS, "failpath_step_status") == {("success",): 50.0, ("error",): 1.0})
    assert len([name for name, _, _ in metered.scrape() if name == CALLS]) == 2
    assert "run-" not in json.dumps(metered.scrape())
    until(lambda: len(api.get("/api/runs", limit=200).json["runs"]) == 52)


def test_generated_spans_are_no_steps(metered: Metered, backend: OtlpBackend, telemetrygen: Path) -> None:
    generate(
        telemetrygen,
        "traces",
        "--otlp-http",
        "--otlp-endpoint",
        metered.collector.endpoint.removeprefix("http://"),
        "--traces",
        "20",
    )
    until(lambda: len(backend.traces) == 40)
    assert metered.counts(CALLS) == {}


def queries() -> list[tuple[str, str]]:
    """Every panel's queries, with what Grafana puts in for its variables."""
    board = json.loads(DASHBOARD.read_text())
    values = {"$__rate_interval": "10s", "$__range": "60s", "$flow": ".*", "$step": ".*"}
    found = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]
    for name, value in values.items():
        found = [(title, query.replace(name, value)) for title, query in found]
    return found


@pytest.fixture
def prometheus(metered: Metered, tmp_path: Path) -> Iterator[Client]:
    """A Prometheus that scrapes the Collector, often."""
    where = subprocess.run(
        [ROOT / "tools" / "prometheus.sh", "--where"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not os.access(where, os.X_OK):
        missing("no Prometheus: `tools/prometheus.sh` takes Debian's package")
    config = tmp_path / "prometheus.yml"
    jobs = [{"job_name": "collector", "static_configs": [{"targets": [f"127.0.0.1:{metered.port}"]}]}]
    config.write_text(json.dumps({"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}, "scrape_configs": jobs}))
    url = f"127.0.0.1:{free_port()}"
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address={url}"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([where, *arguments], stdout=log, stderr=log, cwd=tmp_path, env=environment())
    client = Client(f"http://{url}")
    try:
        until(lambda: is_ready(client), 30)
        yield client
    finally:
        client.close()
        process.kill()
        process.wait(timeout=10)


def is_ready(client: Client) -> bool:
    try:
        return client.get("/-/ready").status == 200
    except OSError:
        return False


def ask(prometheus: Client, query: str) -> list[Any]:
    reply = prometheus.get(f"/api/v1/query?{urlencode({'query': query})}")
    assert reply.json["status"] == "success", (query, reply.json)
    found: list[Any] = reply.json["data"]["result"]
    return found


def test_every_query_of_the_grafana_dashboard_finds_what_was_done(
    metered: Metered, prometheus: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", metered.collector.endpoint)
    with shop(exporter="otlp", spans_to=metered.collector.endpoint) as service:
        # Rates are seen from the second scrape of a series on.
        service.checkouts(4)
        service.flush()
        until(lambda: ask(prometheus, f"sum({CALLS})"))
        service.checkouts(16)
        service.flush()
        until(lambda: [row["value"][1] for row in ask(prometheus, f"sum({CALLS})")] == [str(service.attempts)])
        for title, query in queries():
            rows = until(lambda query=query: ask(prometheus, query))  # type: ignore[misc]
            assert all(row["value"][1] not in ("NaN", "+Inf") for row in rows) or "histogram" in query, (title, rows)
    failing = next(query for title, query in queries() if title == "Where steps fail")
    assert {row["metric"]["failpath_step_key"] for row in ask(prometheus, failing)} == {"charge-card"}
