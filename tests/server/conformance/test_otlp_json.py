"""OTLP in JSON, in every spelling that is legal, through the network; and the specification's own examples with other values.

The examples are those of ``opentelemetry-proto/examples``: trace.json, logs.json and events.json.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from support.otlp_bodies import (
    END_NS,
    START_NS,
    json_attributes,
    json_logs,
    json_record,
    json_span,
    json_traces,
    step,
    traces,
)
from support.served import Client, Reply

_numbers = iter(range(1, 10_000))


def _post(api: Client, path: str, body: Any) -> Reply:
    return api.post(path, body if isinstance(body, bytes) else json.dumps(body).encode())


def _only(api: Client, run_id: str) -> dict[str, Any]:
    (found,) = api.get("/api/run/events", flow="checkout", run_id=run_id).json["events"]
    assert isinstance(found, dict)
    return found


def _sent_span(api: Client, attributes: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The event of one span, which is taken."""
    number = next(_numbers)
    span = json_span(step(f"json-{number}") | (attributes or {}), **{"spanId": f"{number:016x}", **fields})
    reply = _post(api, "/v1/traces", json_traces(span))
    assert (reply.status, reply.json) == (200, {})
    return _only(api, f"json-{number}")


def _sent_value(api: Client, value: Any) -> Any:
    """What a metadata value becomes."""
    number = next(_numbers)
    span = json_span(step(f"json-{number}"), spanId=f"{number:016x}")
    span["attributes"].append({"key": "failpath.metadata.x", "value": value})
    reply = _post(api, "/v1/traces", json_traces(span))
    assert (reply.status, reply.json) == (200, {})
    return _only(api, f"json-{number}")["metadata"]["x"]


@pytest.mark.parametrize("write", [str.lower, str.upper, str.title])
def test_ids_are_hexadecimal_in_any_case(api, write):
    trace, span = "abcdef0123456789abcdef01234567" + f"{next(_numbers):02x}", "fedcba9876543210"
    found = _sent_span(api, traceId=write(trace), spanId=write(span), parentSpanId=write(span))
    assert (found["traceId"], found["spanId"], found["eventId"]) == (trace, span, f"{trace}-{span}-end")


TIMES = [
    START_NS,
    str(START_NS),
    f"{START_NS}.0",
    f"{START_NS}e0",
    "1772366400e9",
    "1.7723664E+18",
    "17723664000e8",
]


@pytest.mark.parametrize("time", TIMES)
def test_times_are_numbers_or_text_with_fraction_or_exponent(api, time):
    assert _sent_span(api, startTimeUnixNano=time)["startedAt"] == "2026-03-01T12:00:00.000000Z"
    number = next(_numbers)
    record = json_record(
        step(f"json-{number}", **{"failpath.step.status": "running"}), spanId=f"{number:016x}", timeUnixNano=time
    )
    assert _post(api, "/v1/logs", json_logs(record)).json == {}
    assert _only(api, f"json-{number}")["timestamp"] == "2026-03-01T12:00:00.000000Z"


@pytest.mark.parametrize("written", ["1772366400000000000.0", "1.7723664e18", "1772366400e9"])
def test_times_may_be_json_numbers_with_fraction_or_exponent(api, written):
    number = next(_numbers)
    body = json.dumps(json_traces(json_span(step(f"json-{number}"), spanId=f"{number:016x}", startTimeUnixNano="TIME")))
    assert _post(api, "/v1/traces", body.replace('"TIME"', written).encode()).json == {}
    assert _only(api, f"json-{number}")["startedAt"] == "2026-03-01T12:00:00.000000Z"


def test_a_nanosecond_is_not_lost_in_a_large_number(api):
    times = {"startTimeUnixNano": START_NS + 1000, "endTimeUnixNano": str(END_NS - 1000)}
    found = _sent_span(api, **times)
    assert (found["startedAt"], found["timestamp"]) == ("2026-03-01T12:00:00.000001Z", "2026-03-01T12:00:01.499999Z")


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ({"intValue": 55}, 55),
        ({"intValue": "55"}, 55),
        ({"intValue": "-9223372036854775808"}, -(2**63)),
        ({"intValue": 9223372036854775807}, 2**63 - 1),
        ({"intValue": 5.0}, 5),
        ({"intValue": "5e1"}, 50),
        ({"intValue": "-0"}, 0),
        ({"doubleValue": 637.704}, 637.704),
        ({"doubleValue": "637.704"}, 637.704),
        ({"doubleValue": 2}, 2),
        ({"doubleValue": "NaN"}, "nan"),
        ({"doubleValue": "-Infinity"}, "-inf"),
        ({"boolValue": False}, False),
        ({"stringValue": ""}, ""),
        ({"stringValue": "Grüße \U0001f600"}, "Grüße \U0001f600"),
        ({"stringValue": None, "intValue": 5}, 5),
        ({"arrayValue": {"values": [{"stringValue": "many"}, {"intValue": "2"}, {}]}}, ["many", 2, None]),
        ({"arrayValue": {}}, []),
        ({"kvlistValue": {"values": [{"key": "a", "value": {"kvlistValue": {"values": []}}}]}}, {"a": {}}),
        ({"bytesValue": "AQIDBA=="}, "AQIDBA=="),
        ({}, None),
        (None, None),
    ],
)
def test_values_of_every_kind_in_every_spelling(api, value, meant):
    assert _sent_value(api, value) == meant


