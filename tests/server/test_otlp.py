"""OTLP: what a body of spans gives, item by item, in both encodings, and what its sender is answered."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from support.otlp_bodies import (
    END_NS,
    JSON,
    PROTOBUF,
    SPAN_ID,
    START_NS,
    TRACE_ID,
    add_span,
    json_attributes,
    json_span,
    json_traces,
    only,
    put,
    spans_of,
    step,
    traces,
)

from failpath_otel.errors import EventError
from failpath_otel.events.step import StepError, StepEvent
from failpath_otel.server.otlp import protobuf, schema
from failpath_otel.server.otlp.decode import decode_traces, log_answer, trace_answer

METADATA = {"text": "t", "n": -7, "x": 0.5, "yes": True, "list": ["a", "b"], "empty": ""}
FULL = step("r1") | {f"failpath.metadata.{name}": value for name, value in METADATA.items()}


@pytest.mark.parametrize("body", [traces(FULL), json_traces(json_span(FULL))], ids=["protobuf", "json"])
def test_a_step_span_gives_its_outcome(body):
    assert only(spans_of(body)) == StepEvent(
        event_id=f"{TRACE_ID.hex()}-{SPAN_ID.hex()}-end",
        flow_key="checkout",
        run_id="r1",
        step_key="charge-card",
        status="success",
        timestamp=END_NS,
        started_at=START_NS,
        metadata=METADATA,
        trace_id=TRACE_ID.hex(),
        span_id=SPAN_ID.hex(),
        service="shop",
    )


def _failed_protobuf() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    span = add_span(request, step("r1"))
    span.status.code, span.status.message = 2, "declined"
    for kind in ("a.b.First", "shop.payments.CardDeclined"):
        put(
            span.events.add(name="exception").attributes,
            {"exception.type": kind, "exception.message": "no", "exception.stacktrace": "at x"},
        )
    span.events.add(name="later")
    return request


def _failed_json(code: object) -> dict[str, object]:
    shown = [
        {"exception.type": kind, "exception.message": "no", "exception.stacktrace": "at x"}
        for kind in ("a.b.First", "shop.CardDeclined")
    ]
    events = [{"name": "exception", "attributes": json_attributes(attributes)} for attributes in shown]
    return json_traces(json_span(step("r1"), status={"code": code, "message": "declined"}, events=[*events, {"name": "later"}]))


@pytest.mark.parametrize("body", [_failed_protobuf(), _failed_json(2), _failed_json("STATUS_CODE_ERROR")])
def test_the_error_of_a_failed_span_is_its_last_exception_event(body):
    event = only(spans_of(body))
    assert (event.status, event.error) == ("error", StepError("CardDeclined", "no", "at x"))


def test_without_an_exception_event_the_status_message_and_error_type_tell_the_error():
    request = traces(step("r1", **{"error.type": "http.Timeout"}))
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.status.code, span.status.message = 2, "too slow"
    assert only(spans_of(request)).error == StepError("Timeout", "too slow")


def test_a_handled_exception_is_no_error():
    request = _failed_protobuf()
    request.resource_spans[0].scope_spans[0].spans[0].status.code = 1
    assert only(spans_of(request)).status == "success"


@pytest.mark.parametrize("make", [traces, lambda values: json_traces(json_span(values))])
def test_a_declared_status_stands(make):
    skipped = only(spans_of(make(step("r1", **{"failpath.step.status": "skipped", "failpath.step.skip_reason": "opted out"}))))
    assert (skipped.status, skipped.skip_reason) == ("skipped", "opted out")
    running = only(spans_of(make(step("r1", **{"failpath.step.status": "running"}))))
    assert (running.status, running.event_id[-5:], running.timestamp) == ("running", "start", START_NS)


@pytest.mark.parametrize("make", [traces, lambda *several: json_traces(*map(json_span, several))])
def test_foreign_spans_are_counted_as_unmapped_and_half_named_ones_as_incomplete(make):
    half = {"failpath.flow.slug": "checkout", "failpath.run.id": "r1"}
    decoded = spans_of(make({"http.route": "/"}, half, step("r1"), {"note": "failpath.flow.slug is only mentioned"}))
    assert (len(decoded.events), decoded.rejected, decoded.unmapped, decoded.incomplete) == (1, [], 2, 1)


BAD_FIELDS = {
    "zero trace id": ({"trace_id": bytes(16)}, {"traceId": "0" * 32}, "is all zero"),
    "zero span id": ({"span_id": bytes(8)}, {"spanId": "0" * 16}, "is all zero"),
    "no trace id": ({"trace_id": b""}, {"traceId": ""}, "must be 16 bytes, got 0"),
    "short span id": ({"span_id": b"abc"}, {"spanId": "abcdef"}, "must be 8 bytes, got 3"),
    "no start": ({"start_time_unix_nano": 0}, {"startTimeUnixNano": "0"}, "is missing"),
    "start beyond time": ({"start_time_unix_nano": 2**64 - 1}, {"startTimeUnixNano": 2**64 - 1}, "before the year 2262"),
    "end beyond time": ({"end_time_unix_nano": 2**63}, {"endTimeUnixNano": str(2**63)}, "before the year 2262"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_a_bad_step_span_is_refused_with_a_reason_and_takes_no_other_down(case):
    fields, json_fields, reason = BAD_FIELDS[case]
    request = traces(step("good"))
    add_span(request, step("bad"), **fields)
    add_span(request, step("last"), span_id=b"12345678")
    for body in (
        request,
        json_traces(json_span(step("good")), json_span(step("bad"), **json_fields), json_span(step("last"), spanId="1" * 16)),
    ):
        decoded = spans_of(body)
        assert [event.run_id for event in decoded.events] == ["good", "last"]
        assert len(decoded.rejected) == 1
        assert reason in decoded.rejected[0]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (step(""), "failpath.run.id is empty"),
        (step("x" * 513), "513 characters"),
        (step("r") | {"failpath.run.id": 7}, "must be text, got int"),
        (step("r") | {"failpath.run.id": ["r"]}, "must be text, got list"),
        (step("r") | {"failpath.step.status": "done"}, "failpath.step.status must be one of"),
    ],
)
def test_bad_attributes_are_refused_with_a_reason(values, reason):
    for body in (traces(values), json_traces(json_span(values))):
        decoded = spans_of(body)
        assert (decoded.events, len(decoded.rejected)) == ([], 1)
        assert reason in decoded.rejected[0]


def test_a_zero_id_on_a_foreign_span_matters_to_nobody():
    assert spans_of(traces({"a": 1}, trace_id=bytes(16))).unmapped == 1


def test_an_end_before_its_start_is_taken_as_its_start():
    for body in (traces(step("r"), end_time_unix_nano=START_NS - 5), json_traces(json_span(step("r"), endTimeUnixNano=None))):
        assert only(spans_of(body)).timestamp == START_NS


def test_text_that_is_no_utf8_costs_only_its_characters():
    body = (
        traces(step("r", note="A~~~B", **{"failpath.metadata.m": "A~~~B"})).SerializeToString().replace(b"~~~", b"\xff\xfe\xfd")
    )
    with pytest.raises(Exception, match="pars"):
        ExportTraceServiceRequest.FromString(body)
    assert only(decode_traces(body, PROTOBUF)).metadata == {"m": "A���B"}


def _with_raw_spans(*spans: bytes) -> bytes:
    request = schema.Request()
    request.groups.add().scopes.add().items.extend(spans)
    return request.SerializeToString()


def _raw_span(run_id: str) -> bytes:
    return traces(step(run_id)).resource_spans[0].scope_spans[0].spans[0].SerializeToString()


def test_a_span_that_cannot_be_decoded_is_refused_alone():
    # A wire type that does not exist; a length beyond the end.
    broken = [b"\x0f" + _raw_span("broken")[1:], _raw_span("broken") + b"\x0a\x7f"]
    decoded = decode_traces(_with_raw_spans(_raw_span("good"), *broken, _raw_span("last")), PROTOBUF)
    assert [event.run_id for event in decoded.events] == ["good", "last"]
    assert decoded.rejected == ["the span cannot be decoded"] * 2


@pytest.mark.parametrize(
    "body", [b"\xff", traces(step("r")).SerializeToString()[:-1], b"hello", json.dumps(json_traces()).encode()]
)
def test_bytes_that_are_no_protobuf_request_are_refused_as_a_whole(body):
    with pytest.raises(EventError, match="no OTLP protobuf"):
        decode_traces(body, PROTOBUF)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"resourceSpans": 1}', b'{"resourceSpans": [}', b"\x0a\x00"])
def test_bytes_that_are_no_json_request_are_refused_as_a_whole(body):
    with pytest.raises(EventError, match="no OTLP request in JSON"):
        decode_traces(body, JSON)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    length = len(content)
    written = bytes([number << 3 | 2])
    while length > 127:
        written += bytes([length & 127 | 128])
        length >>= 7
    return written + bytes([length]) + content


def test_nested_values_deeper_than_protobuf_goes_are_refused_alone():
    value = _field(1, b"x")
    for _ in range(150):
        value = _field(5, _field(1, value))
    deep = _raw_span("deep") + _field(9, _field(1, b"failpath.metadata.deep") + _field(2, value))
    decoded = decode_traces(_with_raw_spans(_raw_span("good"), deep), PROTOBUF)
    assert ([event.run_id for event in decoded.events], len(decoded.rejected)) == (["good"], 1)


def test_json_nested_too_deeply_is_cut_and_costs_no_other():
    deep = json.dumps(json_span(step("deep"))).replace("[", '[{"key":"x","value":' + "[" * 3000 + "]" * 3000 + "},", 1)
    good = json.dumps(json_span(step("good")))
    body = '{"resourceSpans":[{"scopeSpans":[{"spans":[' + deep + "," + good + "]}]}]}"
    assert [event.run_id for event in decode_traces(body.encode(), JSON).events][-1] == "good"


@pytest.mark.parametrize(
    "fields",
    [
        {"traceId": 5},
        {"traceId": "no hexadecimal digits, but 32 ch"},
        {"traceId": "5b8efff7 98038103 d269b633 813fc"},
        {"startTimeUnixNano": "soon"},
        {"startTimeUnixNano": -1},
        {"startTimeUnixNano": 1.5},
        {"startTimeUnixNano": True},
        {"attributes": {}},
        {"status": 2},
        {"status": {"code": 2, "message": 5}},
        {"events": "many"},
        {"attributes": [5]},
        {"attributes": [{"key": 5}]},
        {"attributes": [*json_attributes(step("r")), {"key": "failpath.metadata.x", "value": 5}]},
        {"attributes": [*json_attributes(step("r")), {"key": "failpath.metadata.x", "value": {"intValue": "x"}}]},
        {"attributes": [*json_attributes(step("r")), {"key": "failpath.metadata.x", "value": {"boolValue": "true"}}]},
        {"attributes": [*json_attributes(step("r")), {"key": "failpath.metadata.x", "value": {"doubleValue": "x"}}]},
        {"attributes": [*json_attributes(step("r")), {"key": "failpath.metadata.x", "value": {"arrayValue": []}}]},
    ],
)
def test_a_json_field_of_the_wrong_type_costs_only_its_span(fields):
    # Where the attributes themselves are broken, the name still has to be seen in the span.
    bad = {"x": "failpath.", **json_span(step("bad")), **fields}
    decoded = spans_of(json_traces(json_span(step("good")), bad, json_span(step("last"), spanId="1" * 16)))
    assert [event.run_id for event in decoded.events] == ["good", "last"]
    assert len(decoded.rejected) == 1


def test_a_json_scope_or_resource_of_the_wrong_type_costs_no_other():
    body = json_traces(json_span(step("good")))
    body["resourceSpans"] += [
        5,
        {"scopeSpans": 5},
        {"scopeSpans": [5, {"spans": [5, json_span(step("last"))]}]},
        {"resource": 5, "scopeSpans": []},
        None,
    ]
    decoded = spans_of(body)
    assert [event.run_id for event in decoded.events] == ["good", "last"]
    assert len(decoded.rejected) + decoded.unmapped == 5


def test_json_takes_what_the_specification_allows():
    span = json_span(
        step("r", **{"failpath.metadata.n": 1}),
        traceId=TRACE_ID.hex().upper(),
        startTimeUnixNano=START_NS,
        endTimeUnixNano=END_NS,
        somethingNew={"deep": [1]},
        links=None,
        events=None,
        status=None,
    )
    for number in ({"intValue": 5}, {"intValue": "5"}, {"intValue": 5.0}):
        span["attributes"][-1]["value"] = number
        event = only(spans_of(json_traces(span) | {"new": 1}))
        assert (event.trace_id, event.timestamp, event.metadata) == (TRACE_ID.hex(), END_NS, {"n": 5})
    for written, meant in (("NaN", "nan"), ("-Infinity", "-inf"), ("0.5", 0.5), (2, 2)):
        span["attributes"][-1]["value"] = {"doubleValue": written}
        assert only(spans_of(json_traces(span))).metadata == {"n": meant}


def test_json_names_may_be_escaped():
    body = json.dumps(json_traces(json_span(step("r")))).replace("failpath.", "failpath\\u002e").encode()
    assert only(decode_traces(body, JSON)).run_id == "r"


def test_values_of_every_kind_become_metadata():
    values = {"b": b"raw", "nested": {"a": [1, {"b": True}]}, "none": None, "mixed": [1, "a"]}
    event = only(spans_of(traces(step("r") | {f"failpath.metadata.{name}": value for name, value in values.items()})))
    assert event.metadata == {"b": "raw", "nested": {"a": [1, {"b": True}]}, "none": None, "mixed": [1, "a"]}
    plain = {"nested": {"a": [1, {"b": True}]}, "mixed": [1, "a"]}
    event = only(
        spans_of(json_traces(json_span(step("r") | {f"failpath.metadata.{name}": value for name, value in plain.items()})))
    )
    assert event.metadata == plain


def test_a_resource_without_a_readable_service_leaves_the_service_unknown():
    assert only(spans_of(traces(step("r"), service=None))).service is None
    body = json_traces(json_span(step("r")))
    for broken in (
        None,
        5,
        {"attributes": 5},
        {"attributes": [{"key": "service.name"}]},
        {"attributes": [{"key": "service.name", "value": {"intValue": 5}}]},
    ):
        body["resourceSpans"][0]["resource"] = broken
        assert only(spans_of(body)).service is None


def test_an_unexpected_fault_in_one_item_is_a_refusal_of_that_item(monkeypatch):

    real = protobuf.span_ended
    monkeypatch.setattr(
        protobuf, "span_ended", lambda identity, facts: 1 / 0 if identity.run_id == "bad" else real(identity, facts)
    )
    decoded = spans_of(traces(step("bad"), step("good")))
    assert ([event.run_id for event in decoded.events], decoded.rejected) == (
        ["good"],
        ["the item cannot be read: ZeroDivisionError"],
    )


def test_answers_count_exactly_what_was_refused():
    assert trace_answer([], PROTOBUF) == log_answer([], PROTOBUF) == b""
    assert trace_answer([], JSON) == log_answer([], JSON) == b"{}"
    answer = ExportTraceServiceResponse.FromString(trace_answer(["a", "b", "a"], PROTOBUF)).partial_success
    assert (answer.rejected_spans, answer.error_message) == (3, "a; b")
    assert ExportLogsServiceResponse.FromString(log_answer(["a"], PROTOBUF)).partial_success.rejected_log_records == 1
    assert json.loads(trace_answer(["a", "b"], JSON)) == {"partialSuccess": {"rejectedSpans": "2", "errorMessage": "a; b"}}
    assert json.loads(log_answer(["a"], JSON)) == {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "a"}}
    assert len(trace_answer([f"reason {n}" * 50 for n in range(10_000)], PROTOBUF)) < 8192


def test_our_reading_schema_has_the_numbers_of_the_official_one():
    official = {
        "Request": ExportTraceServiceRequest,
        "Group": trace_pb2.ResourceSpans,
        "Scope": trace_pb2.ScopeSpans,
        "InstrumentationScope": common_pb2.InstrumentationScope,
        "Resource": resource_pb2.Resource,
        "Span": trace_pb2.Span,
        "Event": trace_pb2.Span.Event,
        "Status": trace_pb2.Status,
        "LogRecord": logs_pb2.LogRecord,
        "KeyValue": common_pb2.KeyValue,
        "AnyValue": common_pb2.AnyValue,
        "ArrayValue": common_pb2.ArrayValue,
        "KeyValueList": common_pb2.KeyValueList,
    }
    renamed = {"groups": "resource_spans", "scopes": "scope_spans", "items": "spans"}
    for message, fields in schema.FIELDS.items():
        known = official[message].DESCRIPTOR.fields_by_name
        for name, number, _ in fields:
            assert known[renamed.get(name, name)].number == number, (message, name)
    for logs_message, traces_message in (
        (ExportLogsServiceRequest, ExportTraceServiceRequest),
        (logs_pb2.ResourceLogs, trace_pb2.ResourceSpans),
        (logs_pb2.ScopeLogs, trace_pb2.ScopeSpans),
    ):
        as_numbers = [[field.number for field in message.DESCRIPTOR.fields] for message in (logs_message, traces_message)]
        assert as_numbers[0] == as_numbers[1]
