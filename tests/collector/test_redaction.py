"""redaction.yaml: secrets of many shapes, in every place that holds text, reach neither the backend nor the server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.collector import CONFIGS, Collector, StartCollector, validate
from support.otlp_backend import OtlpBackend
from support.otlp_bodies import PROTOBUF, add_log, add_span, any_value, put, step
from support.served import Client, environment, until
from support.shop import assert_exact, run_ids, shop

STRICT = ("--config", "yaml:processors::filter/failpath::error_mode: propagate")
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\nxyzzyxyzzy==\n-----END RSA PRIVATE KEY-----"

# Text that holds a secret → the secret, which must be nowhere.
IN_TEXT = {
    "card 4111111111111111 declined": "4111111111111111",
    "card 4111 1111 1111 1112 declined": "4111 1111 1111 1112",
    "card 5500-0000-0000-0004.": "5500-0000-0000-0004",
    "amex 378282246310005": "378282246310005",
    "amex 3714 496353 98431": "3714 496353 98431",
    "diners 30569309025904": "30569309025904",
    "discover 6011000990139424": "6011000990139424",
    "mastercard 2223003122003222": "2223003122003222",
    "Authorization: Bearer abcdef0123456789.xyz": "abcdef0123456789.xyz",
    "got basic dXNlcjpwYXNzd29yZA==": "dXNlcjpwYXNzd29yZA",
    f"token was {JWT}": JWT.split(".")[2],
    "key sk_live_4eC39HqLyjWDarjtT1zdp7dc": "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "pushed with ghp_16C7e42F292c6912E7710c838347Ae178B4a": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "aws AKIAIOSFODNN7EXAMPLE": "AKIAIOSFODNN7EXAMPLE",
    "slack xoxb-123456789012-abcdefABCDEF": "xoxb-123456789012-abcdefABCDEF",
    PEM: "MIIEpAIBAAKCAQEA7bq",
    "postgres://shop:s3cr3t-pg@db:5432/shop": "s3cr3t-pg",
    "https://api/charge?amount=1&access_token=tok-9f8e7d&x=1": "tok-9f8e7d",
    '{"user": "ann", "password": "hunter2-json"}': "hunter2-json",
    "login failed: password=hunter2-plain, user=ann": "hunter2-plain",
    "{'api_key': 'k-repr-1234'}": "k-repr-1234",
}
# An attribute's key → its value, whatever that looks like.
BY_KEY = {
    "password": "plainpass1",
    "db.password": "plainpass2",
    "failpath.metadata.card_number": "not-a-number-3",
    "failpath.metadata.cardNumber": "not-a-number-4",
    "http.request.header.authorization": "opaque-5",
    "http.request.header.set-cookie": "sid=opaque-6",
    "http.request.header.x-api-key": "opaque-7",
    "failpath.metadata.token": "opaque-8",
    "accessToken": "opaque-9",
    "CLIENT_SECRET": "opaque-10",
    "failpath.metadata.cvv": 987654321,
    "session.token": ["opaque-12"],
    "failpath.metadata.payment": {"method": "card", "password": "nested-13", "n": [{"secret": "nested-14"}]},
}
SECRETS = [*IN_TEXT.values(), *(s for v in BY_KEY.values() for s in (v if isinstance(v, list) else [v]) if isinstance(s, str))]
SECRETS += ["987654321", "nested-13", "nested-14"]

# What only looks like a secret and is needed.
KEPT = {
    "failpath.metadata.order": "o-4111",
    "failpath.metadata.amount": 411111,
    "failpath.metadata.at_ns": 1763942400000000000,
    "failpath.metadata.uuid": "4f1d2c3b-1111-4222-8333-444455556666",
    "failpath.metadata.tokens_used": 512,
    "failpath.metadata.iso": "2026-11-24T00:00:00.123456Z",
    "failpath.metadata.cardinality": "high",
    "url.full": "https://shop/checkout?order=7&currency=EUR",
}


@pytest.fixture
def collector(start_collector: StartCollector, api: Client, backend: OtlpBackend) -> Collector:
    return start_collector("redaction.yaml", {"FAILPATH_ENDPOINT": api.url, "BACKEND_ENDPOINT": backend.url}, arguments=STRICT)


def send(collector: Collector, path: str, request: Any) -> None:
    with contextlib.closing(Client(collector.endpoint)) as sender:
        reply = sender.post(path, request.SerializeToString(), {"Content-Type": PROTOBUF})
        assert reply.status == 200, reply.body


def everywhere(text: str, number: int) -> ExportTraceServiceRequest:
    """Steps with this text in each place of a span that holds any."""
    request = ExportTraceServiceRequest()
    ids = {"span_id": (number + 1).to_bytes(8, "big"), "trace_id": (number + 1).to_bytes(16, "big")}
    places = {"failpath.metadata.note": text, "plain": text, "list": [text, "x"], "map": {"deep": [text]}}
    span = add_span(request, step(f"run-{number}") | places, name=f"step {text}", **ids)
    span.status.code = 2
    span.status.message = text
    for name in ("exception", f"told {text}"):
        event = span.events.add(name=name)
        put(event.attributes, {"exception.type": "Declined", "exception.message": text, "exception.stacktrace": f"at\n{text}"})
    put(request.resource_spans[0].resource.attributes, {"process.command_line": text})
    put(request.resource_spans[0].scope_spans[0].scope.attributes, {"note": text})
    return request


def seen_by(api: Client, backend: OtlpBackend) -> str:
    """All text that arrived, at both ends."""
    ends = [str(item.proto) + json.dumps(item.resource, default=str) for item in (*backend.traces, *backend.logs)]
    for run in sorted(run_ids(api)):
        ends.append(api.get("/api/run/events", flow="checkout", run_id=run).body.decode())
        ends.append(api.get("/api/run", flow="checkout", run_id=run).body.decode())
    return "\n".join(ends)


def test_the_configuration_is_valid() -> None:
    validate(CONFIGS / "redaction.yaml")


def test_no_secret_in_any_place_of_a_span_reaches_either_end(collector: Collector, api: Client, backend: OtlpBackend) -> None:
    for number, text in enumerate(IN_TEXT):
        send(collector, "/v1/traces", everywhere(text, number))
    until(lambda: len(run_ids(api)) == len(IN_TEXT) == len(backend.traces))
    arrived = seen_by(api, backend)
    assert [secret for secret in IN_TEXT.values() if secret in arrived] == []
    assert "****" in arrived
    assert "redaction." not in arrived
    assert {item.name.startswith("step ") for item in backend.traces} == {True}
    assert {event["error"]["name"] for event in api.get("/api/run/events", flow="checkout", run_id="run-0").json["events"]} == {
        "Declined"
    }


def test_the_values_of_named_keys_reach_neither_end(collector: Collector, api: Client, backend: OtlpBackend) -> None:
    request = ExportTraceServiceRequest()
    span = add_span(request, step("run-1") | BY_KEY | KEPT)
    put(span.events.add(name="exception").attributes, BY_KEY)
    put(request.resource_spans[0].resource.attributes, {"db.password": "plainpass2"})
    send(collector, "/v1/traces", request)
    until(lambda: run_ids(api) == {"run-1"} and backend.traces)
    arrived = seen_by(api, backend)
    assert [secret for secret in SECRETS if secret in arrived] == []


def test_what_only_looks_like_a_secret_stays(collector: Collector, api: Client, backend: OtlpBackend) -> None:
    request = ExportTraceServiceRequest()
    add_span(request, step("4111111111111111", "token") | KEPT)
    send(collector, "/v1/traces", request)
    until(lambda: run_ids(api) == {"4111111111111111"} and backend.traces)
    known = step("4111111111111111", "token") | KEPT
    assert {key: backend.traces[0].attributes[key] for key in known} == known


def test_log_records_lose_secrets_in_attributes_and_bodies(collector: Collector, api: Client, backend: OtlpBackend) -> None:
    request = ExportLogsServiceRequest()
    for number, text in enumerate(IN_TEXT):
        attributes = step(f"log-{number}") | {"failpath.step.status": "error", "exception.message": text} | BY_KEY
        record = add_log(request, attributes, span_id=(number + 1).to_bytes(8, "big"))
        any_value(record.body, text if number % 2 else {"message": text, "password": "plainpass1", "deep": [{"note": text}]})
    send(collector, "/v1/logs", request)
    until(lambda: len(run_ids(api)) == len(IN_TEXT) == len(backend.logs))
    arrived = seen_by(api, backend)
    assert [secret for secret in SECRETS if secret in arrived] == []


def test_runs_arrive_as_done_by_events_and_spans_and_only_their_secrets_are_gone(
    collector: Collector, api: Client, backend: OtlpBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    with shop(exporter="otlp", spans_to=collector.endpoint) as service:
        service.checkouts(8)
        service.flush()
        assert_exact(api, service, events=service.events)
        until(lambda: len(backend.traces) == service.attempts and len(backend.logs) == service.events)
    arrived = seen_by(api, backend)
    assert "no funds on" in arrived
    assert "4111 1111 1111 1111" not in arrived


def test_generated_spans_reach_the_backend(collector: Collector, api: Client, backend: OtlpBackend, telemetrygen: Path) -> None:
    arguments = ["traces", "--otlp-http", "--otlp-insecure", "--otlp-endpoint", collector.endpoint.removeprefix("http://")]
    attributes = ["--telemetry-attributes", 'api_key="opaque-15"', "--traces", "20"]
    env = environment({"PATH": os.environ["PATH"]})
    subprocess.run([telemetrygen, *arguments, *attributes], env=env, check=True, capture_output=True, timeout=60)
    until(lambda: len(backend.traces) >= 40)
    assert "opaque-15" not in seen_by(api, backend)
    assert run_ids(api) == set()
