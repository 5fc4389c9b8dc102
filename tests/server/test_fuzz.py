"""Whatever is sent: a 4xx with a clear problem at worst, never a 5xx, and a good neighbour is always stored."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.otlp_bodies import json_span, json_traces, step, traces
from support.served import Client, Reply, event, in_thread

from failpath_otel.server.otlp import schema
from failpath_otel.server.settings import Settings

PROTOBUF = "application/x-protobuf"
EXAMPLES = 120
PATHS = ("/v1/events", "/v1/traces", "/v1/logs")
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
numbers = count()

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
texts = st.text(st.characters(), max_size=30)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with in_thread(Settings(db=str(tmp_path_factory.mktemp("fuzz") / "runs.db"), port=0)) as client:
        yield client


def _clear(reply: Reply) -> None:
    """A success, or a refusal of the caller's fault with words for it."""
    assert reply.status < 500, (reply.status, reply.body)
    if reply.status < 400:
        return
    kind = reply.headers["Content-Type"]
    if kind == PROTOBUF:
        assert Status.FromString(reply.body).message
    else:
        assert reply.json.get("detail") or reply.json.get("message")


def _neighbour_is_stored(target: Client, run_id: str) -> None:
    assert target.get("/api/run", flow="checkout", run_id=run_id).status == 200


@fuzzed
@given(
    path=st.sampled_from(PATHS),
    body=st.binary(max_size=200),
    kind=st.sampled_from(["application/json", PROTOBUF]),
    coding=st.booleans(),
)
def test_any_bytes(target, path, body, kind, coding):
    headers = {"Content-Type": kind, **({"Content-Encoding": "gzip"} if coding else {})}
    _clear(target.post(path, body, headers))
    run_id = f"bytes-{next(numbers)}"
    assert target.send_events(event(run_id)).json["accepted"] == 1


@fuzzed
@given(value=json_values, path=st.sampled_from(PATHS))
def test_any_json(target, value, path):
    _clear(target.post(path, json.dumps(value).encode()))


@fuzzed
@given(
    item=json_values
    | st.fixed_dictionaries(
        {}, optional=dict.fromkeys((*event(), "metadata", "error", "startedAt", "service"), json_values | texts)
    ),
    changed=st.dictionaries(
        st.sampled_from([*event(), "metadata", "error", "startedAt", "traceId", "spanId", "service"]), json_values, max_size=3
    ),
)
def test_any_event_beside_a_good_one(target, item, changed):
    run_id = f"event-{next(numbers)}"
    reply = target.send_events(item, event(run_id), event(f"{run_id}-x") | changed)
    _clear(reply)
    assert reply.status == 202
    assert reply.json["accepted"] + reply.json["duplicates"] + len(reply.json["rejected"]) == 3
    assert all(entry["reason"] for entry in reply.json["rejected"])
    _neighbour_is_stored(target, run_id)


@fuzzed
@given(
    bad=json_values,
    changed=st.dictionaries(st.sampled_from([*json_span({}), "events"]), json_values, max_size=3),
    value=st.dictionaries(
        st.sampled_from(["stringValue", "intValue", "doubleValue", "boolValue", "arrayValue", "kvlistValue", "bytesValue"]),
        json_values,
    ),
)
def test_any_json_span_beside_a_good_one(target, bad, changed, value):
    number = next(numbers)
    good = json_span(step(f"json-{number}"), spanId=f"{number + 1:016x}")
    strange = json_span(step(f"json-{number}-x"), spanId=f"{number + 1:08x}" * 2)
    strange["attributes"].append({"key": "failpath.metadata.x", "value": value})
    body = json_traces(bad, good, strange | changed)
    body["resourceSpans"].append(bad)
    reply = target.post("/v1/traces", body)
    assert reply.status == 200, reply.body
    _neighbour_is_stored(target, f"json-{number}")


@fuzzed
@given(data=st.data())
def test_any_damage_to_a_protobuf_span_beside_a_good_one(target, data):
    number = next(numbers)
    span_id = (number + 1).to_bytes(8, "big")
    good = traces(step(f"proto-{number}"), span_id=span_id).resource_spans[0].scope_spans[0].spans[0]
    raw = bytearray(
        traces(step(f"proto-{number}-x", **{"failpath.metadata.n": 5}))
        .resource_spans[0]
        .scope_spans[0]
        .spans[0]
        .SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    request = schema.Request()
    scope = request.groups.add().scopes.add()
    # The id of the good one must differ from whatever the damaged one became.
    good.span_id = span_id[::-1]
    scope.items.extend([bytes(raw[: data.draw(st.integers(0, len(raw)))]), good.SerializeToString(), bytes(raw)])
    reply = target.post("/v1/traces", request.SerializeToString(), {"Content-Type": PROTOBUF})
    assert reply.status == 200, reply.body
    _neighbour_is_stored(target, f"proto-{number}")


@fuzzed
@given(data=st.data(), path=st.sampled_from(PATHS))
def test_any_damage_to_a_gzip_body(target, data, path):
    raw = bytearray(gzip.compress(json.dumps({"events": [event("gzip")], "resourceSpans": []}).encode()))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))]) + data.draw(st.binary(max_size=5))
    _clear(target.post(path, cut, {"Content-Encoding": "gzip"}))


HEADERS = (
    "Host",
    "Origin",
    "Content-Type",
    "Content-Encoding",
    "Authorization",
    "Cookie",
    "Sec-Fetch-Site",
    "Last-Event-ID",
    "Content-Length",
    "Accept",
)
latin = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)


@fuzzed
@given(
    target_path=st.sampled_from(
        ["/", "/api/runs", "/api/run", "/api/live", "/v1/events", "/v1/traces", "/openapi.json", "/static/app.css", "/x"]
    ),
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "NONSENSE"]),
    headers=st.lists(st.tuples(st.sampled_from(HEADERS) | st.text("abcXYZ-", min_size=1, max_size=9), latin), max_size=5),
    query=st.binary(max_size=40),
)
def test_any_headers_and_query(target, target_path, method, headers, query):
    """Bytes on a socket of their own: an HTTP client would refuse to send them."""
    asked = "".join(chr(byte) if 32 < byte < 127 else f"%{byte:02x}" for byte in query)
    lines = [f"{method} {target_path}?{asked} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if "Host" not in {name for name, _ in headers}:
        lines.append("Host: localhost")
    raw = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
    assert _status(target, raw) < 500


@fuzzed
@given(st.binary(max_size=300))
def test_any_bytes_on_the_socket(target, raw):
    assert _status(target, raw) < 500
    assert _status(target, b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + raw) < 500


def _status(target: Client, raw: bytes) -> int:
    """The status of the first answer to these bytes and no more; 0 where the server just closes."""
    parts = urlsplit(target.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n" not in answer and (part := connection.recv(4096)):
            answer += part
    return int(answer.split(b" ")[1]) if answer else 0


def test_the_server_is_well_after_all_this(target):
    assert target.get("/healthz").status == 200
    assert target.get("/api/runs").status == 200
    assert target.get("/").status == 200
