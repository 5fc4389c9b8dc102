"""The same span by the processor and by a Collector, with the same rules, is the same event."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import SpanKind, Status, StatusCode
from support.otlp_bodies import json_attributes

from failpath_otel import (
    Attribute,
    ErrorWhen,
    FailpathSpanProcessor,
    Glob,
    MemoryExporter,
    Present,
    Range,
    Regex,
    SkipWhen,
    SpanRule,
    SpanRules,
    StepEvent,
)
from failpath_otel.rules import CompiledRules
from failpath_otel.server.otlp.decode import decode_traces

pytestmark = pytest.mark.usefixtures("each_kind_of_span")

NAMES = ("GET", "GET /a", "POST /a", "send")
KEYS = ("a", "b", "http.response.status_code", "error.type")
VALUES: Any = st.one_of(st.sampled_from(["x", "yy", "", "500", "é"]), st.integers(-1, 600), st.booleans(), st.just(1.5))
TEXTS: Any = st.sampled_from([None, "GET /a", Glob("GET*"), Glob("*/a"), Regex("^POST"), Regex("a")])
SCOPES: Any = st.sampled_from([None, "lib.web", Glob("lib.*"), Regex("db$")])
CONDITION: Any = st.one_of(
    VALUES,
    st.builds(Present, st.booleans()),
    st.sampled_from([Range(at_least=500), Range(0, 400), Glob("x*"), Regex("y"), ("x", 1, True)]),
)
CONDITIONS: Any = st.dictionaries(st.sampled_from(KEYS), CONDITION, max_size=2)
TEMPLATES: Any = st.sampled_from([None, "HTTP {http.response.status_code}", "{a}{b}", "plain"])
RULE: Any = st.one_of(
    st.builds(SpanRule, name=TEXTS, attributes=CONDITIONS, ignore=st.just(True)),
    st.builds(
        SpanRule,
        name=TEXTS,
        kind=st.sampled_from([None, "server", ("client", "internal")]),
        scope=SCOPES,
        attributes=CONDITIONS,
        flow=st.sampled_from(["checkout", Attribute("a")]),
        step=st.sampled_from(["pay", Attribute("b")]),
        run=st.sampled_from([("trace",), (Attribute("a"),), (Attribute("b"), "parent", "trace"), ("baggage", "trace")]),
        metadata=st.sampled_from([(), ("a", "http.response.status_code"), {"code": "http.response.status_code"}]),
        error=st.none() | st.builds(ErrorWhen, CONDITIONS, TEMPLATES, TEMPLATES),
        success=st.none() | st.dictionaries(st.sampled_from(KEYS), CONDITION, min_size=1, max_size=2),
        skipped=st.none() | st.builds(SkipWhen, CONDITIONS, TEMPLATES),
        running=st.booleans(),
    ),
)
ATTRIBUTES: Any = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)
OURS: Any = st.dictionaries(
    st.sampled_from(["failpath.step.status", "failpath.metadata.a", "failpath.run.id"]),
    st.sampled_from(["skipped", "error", "odd"]),
    max_size=2,
)


class Counted(IdGenerator):
    """Hypothesis seeds `random` alike for each example, and a span id that comes again is taken for one that has ended."""

    numbers = itertools.count(1)

    def generate_span_id(self) -> int:
        return next(self.numbers)

    def generate_trace_id(self) -> int:
        return next(self.numbers)


class TwoWays:
    """A processor with rules beside an exporter, whose spans a server reads with the same rules."""

    def __init__(self, *rules: SpanRule) -> None:
        self.rules = SpanRules(rules)
        self.events = MemoryExporter()
        self.exporter = InMemorySpanExporter()
        self.processor = FailpathSpanProcessor(exporter=self.events, rules=self.rules, capture_stack=True, project_key="")
        self.provider = TracerProvider(shutdown_on_exit=False, id_generator=Counted())
        self.provider.add_span_processor(self.processor)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def __enter__(self) -> TwoWays:
        return self

    def __exit__(self, *_: object) -> None:
        self.provider.shutdown()

    def told(self) -> list[StepEvent]:
        assert self.processor.force_flush(10_000)
        return list(self.events.events)

    def outcomes(self) -> list[StepEvent]:
        return sorted((event for event in self.told() if event.is_outcome), key=lambda event: event.event_id)

    def by_collector(self, kind: str) -> list[StepEvent]:
        spans = self.exporter.get_finished_spans()
        body = encode_spans(spans).SerializeToString() if kind == "protobuf" else json.dumps(as_json(spans)).encode()
        decoded = decode_traces(
            body, "application/x-protobuf" if kind == "protobuf" else "application/json", CompiledRules(self.rules)
        )
        assert decoded.rejected == []
        return sorted(decoded.events, key=lambda event: event.event_id)


def as_json(spans: Any) -> dict[str, Any]:
    """OTLP's JSON, with the ids in hexadecimal digits."""
    return {"resourceSpans": [_resource_span(span) for span in spans]}


