"""A step that begins in one service and ends in another, as the server knows it: by events, by spans, by both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from support.served import Client, in_thread

from failpath_otel import FailpathClient
from failpath_otel.server.settings import Settings


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Client]:
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0)) as api:
        yield api


def service(api: Client, way: str) -> tuple[FailpathClient, TracerProvider]:
    """A service that tells of its steps by events, by spans alone, or by both."""
    provider = TracerProvider(shutdown_on_exit=False)
    if way != "events":
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{api.url}/v1/traces")))
    exporter = "none" if way == "spans" else "http"
    return FailpathClient(endpoint=api.url, exporter=exporter, tracer_provider=provider, flows=False), provider


def the_step(api: Client) -> Any:
    (step,) = api.get("/api/run", flow="checkout", run_id="1").json["steps"]
    return step


@pytest.mark.parametrize("way", ["events", "spans", "both"])
def test_it_is_one_attempt_that_runs_until_it_is_completed_and_completed_once(api: Client, way: str) -> None:
    here, traces_here = service(api, way)
    there, traces_there = service(api, way)
    with here.run("checkout", "1").step("approve", metadata={"asked": "anna"}) as step:
        token = step.detach()
    here.flush()
    # Another attempt that goes on must not be taken for the one that is completed.
    with here.run("checkout", "1").step("approve") as step:
        step.detach()
    here.flush()
    assert the_step(api)["status"] == "running"

    there.complete(token, ValueError("no"), metadata={"answer": "no"})
    there.complete(token, ValueError("no"))
    there.flush()
    first, second = the_step(api)["attempts"]
    assert (first["status"], second["status"]) == ("error", "running")
    assert first["error"] == {"name": "ValueError", "message": "no", "stack": None}
    assert first["metadata"] == {"asked": "anna", "answer": "no"}
    assert first["durationMs"] > 0
    for part in (here, there, traces_here, traces_there):
        part.shutdown()
