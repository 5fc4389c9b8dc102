"""OTLP/HTTP through the network."""

from __future__ import annotations

import gzip
import json

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from support.otlp_bodies import (
    END_NS,
    JSON,
    PROTOBUF,
    START_NS,
    add_span,
    json_span,
    json_traces,
    logs,
    step,
    traces,
)
from support.served import Client


def _send(api: Client, path: str, body: bytes, kind: str = PROTOBUF, **headers: str):
    return api.post(path, body, {"Content-Type": kind, **headers})


def test_spans_sent_as_otlp_are_seen_as_a_run(api):
    reply = _send(api, "/v1/traces", gzip.compress(traces(step("otlp-1")).SerializeToString()), **{"Content-Encoding": "gzip"})
    assert (reply.status, reply.headers["Content-Type"], reply.body) == (200, PROTOBUF, b"")
    reply = _send(api, "/v1/traces", json.dumps(json_traces(json_span(step("otlp-2"), spanId="12" * 8))).encode(), JSON)
    assert (reply.status, reply.headers["Content-Type"], reply.json) == (200, JSON, {})
    for run_id in ("otlp-1", "otlp-2"):
        assert api.get("/api/run", flow="checkout", run_id=run_id).json["steps"][1]["durationMs"] == 1500.0


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
@pytest.mark.parametrize(
    ("kind", "body", "answer"), [(PROTOBUF, b"", b""), (JSON, b"{}", b"{}"), (f"{JSON}; charset=UTF-8", b"{}", b"{}")]
)
def test_an_empty_request_is_a_success(api, path, kind, body, answer):
    reply = _send(api, path, body, kind)
    assert (reply.status, reply.body) == (200, answer)


def test_a_partly_bad_request_is_a_success_that_says_what_was_refused(api):
    request = traces(step("partly"), trace_id=b"\1" * 16)
    add_span(request, step("partly", "bad"), trace_id=bytes(16))
    before = api.get("/api/intake").json
    reply = _send(api, "/v1/traces", request.SerializeToString())
    partial = ExportTraceServiceResponse.FromString(reply.body).partial_success
    assert (reply.status, partial.rejected_spans, partial.error_message) == (200, 1, "trace_id is all zero")
    after = api.get("/api/intake").json
    assert (after["accepted"] - before["accepted"], after["rejected"] - before["rejected"]) == (1, 1)


def test_intake_counts_unmapped_and_incomplete_spans(api):
    before = api.get("/api/intake").json
    _send(api, "/v1/traces", traces({"a": 1}, {"failpath.run.id": "x"}).SerializeToString())
    after = api.get("/api/intake").json
    assert (after["unmapped"] - before["unmapped"], after["incomplete"] - before["incomplete"]) == (1, 1)


def test_the_same_span_by_both_ways_and_twice_is_one_event(api):
    spans = traces(step("both"), trace_id=b"\2" * 16).SerializeToString()
    record = logs(
        step("both", **{"failpath.step.status": "success", "failpath.step.started_at": START_NS}),
        trace_id=b"\2" * 16,
        time_unix_nano=END_NS,
    )
    for path, body in (("/v1/traces", spans), ("/v1/logs", record.SerializeToString()), ("/v1/traces", spans)):
        assert _send(api, path, body).status == 200
    assert len(api.get("/api/run/events", flow="checkout", run_id="both").json["events"]) == 1


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"\xff", {}, 400, 3),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400, 3),
        (gzip.compress(b"x" * 100)[:-4], {"Content-Encoding": "gzip"}, 400, 3),
        (gzip.compress(bytes(17 * 1024 * 1024)), {"Content-Encoding": "gzip"}, 413, 3),
        (bytes(5 * 1024 * 1024), {}, 413, 3),
        (b"", {"Content-Encoding": "snappy"}, 415, 3),
        (b"", {"Host": "evil.example"}, 421, 3),
        (b"", {"Origin": "http://evil.example"}, 403, 7),
    ],
)
def test_every_refusal_is_a_status_in_the_encoding_of_the_request(api, path, body, headers, status, code):
    reply = _send(api, path, body, PROTOBUF, **headers)
    assert (reply.status, reply.headers["Content-Type"]) == (status, PROTOBUF)
    told = Status.FromString(reply.body)
    assert (told.code, bool(told.message)) == (code, True)
    if body != b"":
        reply = _send(api, path, body, JSON, **headers)
        assert (reply.status, reply.headers["Content-Type"], reply.json["code"]) == (status, JSON, code)


def test_signals_that_are_not_taken_are_refused_in_the_encoding_of_the_request(api):
    reply = _send(api, "/v1/metrics", b"")
    assert (reply.status, Status.FromString(reply.body).code) == (404, 5)
    assert _send(api, "/v1/metrics", b"{}", JSON).json["code"] == 5


def test_another_content_type_and_another_method_are_refused(api):
    assert _send(api, "/v1/traces", b"", "text/plain").status == 415
    reply = api.get("/v1/traces")
    assert (reply.status, reply.headers["Allow"], Status.FromString(reply.body).code) == (405, "POST", 12)
