"""OTLP/HTTP on a real socket: what the specification asks of a server, and the cases of the Collector's own receiver.

The cases are those of ``receiver/otlpreceiver`` upstream: encodings, content types, invalid requests, content encodings, sizes.
Two things are otherwise here, both as the specification leaves it: zstd is refused with 415, and so is no content type on
``/v1/metrics``, which is not taken at all (404).
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from support.otlp_bodies import (
    END_NS,
    JSON,
    PROTOBUF,
    SPAN_ID,
    START_NS,
    add_log,
    add_span,
    json_logs,
    json_record,
    json_span,
    json_traces,
    logs,
    step,
    traces,
)
from support.served import Client, in_thread

from failpath_otel.server.settings import Settings


def _send(api: Client, path: str, body: bytes, kind: str = PROTOBUF, **headers: str):
    return api.post(path, body, {"Content-Type": kind, **headers})


def _events(api: Client, run_id: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = api.get("/api/run/events", flow="checkout", run_id=run_id).json.get("events", [])
    return found


CONTENT_TYPES = [
    PROTOBUF,
    PROTOBUF.upper(),
    JSON,
    "APPLICATION/JSON",
    "Application/Json",
    f"{JSON}; charset=utf-8",
    f"{JSON};charset=UTF-8",
    f'{JSON} ; Charset="utf-8"; v=1',
]
CODINGS = ["", "identity", "Identity", "gzip", "GZIP", "x-gzip"]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("kind", CONTENT_TYPES)
def test_what_is_sent_is_what_is_stored(api, kind, coding):
    """Each content type, each coding, both signals: one event each, with all that it carries, answered in its encoding."""
    is_json = "json" in kind.lower()
    case = f"{CONTENT_TYPES.index(kind)}{CODINGS.index(coding)}"
    trace, started = bytes.fromhex(f"{int(case) + 1:032x}"), {"failpath.step.status": "running", "failpath.metadata.case": 55}
    span, record = step(f"case-{case}", **{"failpath.metadata.case": 55}), step(f"case-{case}", **started)
    ids = {"traceId": trace.hex().upper(), "spanId": SPAN_ID.hex().upper()}
    bodies = {
        "/v1/traces": json_traces(json_span(span, **ids)) if is_json else traces(span, trace_id=trace),
        "/v1/logs": json_logs(json_record(record, **ids)) if is_json else logs(record, trace_id=trace),
    }
    for path, message in bodies.items():
        body = json.dumps(message).encode() if is_json else message.SerializeToString()
        body = gzip.compress(body) if "gzip" in coding.lower() else body
        reply = _send(api, path, body, kind, **({"Content-Encoding": coding} if coding else {}))
        assert (reply.status, reply.body) == (200, b"{}" if is_json else b"")
        assert reply.headers["Content-Type"] == (JSON if is_json else PROTOBUF)
    common = {"flowKey": "checkout", "runId": f"case-{case}", "stepKey": "charge-card", "metadata": {"case": 55}}
    common |= {"traceId": trace.hex(), "spanId": SPAN_ID.hex(), "service": "shop"}
    identity, start = f"{trace.hex()}-{SPAN_ID.hex()}", "2026-03-01T12:00:00.000000Z"
    ended = {"startedAt": start, "timestamp": "2026-03-01T12:00:01.500000Z", "durationMs": 1500.0}
    assert _events(api, f"case-{case}") == [
        {"eventId": f"{identity}-start", "status": "running", "timestamp": start, **common},
        {"eventId": f"{identity}-end", "status": "success", **ended, **common},
    ]


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
@pytest.mark.parametrize(
    ("kind", "body", "answer"),
    [
        (PROTOBUF, b"", b""),
        (PROTOBUF, b"\x0a\x00", b""),
        (PROTOBUF, b"\x0a\x02\x12\x00", b""),
        (JSON, b"{}", b"{}"),
        (JSON, b' \n{"resourceSpans": [], "resourceLogs": []} ', b"{}"),
        (JSON, b'{"resourceSpans": null, "resourceLogs": null}', b"{}"),
        (JSON, b'{"resourceSpans": [{}], "resourceLogs": [{"scopeLogs": [{}]}]}', b"{}"),
    ],
)
def test_an_empty_request_is_a_success(api, path, kind, body, answer):
    reply = _send(api, path, body, kind)
    assert (reply.status, reply.body) == (200, answer)


def _partly_bad(path: str, kind: str, trace: int, good: int, bad: int) -> bytes:
    """A request with so many good and bad items, mixed."""
    ended = {"failpath.step.status": "success"} if path == "/v1/logs" else {}
    items = [step("partly", f"good-{n}", **ended) for n in range(good)] + [step("", f"bad-{n}", **ended) for n in range(bad)]
    items = items[::2] + items[1::2]
    ids = [(trace.to_bytes(16, "big"), number.to_bytes(8, "big")) for number in range(1, len(items) + 1)]
    if kind == JSON:
        named = [(item, {"traceId": one.hex(), "spanId": other.hex()}) for item, (one, other) in zip(items, ids, strict=True)]
        spans = json_traces(*(json_span(item, **fields) for item, fields in named))
        records = json_logs(*(json_record(item, **fields) for item, fields in named))
        return json.dumps(spans if path == "/v1/traces" else records).encode()
    request: Any = ExportTraceServiceRequest() if path == "/v1/traces" else ExportLogsServiceRequest()
    for item, (one, other) in zip(items, ids, strict=True):
        (add_span if path == "/v1/traces" else add_log)(request, item, trace_id=one, span_id=other)
    encoded: bytes = request.SerializeToString()
    return encoded


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
@pytest.mark.parametrize(("good", "bad"), [(1, 1), (7, 3), (0, 5), (100, 1)])
def test_a_partly_bad_request_is_a_success_that_counts_exactly_what_was_refused(api, path, kind, good, bad):
    trace = 1000 + (path == "/v1/logs") * 4 + (kind == JSON) * 8 + good * 100 + bad * 1600
    before, stored = api.get("/api/intake").json, len(_events(api, "partly"))
    reply = _send(api, path, _partly_bad(path, kind, trace, good, bad), kind)
    assert reply.status == 200
    if kind == JSON:
        name = "rejectedSpans" if path == "/v1/traces" else "rejectedLogRecords"
        assert reply.json == {"partialSuccess": {name: str(bad), "errorMessage": "failpath.run.id is empty"}}
    else:
        # Both services number these fields alike.
        partial = ExportTraceServiceResponse.FromString(reply.body).partial_success
        assert (partial.rejected_spans, partial.error_message) == (bad, "failpath.run.id is empty")
    after = api.get("/api/intake").json
    assert (after["accepted"] - before["accepted"], after["rejected"] - before["rejected"]) == (good, bad)
    assert len(_events(api, "partly")) == stored + good


def test_answers_stay_smaller_than_what_senders_read(api):
    """A Collector reads 64 KiB of an answer."""
    spans = [json_span(step("answers", status=n, **{"failpath.step.status": f"{n}" * 200})) for n in range(2000)]
    reply = _send(api, "/v1/traces", json.dumps(json_traces(*spans)).encode(), JSON)
    assert reply.json["partialSuccess"]["rejectedSpans"] == "2000"
    assert len(reply.body) < 64 * 1024
    reply = _send(api, "/v1/traces", b"{" + b"x" * 100_000, JSON, **{"X-Long": "x" * 10_000})
    assert reply.status == 400
    assert len(reply.body) < 64 * 1024


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


LIMIT = 4 * 1024 * 1024
INFLATED_LIMIT = 16 * 1024 * 1024


def _padded(kind: str, size: int) -> bytes:
    """A request of exactly so many bytes with one step."""
    if kind == JSON:
        body = json.dumps(json_traces(json_span(step("size"), traceId="e" * 32)) | {"pad": ""}).encode()
        return body[:-2] + b"x" * (size - len(body)) + b'"}'
    body = traces(step("size"), trace_id=b"\xee" * 16).SerializeToString()
    length = size - len(body) - 5
    field = b"\x7a" + bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 127 | 128, length >> 21])
    return body + field + bytes(length)


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
@pytest.mark.parametrize(
    ("size", "coding", "status"),
    [(LIMIT, "", 200), (LIMIT + 1, "", 413), (INFLATED_LIMIT, "gzip", 200), (INFLATED_LIMIT + 1, "gzip", 413)],
)
def test_the_size_is_bounded_before_and_after_inflating_to_the_byte(api, kind, size, coding, status):
    body = _padded(kind, size)
    assert len(body) == size
    body = gzip.compress(body, 1) if coding else body
    reply = _send(api, "/v1/traces", body, kind, **({"Content-Encoding": coding} if coding else {}))
    assert (reply.status, reply.headers["Content-Type"]) == (status, kind)


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
@pytest.mark.parametrize(
    "kind", ["", "invalid", "text/plain", "application/x-protobuf2", "application/jsonx", "multipart/form-data"]
)
def test_other_content_types_are_refused_and_told_which_are_taken(api, path, kind):
    reply = _send(api, path, b"{}", kind)
    assert (reply.status, reply.headers["Content-Type"]) == (415, PROTOBUF)
    told = Status.FromString(reply.body)
    assert (told.code, "application/json or application/x-protobuf" in told.message) == (3, True)


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_other_methods_are_refused_and_told_which_is_taken(api, path, method, kind):
    reply = api.request(method, path, None if method in ("GET", "HEAD") else b"{}", {"Content-Type": kind})
    assert (reply.status, reply.headers["Allow"], reply.headers["Content-Type"]) == (405, "POST", kind)
    if method != "HEAD":
        assert (reply.json["code"] if kind == JSON else Status.FromString(reply.body).code) == 12


@pytest.mark.parametrize("coding", ["zstd", "deflate", "zlib", "snappy", "br", "gzip, gzip", "nothing"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_other_content_encodings_are_refused_and_told_which_are_taken(api, kind, coding):
    reply = _send(api, "/v1/traces", b"{}", kind, **{"Content-Encoding": coding})
    assert (reply.status, reply.headers["Content-Type"], reply.headers["Accept-Encoding"]) == (415, kind, "gzip, identity")
    assert (reply.json["code"] if kind == JSON else Status.FromString(reply.body).code) == 3


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/profiles", "/v1/traces/", "/v1/trace", "/V1/traces"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_what_is_not_taken_here_is_not_found_in_the_encoding_of_the_request(api, path, kind):
    reply = _send(api, path, b"{}", kind)
    assert reply.status == 404
    if path.startswith("/v1/"):
        assert reply.headers["Content-Type"] == kind
        assert (reply.json["code"] if kind == JSON else Status.FromString(reply.body).code) == 5


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_a_store_that_is_down_is_a_503_that_says_when_to_come_again_and_never_a_500(store_down, path, kind):
    body = _partly_bad(path, kind, 1, 1, 1)
    reply = _send(store_down, path, body, kind)
    assert (reply.status, reply.headers["Content-Type"]) == (503, kind)
    assert int(reply.headers["Retry-After"]) >= 1
    assert (reply.json["code"] if kind == JSON else Status.FromString(reply.body).code) == 14
    # What needs no store is answered all the same, and what is bad for good is not put off.
    assert _send(store_down, path, b"{}" if kind == JSON else b"", kind).status == 200
    assert _send(store_down, path, b"\xff", kind).status == 400


@pytest.fixture(scope="module")
def store_down(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server whose database another holds."""
    db = tmp_path_factory.mktemp("down") / "runs.db"
    with in_thread(Settings(db=str(db), port=0)) as client:
        lock = sqlite3.connect(db, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        yield client
        lock.close()


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_a_sender_without_the_key_is_told_so_in_the_encoding_of_its_request(tmp_path, kind):
    with in_thread(Settings(db=str(tmp_path / "runs.db"), port=0, ingest_key="k")) as api:
        reply = _send(api, "/v1/logs", b"{}", kind)
        assert (reply.status, reply.headers["Content-Type"], reply.headers["WWW-Authenticate"]) == (401, kind, "Bearer")
        assert (reply.json["code"] if kind == JSON else Status.FromString(reply.body).code) == 16
