"""`failpath-otel serve --rules`: spans that come through a Collector, by HTTP and gRPC, are steps by the same rules."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.otlp_bodies import JSON, PROTOBUF, json_span, json_traces, put, step
from support.otlp_calls import call
from support.served import command, environment, start

from failpath_otel import SpanRule, SpanRules
from failpath_otel.rules import CompiledRules, parse_rules
from failpath_otel.server.otlp.decode import Decoded, decode_traces

RULES: dict[str, Any] = {
    "version": 1,
    "rules": [
        {"name": {"glob": "GET /health*"}, "ignore": True},
        {
            "scope": {"glob": "web*"},
            "kind": "server",
            "attributes": {"http.route": "/checkout"},
            "flow": "checkout",
            "step": "order",
            "run": [{"attribute": "order.id"}],
            "error": {"when": {"http.response.status_code": {"at_least": 500}}, "name": "HTTP {http.response.status_code}"},
        },
        {"scope": "db", "flow": "checkout", "step": "store", "run": ["parent"]},
    ],
}


def decoded(*scoped: tuple[str, list[Any]], rules: SpanRules | None = None) -> Decoded:
    scopes = [{"scope": {"name": name}, "spans": spans} for name, spans in scoped]
    body = json.dumps({"resourceSpans": [{"scopeSpans": scopes}]}).encode()
    return decode_traces(body, JSON, CompiledRules(parse_rules(RULES) if rules is None else rules))


def web(order: Any = "o-1", span_id: str = "00000000000000aa", **more: Any) -> dict[str, Any]:
    return json_span({"http.route": "/checkout", "order.id": order}, kind=2, spanId=span_id, name="POST", **more)


def test_spans_that_match_no_rule_stay_what_they_were() -> None:
    spans = [json_span({"http.route": "/other"}, kind=2), json_span({"failpath.run.id": "1"}), json_span(step("explicit"))]
    plain = decode_traces(json.dumps(json_traces(*spans)).encode(), JSON)
    ruled = decode_traces(json.dumps(json_traces(*spans)).encode(), JSON, CompiledRules(parse_rules(RULES)))
    assert (plain.events, plain.rejected, plain.unmapped, plain.lacking) == (
        ruled.events,
        ruled.rejected,
        ruled.unmapped,
        ruled.lacking,
    )


def test_a_match_without_a_run_counts_as_incomplete_and_an_ignored_span_as_foreign() -> None:
    found = decoded(("web", [json_span({"http.route": "/checkout"}, kind=2), json_span({}, name="GET /health/live")]))
    assert (found.events, found.unmapped) == ([], 1)
    assert list(found.lacking) == [(("failpath.run.id",), None)]


def test_what_cannot_be_read_costs_that_span_alone() -> None:
    broken = [web(startTimeUnixNano="x"), {"name": 5}, "no span", {**web(), "attributes": [{"key": 1}]}]
    found = decoded(("web", [*broken, web()]))
    assert [event.run_id for event in found.events] == ["o-1"]
    assert len(found.rejected) == 1
    assert found.unmapped == 3


def test_a_parent_is_found_in_any_order_and_a_circle_has_none() -> None:
    child = json_span({}, spanId="00000000000000bb", parentSpanId="00000000000000AA")
    circle = [
        json_span({}, spanId="00000000000000c1", parentSpanId="00000000000000c2"),
        json_span({}, spanId="00000000000000c2", parentSpanId="00000000000000c1"),
    ]
    deep = [
        json_span({}, spanId=f"{number:016x}", parentSpanId=f"{number - 1:016x}", name="n") for number in range(0x1000, 0x2000)
    ]
    found = decoded(("db", [child, *circle]), ("other", deep), ("web", [web()]))
    assert {(event.step_key, event.run_id) for event in found.events} == {("store", "o-1"), ("order", "o-1")}
    assert found.incomplete == 2


def test_the_same_span_twice_in_a_body_is_twice_one_event() -> None:
    found = decoded(("web", [web(), web()]))
    assert len({event.event_id for event in found.events}) == 1


def test_steps_by_their_attributes_give_their_run_to_spans_below() -> None:
    child = json_span({}, spanId="00000000000000bb", parentSpanId="eee19b7ec3c1b174")
    found = decoded(("db", [child]), ("other", [json_span(step("r-9"))]))
    assert {event.run_id for event in found.events} == {"r-9"}
    assert len(found.events) == 2


def test_rules_by_scope_alone_leave_the_spans_of_other_scopes_unopened() -> None:
    rules = SpanRules((SpanRule(scope="web", flow="f", step="s", run=("trace",)),))
    found = decoded(("other", [{"spanId": 5}]), ("web", [web()]), rules=rules)
    assert (len(found.events), found.unmapped) == (1, 1)


def test_a_server_takes_rules_for_every_way_in(tmp_path: Path) -> None:
    path = tmp_path / "spans.json"
    path.write_text(json.dumps(RULES), encoding="utf-8")

    def request(order: str) -> Any:
        message = ExportTraceServiceRequest()
        scope = message.resource_spans.add().scope_spans.add()
        scope.scope.name = "web"
        span = scope.spans.add(
            trace_id=bytes(range(1, 17)),
            span_id=order.encode().rjust(8, b"x"),
            name="POST",
            kind=2,
            start_time_unix_nano=1_772_366_400_000_000_000,
            end_time_unix_nano=1_772_366_401_000_000_000,
        )
        put(span.attributes, {"http.route": "/checkout", "order.id": order, "http.response.status_code": 503})
        return message

    api = start(tmp_path / "server", "--rules", str(path), "--grpc-port", "0")
    try:
        as_json = {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "web"}, "spans": [web("by-json")]}]}]}
        assert api.post("/v1/traces", as_json).status == 200
        assert api.post("/v1/traces", request("by-http").SerializeToString(), {"Content-Type": PROTOBUF}).status == 200
        call(api.grpc, request("by-grpc"))
        runs = {run["runId"]: run for run in api.get("/api/runs", flow="checkout").json["runs"]}
        assert runs.keys() == {"by-json", "by-http", "by-grpc"}
        assert runs["by-grpc"]["firstError"]["name"] == "HTTP 503"
    finally:
        api.end()


def test_a_server_refuses_to_start_with_a_broken_file_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "spans.json"
    path.write_text('{"version": 1,\n "rules": [{"nam": "x"}]}', encoding="utf-8")
    asked = command("serve", "--port", "0", "--db", str(tmp_path / "x.db"), "--rules", str(path))
    told = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=60, env=environment())
    assert told.returncode != 0
    assert f"{path}:2: $.rules[0].nam is not known; did you mean name?" in told.stderr
