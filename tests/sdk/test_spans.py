"""The spans that steps open: what a sampler, another processor and a tracing backend see of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from support.tracing import Tracing, Watcher

from failpath_otel.testing import RecordingClient
from failpath_otel.version import VERSION


def test_a_steps_span_has_its_name_kind_scope_and_attributes(client: RecordingClient, tracing: Tracing) -> None:
    client.run("checkout", "req_1", metadata={"route": "/checkout"}).step("charge", lambda: None, metadata={"cart": 5})
    span = tracing.span
    assert span.name == "checkout/charge"
    assert span.kind is SpanKind.INTERNAL
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("failpath_otel", VERSION)
    assert dict(span.attributes or {}) == {
        "failpath.flow.slug": "checkout",
        "failpath.run.id": "req_1",
        "failpath.step.key": "charge",
        "failpath.step.status": "success",
        "failpath.metadata.route": "/checkout",
        "failpath.metadata.cart": 5,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


def test_events_and_span_agree_on_ids_and_times(client: RecordingClient, tracing: Tracing) -> None:
    client.run("checkout", "1").step("charge", lambda: None)
    start, end = client.events
    span = tracing.span
    assert start.trace_id == f"{span.context.trace_id:032x}"
    assert start.span_id == f"{span.context.span_id:016x}"
    assert (start.timestamp, end.timestamp) == (span.start_time, span.end_time)


def test_another_processor_sees_the_attributes_at_the_start(client: RecordingClient, tracing: Tracing) -> None:
    watcher = Watcher()
    tracing.provider.add_span_processor(watcher)
    client.run("checkout", "1", metadata={"a": 1}).step("charge", lambda: None)
    assert watcher.at_start == [
        {
            "failpath.flow.slug": "checkout",
            "failpath.run.id": "1",
            "failpath.step.key": "charge",
            "failpath.metadata.a": 1,
        }
    ]


def test_a_sampler_sees_the_attributes() -> None:
    class Picky(Sampler):
        seen: list[dict[str, Any]] = []  # noqa: RUF012

        def should_sample(
            self,
            parent_context: Any,
            trace_id: int,
            name: str,
            kind: Any = None,
            attributes: Any = None,
            *rest: Any,
            **more: Any,
        ) -> SamplingResult:
            self.seen.append(dict(attributes or {}))
            wanted = (attributes or {}).get("failpath.flow.slug") == "checkout"
            return SamplingResult(Decision.RECORD_AND_SAMPLE if wanted else Decision.DROP, attributes)

        def get_description(self) -> str:
            return "picky"

    tracing = Tracing(sampler=Picky())
    client = RecordingClient(tracer_provider=tracing.provider, flows=False)
    client.run("checkout", "1").step("charge", lambda: None)
    client.run("other", "1").step("charge", lambda: None)
    assert [span.name for span in tracing.spans] == ["checkout/charge"]
    assert Picky.seen[0] == {"failpath.flow.slug": "checkout", "failpath.run.id": "1", "failpath.step.key": "charge"}
    assert client.story("other") == "charge:success"


def test_a_sampler_that_replaces_the_attributes_changes_no_event() -> None:
    class Replacing(Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, {"replaced": True})

        def get_description(self) -> str:
            return "replacing"

    tracing = Tracing(sampler=Replacing())
    client = RecordingClient(tracer_provider=tracing.provider, flows=False)
    client.run("checkout", "1").step("charge", lambda: None)
    assert client.story("checkout", "1") == "charge:success"
    assert len(client.events) == 2


def test_an_exception_is_recorded_once_with_error_type_and_status(client: RecordingClient, tracing: Tracing) -> None:
    class Declined(Exception):
        pass

    with pytest.raises(Declined), client.run("checkout", "1").step("charge"):
        raise Declined("no funds")
    span = tracing.span
    (event,) = span.events
    attributes = event.attributes or {}
    qualified = f"{__name__}.{Declined.__qualname__}"
    assert event.name == "exception"
    assert attributes["exception.type"] == qualified
    assert attributes["exception.message"] == "no funds"
    assert "Traceback" in str(attributes["exception.stacktrace"])
    assert (span.attributes or {})["error.type"] == qualified
    assert (span.attributes or {})["failpath.step.status"] == "error"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "Declined: no funds")


def test_a_builtin_exceptions_type_has_no_module(client: RecordingClient, tracing: Tracing) -> None:
    with pytest.raises(KeyError), client.run("checkout", "1").step("charge"):
        raise KeyError("x")
    assert (tracing.span.attributes or {})["error.type"] == "KeyError"


def test_ok_set_by_the_body_and_then_a_raise_stays_an_error_for_failpath(client: RecordingClient, tracing: Tracing) -> None:
    """OpenTelemetry lets OK stand against a later ERROR, so the step says its outcome in an attribute of its own."""
    with pytest.raises(ValueError, match="late"), client.run("checkout", "1").step("charge") as step:
        step.span.set_status(Status(StatusCode.OK))
        raise ValueError("late")
    assert tracing.span.status.status_code is StatusCode.OK
    assert (tracing.span.attributes or {})["failpath.step.status"] == "error"
    assert client.story("checkout") == "charge:error(ValueError)"


def test_error_set_by_the_body_without_a_raise_stays_a_success_for_failpath(client: RecordingClient, tracing: Tracing) -> None:
    with client.run("checkout", "1").step("charge") as step:
        step.span.set_status(Status(StatusCode.ERROR, "handled"))
    assert tracing.span.status.status_code is StatusCode.ERROR
    assert (tracing.span.attributes or {})["failpath.step.status"] == "success"
    assert client.story("checkout") == "charge:success"


def test_a_body_that_ends_its_span_itself_still_gets_its_outcome(
    client: RecordingClient, tracing: Tracing, caplog: pytest.LogCaptureFixture
) -> None:
    with client.run("checkout", "1").step("charge") as step:
        step.span.end()
    assert client.story("checkout") == "charge:success"
    assert tracing.span.name == "checkout/charge"


def test_a_body_may_add_to_its_span(client: RecordingClient, tracing: Tracing) -> None:
    with client.run("checkout", "1").step("charge"):
        trace.get_current_span().set_attribute("own", 1)
        trace.get_current_span().update_name("renamed")
    assert tracing.span.name == "renamed"
    assert (tracing.span.attributes or {})["own"] == 1
    assert client.story("checkout") == "charge:success"


def test_children_of_the_body_are_children_of_the_step_and_the_step_is_a_child_of_what_is_current(
    client: RecordingClient, tracing: Tracing
) -> None:
    with tracing.tracer.start_as_current_span("request") as request:
        client.run("checkout", "1").step("charge", lambda: _child(tracing, "query"))
        _child(tracing, "afterwards")
    step, query, afterwards = tracing.named("checkout/charge"), tracing.named("query"), tracing.named("afterwards")
    assert step.parent is not None
    assert step.parent.span_id == request.get_span_context().span_id
    assert query.parent is not None
    assert query.parent.span_id == step.context.span_id
    assert afterwards.parent is not None
    assert afterwards.parent.span_id == request.get_span_context().span_id
    assert {span.context.trace_id for span in tracing.spans} == {request.get_span_context().trace_id}


def test_a_remote_parent_is_the_steps_parent(client: RecordingClient, tracing: Tracing) -> None:
    remote = SpanContext(0xAAA, 0xBBB, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with trace.use_span(NonRecordingSpan(remote)):
        client.run("checkout", "1").step("charge", lambda: None)
    assert tracing.span.parent == remote
    assert client.events[0].trace_id == f"{0xAAA:032x}"


def test_skips_and_recorded_steps_are_children_of_what_is_current(client: RecordingClient, tracing: Tracing) -> None:
    with tracing.tracer.start_as_current_span("request") as request:
        client.run("checkout", "1").skip("receipt")
        client.record_step(flow_key="checkout", run_id="1", step_key="ship", status="success")
        assert trace.get_current_span() is request
    for name in ("checkout/receipt", "checkout/ship"):
        parent = tracing.named(name).parent
        assert parent is not None
        assert parent.span_id == request.get_span_context().span_id


def test_a_recorded_error_is_on_its_span(client: RecordingClient, tracing: Tracing) -> None:
    client.record_step(flow_key="f", run_id="1", step_key="s", status="error", error=ValueError("declined"))
    span = tracing.span
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert (span.events[0].attributes or {})["exception.message"] == "declined"


def test_the_exception_on_a_span_has_the_time_of_its_end(client: RecordingClient, tracing: Tracing) -> None:
    client.record_step(flow_key="f", run_id="1", step_key="s", status="error", error=ValueError("declined"), timestamp=10**18)
    assert [event.timestamp for event in tracing.span.events] == [10**18]


def test_the_service_is_that_of_the_resource(client: RecordingClient) -> None:
    client.run("checkout", "1").step("charge", lambda: None)
    assert {event.service for event in client.events} == {"shop"}


def test_without_an_sdk_the_service_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, no_global_provider: None
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-the-environment")
    client = RecordingClient(flows=False)
    client.run("checkout", "1").step("charge", lambda: None)
    assert {event.service for event in client.events} == {"from-the-environment"}


def test_a_clock_that_is_set_back_gives_no_negative_duration(
    client: RecordingClient, tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client.run("checkout", "1").step("charge"):
        monkeypatch.setattr("failpath_otel.clock.time_ns", lambda: 1_000)
    assert client.events[-1].duration_ms == 0
    assert tracing.span.end_time == tracing.span.start_time


def test_links_are_not_invented(client: RecordingClient, tracing: Tracing) -> None:
    client.run("checkout", "1").step("charge", lambda: None)
    assert tracing.span.links == ()


def test_an_exception_that_the_body_recorded_itself_is_not_lost(client: RecordingClient, tracing: Tracing) -> None:
    with contextlib.suppress(ValueError), client.run("checkout", "1").step("charge") as step:
        try:
            raise KeyError("handled")
        except KeyError as error:
            step.span.record_exception(error)
        raise ValueError("final")
    messages: Sequence[Any] = [(event.attributes or {})["exception.type"] for event in tracing.span.events]
    assert messages == ["KeyError", "ValueError"]
    error = client.events[-1].error
    assert error is not None
    assert error.name == "ValueError"


def _child(tracing: Tracing, name: str) -> None:
    with tracing.tracer.start_as_current_span(name):
        pass
