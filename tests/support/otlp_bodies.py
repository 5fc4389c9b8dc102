"""OTLP bodies for tests, made with the official messages."""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from failpath_otel.events.step import StepEvent
from failpath_otel.server.otlp.decode import Decoded, decode_logs, decode_traces

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
TRACE_ID = bytes.fromhex("5b8efff798038103d269b633813fc60c")
SPAN_ID = bytes.fromhex("eee19b7ec3c1b174")
START_NS = 1_772_366_400_000_000_000
END_NS = START_NS + 1_500_000_000


def step(run_id: str, step_key: str = "charge-card", **more: Any) -> dict[str, Any]:
    """The attributes of a step span."""
    return {"failpath.flow.slug": "checkout", "failpath.run.id": run_id, "failpath.step.key": step_key, **more}


def put(attributes: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        any_value(attributes.add(key=name).value, value)


def any_value(target: Any, value: Any) -> None:
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, list):
        target.array_value.SetInParent()
        for item in value:
            any_value(target.array_value.values.add(), item)
    elif isinstance(value, dict):
        put(target.kvlist_value.values, value)


def add_span(request: Any, attributes: dict[str, Any], *, service: str | None = "shop", **fields: Any) -> Any:
    """Adds a span under a resource of its own."""
    resource = request.resource_spans.add()
    if service is not None:
        put(resource.resource.attributes, {"host.name": "h1", "service.name": service})
    known = {"trace_id": TRACE_ID, "span_id": SPAN_ID, "start_time_unix_nano": START_NS, "end_time_unix_nano": END_NS}
    span = resource.scope_spans.add().spans.add(**{"name": "a span", **known, **fields})
    put(span.attributes, attributes)
    return span


def traces(*attributes: dict[str, Any], **fields: Any) -> ExportTraceServiceRequest:
    """A request with a span for each set of attributes; the n-th has the n-th span id."""
    request = ExportTraceServiceRequest()
    for number, values in enumerate(attributes):
        add_span(request, values, **{"span_id": (int.from_bytes(SPAN_ID, "big") + number).to_bytes(8, "big"), **fields})
    return request


def add_log(request: Any, attributes: dict[str, Any], **fields: Any) -> Any:
    """Adds a log record under a resource of its own."""
    resource = request.resource_logs.add()
    put(resource.resource.attributes, {"service.name": "shop"})
    known = {"trace_id": TRACE_ID, "span_id": SPAN_ID, "time_unix_nano": START_NS, "event_name": "failpath.step"}
    record = resource.scope_logs.add().log_records.add(**{**known, **fields})
    put(record.attributes, attributes)
    return record


def logs(*attributes: dict[str, Any], **fields: Any) -> ExportLogsServiceRequest:
    """A request with a log record for each set of attributes."""
    request = ExportLogsServiceRequest()
    for values in attributes:
        add_log(request, values, **fields)
    return request


def json_value(value: Any) -> dict[str, Any]:
    """An ``AnyValue`` in OTLP's JSON."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [json_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": json_attributes(value)}}
    return {"stringValue": value}


def json_attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": json_value(value)} for name, value in values.items()]


def json_span(attributes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A span in OTLP's JSON."""
    plain = {
        "traceId": TRACE_ID.hex(),
        "spanId": SPAN_ID.hex(),
        "name": "a span",
        "kind": 1,
        "startTimeUnixNano": str(START_NS),
        "endTimeUnixNano": str(END_NS),
        "attributes": json_attributes(attributes),
        "status": {},
    }
    return {**plain, **fields}


def json_record(attributes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A log record of a step in OTLP's JSON."""
    plain = {"traceId": TRACE_ID.hex(), "spanId": SPAN_ID.hex(), "timeUnixNano": str(START_NS), "eventName": "failpath.step"}
    return {**plain, "attributes": json_attributes(attributes), **fields}


def json_traces(*spans: Any, service: str = "shop") -> dict[str, Any]:
    resource = {"attributes": json_attributes({"service.name": service})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


def json_logs(*records: Any) -> dict[str, Any]:
    resource = {"attributes": json_attributes({"service.name": "shop"})}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {}, "logRecords": list(records)}]}]}


def spans_of(body: object) -> Decoded:
    """What a body of traces gives, in the encoding that it is in."""
    if isinstance(body, dict):
        return decode_traces(json.dumps(body).encode(), JSON)
    assert isinstance(body, ExportTraceServiceRequest)
    return decode_traces(body.SerializeToString(), PROTOBUF)


def records_of(body: object) -> Decoded:
    if isinstance(body, dict):
        return decode_logs(json.dumps(body).encode(), JSON)
    assert isinstance(body, ExportLogsServiceRequest)
    return decode_logs(body.SerializeToString(), PROTOBUF)


def only(decoded: Decoded) -> StepEvent:
    assert (decoded.rejected, len(decoded.events)) == ([], 1)
    return decoded.events[0]