@pytest.mark.parametrize("code", [2, 2.0, "2", "STATUS_CODE_ERROR"])
def test_the_status_is_told_by_number_or_by_name(api, code):
    found = _sent_span(api, {"error.type": "a.Declined"}, status={"code": code, "message": "no"})
    assert (found["status"], found["error"]) == ("error", {"name": "Declined", "message": "no"})


@pytest.mark.parametrize("code", [0, 1, "STATUS_CODE_OK", "STATUS_CODE_UNSET", None, 3, 99, "STATUS_CODE_NEW"])
def test_other_statuses_also_unknown_ones_are_no_error(api, code):
    assert _sent_span(api, status={"code": code})["status"] == "success"


@pytest.mark.parametrize("kind", [0, 2, 99, "SPAN_KIND_SERVER", "SPAN_KIND_NEW", None])
def test_the_kind_of_a_span_and_the_severity_of_a_record_may_be_anything(api, kind):
    assert _sent_span(api, kind=kind)["status"] == "success"
    number = next(_numbers)
    record = json_record(
        step(f"json-{number}", **{"failpath.step.status": "success"}), spanId=f"{number:016x}", severityNumber=kind
    )
    assert _post(api, "/v1/logs", json_logs(record)).json == {}


def test_fields_that_nobody_knows_are_passed_over_at_every_level(api):
    new = {"somethingNew": {"deep": [{"er": 1}]}, "another_one": [None, 1.5, "x"]}
    number = next(_numbers)
    span = json_span(step(f"json-{number}"), spanId=f"{number:016x}") | new
    span["attributes"] = [{**pair, **new, "value": {**new, **pair["value"]}} for pair in span["attributes"]]
    span["status"] = {"code": 2, **new}
    span["events"] = [{"name": "exception", "attributes": json_attributes({"exception.type": "New"}), **new}]
    body = json_traces(span)
    (group,) = body["resourceSpans"]
    group["resource"] |= new
    group["scopeSpans"][0] |= new
    group["scopeSpans"][0]["scope"] = {"name": "s", **new}
    group |= new
    assert _post(api, "/v1/traces", body | new).json == {}
    found = _only(api, f"json-{number}")
    assert (found["error"]["name"], found["service"]) == ("New", "shop")


@pytest.mark.parametrize(
    "field",
    ["parentSpanId", "traceState", "flags", "links", "droppedAttributesCount", "events", "status", "kind", "endTimeUnixNano"],
)
def test_null_is_as_good_as_no_field(api, field):
    assert _sent_span(api, **{field: None})["status"] == "success"


def test_white_space_and_the_order_of_keys_mean_nothing(api):
    number = next(_numbers)
    span = dict(reversed(json_span(step(f"json-{number}"), spanId=f"{number:016x}").items()))
    body = json.dumps(dict(reversed(json_traces(span)["resourceSpans"][0].items())), indent="\t").replace("\n", "\r\n")
    assert _post(api, "/v1/traces", f' \r\n{{"resourceSpans":[{body}]}}\t'.encode()).json == {}
    assert _only(api, f"json-{number}")["service"] == "shop"


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
def test_keys_by_the_names_of_protobuf_are_refused_and_not_lost_in_silence(api, path):
    # The specification calls these names not valid; as unknown fields they would be passed over with all that is in them.
    request = json_traces(json_span(step("snake"))) if path == "/v1/traces" else json_logs(json_record(step("snake")))
    (name, groups), *_ = request.items()
    original = {"resourceSpans": "resource_spans", "resourceLogs": "resource_logs"}[name]
    reply = _post(api, path, {original: groups})
    assert (reply.status, reply.json["code"]) == (400, 3)
    assert f"lowerCamelCase in OTLP's JSON, such as {name}" in reply.json["message"]
    assert _post(api, path, {original: groups, name: []}).status == 200


