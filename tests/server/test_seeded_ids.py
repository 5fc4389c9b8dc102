"""Services that seed the generator of OpenTelemetry's ids have the same ones again: attempts are told apart by starts."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from support.served import Client

from failpath_otel import FailpathClient

Send = Callable[..., None]


class Declined(Exception):
    pass


def decline() -> None:
    raise Declined


@pytest.fixture(params=["events", "spans", "both ways"])
def attempt(request: pytest.FixtureRequest, api: Client) -> Send:
    """Runs a step as a process does that seeds ``random`` first, and sends it: the ids are the same each time."""

    def send(run_id: str, fails: bool) -> None:
        state = random.getstate()
        random.seed(7)
        try:
            provider = TracerProvider(shutdown_on_exit=False)
            exporter = "http" if request.param != "spans" else "none"
            if request.param != "events":
                provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{api.url}/v1/traces")))
            with (
                FailpathClient(
                    endpoint=api.url, exporter=exporter, tracer_provider=provider, flows=False, rules=False
                ) as client,
                contextlib.suppress(Declined),
            ):
                client.run("checkout", run_id).step("charge-card", decline if fails else (lambda: None))
            provider.shutdown()
        finally:
            random.setstate(state)

    return send


def step_of(api: Client, run_id: str) -> Any:
    (step,) = [step for step in api.get("/api/run", flow="checkout", run_id=run_id).json["steps"] if step["attempts"]]
    return step


def test_a_retry_with_the_same_ids_is_another_attempt(api: Client, attempt: Send, request: pytest.FixtureRequest) -> None:
    run_id = request.node.name
    attempt(run_id, fails=True)
    attempt(run_id, fails=False)
    step = step_of(api, run_id)
    assert step["status"] == "success"
    assert [each["status"] for each in step["attempts"]] == ["error", "success"]
    assert step["attempts"][0]["spanId"] == step["attempts"][1]["spanId"]


def test_of_workers_with_the_same_ids_no_error_is_lost(api: Client, attempt: Send, request: pytest.FixtureRequest) -> None:
    run_id = request.node.name
    for fails in (False, False, True, False):
        attempt(run_id, fails=fails)
    assert [each["status"] for each in step_of(api, run_id)["attempts"]] == ["success", "success", "error", "success"]


def test_the_same_attempt_sent_again_is_still_one(api: Client, request: pytest.FixtureRequest) -> None:
    run_id = request.node.name
    start = {
        "eventId": "t-s-start", "flowKey": "checkout", "runId": run_id, "stepKey": "charge-card", "status": "running",
        "timestamp": "2026-03-01T12:00:00.000001Z", "traceId": "0" * 31 + "1", "spanId": "0" * 15 + "1",
    }  # fmt: skip
    end = {
        **start, "eventId": "t-s-end", "status": "success", "timestamp": "2026-03-01T12:00:01Z",
        "startedAt": start["timestamp"],
    }  # fmt: skip
    later = {**start, "timestamp": "2026-03-01T12:05:00Z"}
    for accepted, events in ((2, (start, end)), (0, (end, start)), (1, (later, end, later))):
        reply = api.send_events(*events).json
        assert (reply["accepted"], reply["duplicates"]) == (accepted, len(events) - accepted)
    assert [each["status"] for each in step_of(api, run_id)["attempts"]] == ["success", "running"]


def test_an_outcome_whose_start_differs_a_little_ends_the_attempt(api: Client, request: pytest.FixtureRequest) -> None:
    """As that of a sender whose clock has milliseconds for one and microseconds for the other."""
    run_id = request.node.name
    api.send_events(
        {"eventId": "a", "flowKey": "checkout", "runId": run_id, "stepKey": "charge-card", "status": "running",
         "timestamp": "2026-03-01T12:00:00.123456Z", "spanId": "0" * 15 + "1", "traceId": "0" * 31 + "1"},
        {"eventId": "b", "flowKey": "checkout", "runId": run_id, "stepKey": "charge-card", "status": "success",
         "timestamp": "2026-03-01T12:00:02Z", "startedAt": "2026-03-01T12:00:00.123Z", "spanId": "0" * 15 + "1",
         "traceId": "0" * 31 + "1"},
    )  # fmt: skip
    assert [each["status"] for each in step_of(api, run_id)["attempts"]] == ["success"]
