"""quickstart.yaml: all traces to the backend, Failpath's to the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from support.collector import CONFIGS, Collector, StartCollector, validate
from support.served import Client, until
from support.shop import assert_exact, shop


@pytest.fixture
def collector(start_collector: StartCollector, api: Client, tmp_path: Path) -> Collector:
    return start_collector("quickstart.yaml", {"FAILPATH_ENDPOINT": api.url, "BACKEND_FILE": str(tmp_path / "backend.jsonl")})


def backend_spans(file: Path) -> list[Any]:
    if not file.exists():
        return []
    requests = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        span["name"]
        for request in requests
        for group in request.get("resourceSpans", ())
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]


def test_the_configuration_is_valid() -> None:
    validate(CONFIGS / "quickstart.yaml")


def test_spans_of_steps_reach_the_server_and_all_spans_the_backend(collector: Collector, api: Client, tmp_path: Path) -> None:
    with shop(spans_to=collector.endpoint) as service:
        with service.provider.get_tracer("a-library").start_as_current_span("a query", kind=trace.SpanKind.CLIENT):
            service.checkouts(8)
        service.flush()
        assert_exact(api, service, events=service.attempts)
    until(lambda: len(backend_spans(tmp_path / "backend.jsonl")) >= service.attempts + 1)
    spans = backend_spans(tmp_path / "backend.jsonl")
    assert len(spans) == service.attempts + 1
    assert spans.count("a query") == 1
    assert api.get("/api/intake").json["unmapped"] == 0