def test_ids_in_base64_as_protobufs_own_json_has_them_are_refused_with_the_reason(api):
    reply = _post(api, "/v1/traces", MessageToDict(traces(step("base64"))))
    assert reply.status == 200
    assert reply.json["partialSuccess"]["rejectedSpans"] == "1"
    assert "traceId must be pairs of hexadecimal digits" in reply.json["partialSuccess"]["errorMessage"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"resourceSpans"',
        b"{",
        b'{"resourceSpans": {}}',
        b'{"resourceLogs": "x", "resourceSpans": "x"}',
        b"{'resourceSpans': []}",
        json.dumps(json_traces()).encode("utf-16"),
        b"\xff\xfe",
    ],
)
def test_what_is_no_request_is_a_400(api, body):
    for path in ("/v1/traces", "/v1/logs"):
        reply = _post(api, path, body)
        if b"resource" in body and b"{" in body and path == "/v1/logs" and b"Logs" not in body and b"'" not in body:
            continue  # a key of the other signal is one that nobody knows here
        assert (reply.status, reply.json["code"], bool(reply.json["message"])) == (400, 3, True)


def _example(signal: str, run_id: str | None, number: int) -> dict[str, Any]:
    """The specification's example for a signal, with our own values; with a run id it tells of a step."""
    named = json_attributes(step(run_id)) if run_id else []
    ids = {"traceId": f"{number:032X}", "spanId": "00F067AA0BA902B7"}
    resource = {"attributes": json_attributes({"service.name": "till.service"})}
    scope = {"name": "till.library", "version": "2.1.0", "attributes": json_attributes({"till.scope": "a scope attribute"})}
    if signal == "trace":
        span = {
            **ids,
            "parentSpanId": "00F067AA0BA902B6",
            "name": "I'm a step of a shop",
            "startTimeUnixNano": str(START_NS),
            "endTimeUnixNano": str(END_NS),
            "kind": 2,
            "attributes": [*json_attributes({"till.span": "a value"}), *named],
        }
        return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": [span]}]}]}
    record = {
        "timeUnixNano": str(END_NS),
        "observedTimeUnixNano": str(END_NS + 5),
        "severityNumber": 10 if signal == "logs" else 9,
        "severityText": "Information",
        "attributes": [
            *json_attributes({"a.string": "some text", "a.bool": True, "an.int": 10, "a.double": 63.5}),
            *json_attributes({"an.array": ["many", "values"], "a.map": {"a.key": "a value"}}),
            *(named and [*named, *json_attributes({"failpath.step.status": "success"})]),
        ],
    }
    if signal == "logs":
        record |= {**ids, "body": {"stringValue": "An example of a log record"}}
        if named:
            record["attributes"] += json_attributes({"event.name": "failpath.step"})
    else:
        kinds = {"type": 0, "url": "https://till.example/", "title": "Till"}
        record |= {
            "eventName": "failpath.step" if named else "till.opened",
            "body": {"kvlistValue": {"values": json_attributes(kinds)}},
        }
        record |= ids if named else {}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": [record]}]}]}


@pytest.mark.parametrize(("number", "signal"), [(0xABC0, "trace"), (0xABC1, "logs"), (0xABC2, "events")])
def test_the_examples_of_the_specification_are_taken_and_belong_to_nobody(api, number, signal):
    path = "/v1/traces" if signal == "trace" else "/v1/logs"
    before = api.get("/api/intake").json
    reply = _post(api, path, _example(signal, None, number))
    assert (reply.status, reply.json) == (200, {})
    after = api.get("/api/intake").json
    assert {name: after[name] - before[name] for name in ("accepted", "rejected", "unmapped", "incomplete")} == {
        "accepted": 0,
        "rejected": 0,
        "unmapped": 1,
        "incomplete": 0,
    }


@pytest.mark.parametrize(("number", "signal"), [(0xABD0, "trace"), (0xABD1, "logs"), (0xABD2, "events")])
def test_the_examples_of_the_specification_that_name_a_step_are_its_outcome(api, number, signal):
    path = "/v1/traces" if signal == "trace" else "/v1/logs"
    reply = _post(api, path, json.dumps(_example(signal, f"example-{signal}", number), indent=2).encode())
    assert (reply.status, reply.json) == (200, {})
    found = _only(api, f"example-{signal}")
    trace = f"{number:032x}"
    assert found["eventId"] == f"{trace}-00f067aa0ba902b7-end"
    assert (found["status"], found["service"], found["timestamp"]) == ("success", "till.service", "2026-03-01T12:00:01.500000Z")
