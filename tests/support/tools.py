"""Scripts for tests: one piece of work under a tracing tool, with us and without, and what the tool then holds."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

MEMORY = """
import json, os, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
memory = InMemorySpanExporter()

def seen():
    for span in memory.get_finished_spans():
        yield {
            "id": span.context.span_id, "parent": span.parent and span.parent.span_id, "name": span.name,
            "scope": span.instrumentation_scope.name, "kind": span.kind.name, "status": span.status.status_code.name,
            "attributes": {key: value for key, value in span.attributes.items() if not key.startswith(VARIES)},
            "events": [[event.name, event.attributes.get("exception.type")] for event in span.events],
        }

VARIES = ("code.", "thread.", "process.", "logfire.sample", "logfire.pending")
"""

SDK = """
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
trace.set_tracer_provider(provider)
"""

LOGFIRE = """
import logfire
logfire.configure(send_to_logfire=False, console=False, metrics=False,
                  additional_span_processors=[SimpleSpanProcessor(memory)])
def own():
    with logfire.span("own of {tool}", tool="logfire"):
        logfire.info("a log of logfire")
"""

LANGFUSE = """
from langfuse import Langfuse
tool = Langfuse(public_key="pk-made-up", secret_key="sk-made-up", base_url="http://127.0.0.1:9", span_exporter=memory,
                flush_at=1, should_export_span=lambda span: True)
def own():
    with tool.start_as_current_observation(name="own of langfuse", as_type="generation", model="m", input="q") as generation:
        generation.update(output="a")
finish = tool.flush
"""

SENTRY = """
import sentry_sdk
from sentry_sdk.transport import Transport
envelopes = []
class Memory(Transport):
    def capture_envelope(self, envelope):
        envelopes.append(envelope)
otel = os.environ["MODE"] == "otel"
sentry_sdk.init(dsn="http://made-up@127.0.0.1:9/1", transport=Memory, traces_sample_rate=1.0, auto_session_tracking=False,
                auto_enabling_integrations=False, **({"instrumenter": "otel"} if otel else {}))
provider = TracerProvider()
if otel:
    from sentry_sdk.integrations.opentelemetry import SentrySpanProcessor
    provider.add_span_processor(SentrySpanProcessor())
trace.set_tracer_provider(provider)
def own():
    if otel:
        with trace.get_tracer("own").start_as_current_span("own of sentry"):
            sentry_sdk.capture_message("hello")
        return
    with sentry_sdk.start_transaction(name="own of sentry", op="task"):
        with sentry_sdk.start_span(op="db", name="select"):
            trace.get_tracer("own").start_span("none of sentry's").end()
            hold()
        sentry_sdk.capture_message("hello")
def seen():
    sentry_sdk.flush(1)
    for envelope in envelopes:
        for item in envelope.items:
            event = item.payload.json or {}
            spans = [{"id": span["span_id"], "parent": span.get("parent_span_id"), "op": span.get("op"),
                      "name": span.get("description"), "status": span.get("status")} for span in event.get("spans", ())]
            about = event.get("contexts", {}).get("trace", {})
            yield {"id": about.get("span_id"), "parent": about.get("parent_span_id"), "name": event.get("transaction"),
                   "type": item.type, "message": event.get("message"), "op": about.get("op"), "status": about.get("status"),
                   "crumbs": [crumb["category"] for crumb in event.get("breadcrumbs", {}).get("values", ())]}
            yield from spans
"""

DDTRACE = """
import ddtrace.auto
from ddtrace import tracer as datadog
from ddtrace.trace import TraceFilter
kept = []
class Keep(TraceFilter):
    def process_trace(self, spans):
        kept.extend(spans)
datadog.configure(trace_processors=[Keep()])
def own():
    with datadog.trace("own of datadog", resource="r"):
        with trace.get_tracer("own").start_as_current_span("within"):
            hold()
def seen():
    for span in kept:
        yield {"id": span.span_id, "parent": span.parent_id, "name": span.name, "resource": span.resource,
               "error": span.error, "route": span.get_tag("http.route")}
"""

WORK = """
failpath = None
if os.environ["OURS"] == "1":
    from failpath_otel import FailpathClient
    failpath = FailpathClient(flows=False)
if "own" not in globals():
    def own():
        trace.get_tracer("own").start_span("own").end()

def hold():
    if failpath is not None:
        # Its thread is started, and its requests are made, while the tool has a span open.
        failpath.run("checkout", "1").step("held", lambda: None)
        assert failpath.flush(5000), failpath.stats()

tracer = trace.get_tracer("a-library")
before = trace.get_tracer_provider()
caught = None
gone = LookupError("gone")
names = {"failpath.flow.slug": "checkout", "failpath.run.id": "1", "failpath.step.key": "library"}
with tracer.start_as_current_span("request", kind=trace.SpanKind.SERVER, attributes={"http.route": "/pay"}) as request:
    request.add_event("noticed")
    try:
        with tracer.start_as_current_span("query"):
            hold()
            raise gone
    except LookupError as error:
        caught = error
    with tracer.start_as_current_span("library", attributes=names):
        own()
    assert trace.get_current_span() is request
    if failpath is None:
        own()
    else:
        run = failpath.run("checkout", "1")
        assert run.step("own", lambda: own() or 7) == 7
        try:
            run.step("fails", lambda: exec("raise gone", globals()))
        except LookupError as error:
            assert error is gone
    assert trace.get_current_span() is request
assert caught is gone and gone.__cause__ is None and gone.__context__ is None
assert trace.get_tracer_provider() is before
assert failpath is None or failpath.flush(5000)
globals().get("finish", lambda: None)()
print(json.dumps(list(seen())))
if failpath is not None:
    failpath.run("checkout", "1").step("last", lambda: None)
"""


def theirs(held: list[dict[str, Any]]) -> Counter[str]:
    """All that is not a step of ours, with the names of what it lies within; our steps in between are passed over."""
    by_id = {item["id"]: item for item in held if item["id"]}

    def path(item: dict[str, Any]) -> list[str]:
        above = by_id.get(item["parent"])
        return [*(path(above) if above and above is not item else []), *([] if ours(item) else [str(item["name"])])]

    return Counter(
        json.dumps([path(item), {key: value for key, value in item.items() if key not in ("id", "parent")}], sort_keys=True)
        for item in held
        if not ours(item)
    )


def ours(item: dict[str, Any]) -> bool:
    """Whether it is a step of ours, which a tool may hold as a span's name or as its resource."""
    return any(str(name).startswith("checkout/") for name in (item["name"], item.get("resource")))