def _resource_span(span: ReadableSpan) -> dict[str, Any]:
    context, scope = span.get_span_context(), span.instrumentation_scope
    assert context is not None
    assert scope is not None
    plain: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016X}",
        "parentSpanId": "" if span.parent is None else f"{span.parent.span_id:016x}",
        "name": span.name,
        "kind": f"SPAN_KIND_{span.kind.name}",
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": json_attributes(dict(span.attributes or {})),
        "events": [{"name": event.name, "attributes": json_attributes(dict(event.attributes or {}))} for event in span.events],
        "status": {"code": span.status.status_code.value, "message": span.status.description or ""},
    }
    resource = {"attributes": json_attributes({"service.name": span.resource.attributes["service.name"]})}
    return {"resource": resource, "scopeSpans": [{"scope": {"name": scope.name}, "spans": [plain]}]}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rules=st.lists(RULE, max_size=4),
    name=st.sampled_from(NAMES),
    kind=st.sampled_from(list(SpanKind)),
    scope=st.sampled_from(["lib.web", "lib.db", "other"]),
    at_start=ATTRIBUTES,
    later=ATTRIBUTES,
    ours=OURS,
    status=st.sampled_from([None, Status(StatusCode.ERROR, "it broke"), Status(StatusCode.OK)]),
    raises=st.booleans(),
    encoding=st.sampled_from(["protobuf", "json"]),
)
def test_both_ways_agree_whatever_the_rules(rules, name, kind, scope, at_start, later, ours, status, raises, encoding) -> None:
    with TwoWays(*rules) as ways:
        span = ways.provider.get_tracer(scope).start_span(name, kind=kind, attributes={**at_start, **ours})
        span.set_attributes({key: value for key, value in later.items() if key not in at_start})
        if raises:
            span.record_exception(ValueError("no"))
        if status is not None:
            span.set_status(status)
        span.end()
        assert ways.outcomes() == ways.by_collector(encoding)
        running = [event for event in ways.told() if event.status == "running"]
        identities = {(event.flow_key, event.run_id, event.step_key) for event in ways.told()}
        assert len(identities) <= 1
        assert not running or ways.outcomes(), "a running has its outcome"


def test_the_parents_run_is_found_by_both_ways_through_spans_that_are_no_steps() -> None:
    rules = (
        SpanRule(name="POST /checkout", flow="checkout", step="order", run=(Attribute("order.id"), "trace")),
        SpanRule(name=Glob("INSERT*"), step="store-order", run=("parent",)),
    )
    with TwoWays(*rules) as ways:
        tracer = ways.provider.get_tracer("lib.web")
        with (
            tracer.start_as_current_span("POST /checkout", attributes={"order.id": 7}),
            tracer.start_as_current_span("between"),
            tracer.start_as_current_span("INSERT orders"),
        ):
            pass
        with tracer.start_as_current_span("INSERT alone"):
            pass
        assert {(e.flow_key, e.run_id, e.step_key) for e in ways.outcomes()} == {
            ("checkout", "7", "order"),
            ("checkout", "7", "store-order"),
        }
        assert ways.outcomes() == ways.by_collector("protobuf") == ways.by_collector("json")
        assert [e.status for e in ways.told()] == ["running", "running", "success", "success"]
