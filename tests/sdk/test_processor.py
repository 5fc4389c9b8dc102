"""FailpathSpanProcessor: spans of other libraries that carry the three attributes are steps."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Status, StatusCode
from support.spans import sees_public_spans
from support.tracing import STEP, Alone, Tracing, ids_are_consistent, told

from failpath_otel import FailpathClient, FailpathSpanProcessor, MemoryExporter, StepError, StepEvent
from failpath_otel.testing import RecordingClient

pytestmark = pytest.mark.usefixtures("each_kind_of_span")

# Foreign spans


def test_a_span_with_the_three_attributes_at_its_start_gives_both_events(alone: Alone) -> None:
    span = alone.tracer.start_span("POST /pay", attributes={**STEP, "failpath.metadata.a": 1, "http.method": "POST"})
    assert told(alone.events) == ["charge:running"]
    span.set_attribute("failpath.metadata.b", 2)
    span.end()
    start, end = alone.events
    assert (start.status, end.status) == ("running", "success")
    assert (end.flow_key, end.run_id, end.step_key) == ("checkout", "1", "charge")
    assert start.metadata == {"a": 1}
    assert end.metadata == {"a": 1, "b": 2}
    assert end.started_at == start.timestamp
    assert end.event_id == f"{span.get_span_context().trace_id:032x}-{span.get_span_context().span_id:016x}-end"
    assert ids_are_consistent(alone.events)


def test_a_span_that_gets_the_attributes_later_gives_its_outcome_alone(alone: Alone) -> None:
    with alone.tracer.start_as_current_span("POST /pay") as span:
        span.set_attributes(STEP)
    (event,) = alone.events
    assert (event.status, event.step_key) == ("success", "charge")
    assert event.started_at is not None


def test_an_exception_and_status_error_give_the_error(alone: Alone) -> None:
    class Declined(Exception):
        pass

    with pytest.raises(Declined), alone.tracer.start_as_current_span("pay", attributes=STEP):
        raise Declined("no funds")
    assert alone.events[-1].error == StepError("Declined", "no funds")


def test_the_stack_of_a_foreign_span_is_sent_only_where_it_is_asked_for() -> None:
    alone = Alone(capture_stack=True)
    with pytest.raises(ValueError, match="x"), alone.tracer.start_as_current_span("pay", attributes=STEP):
        raise ValueError("x")
    error = alone.events[-1].error
    assert error is not None
    assert "Traceback" in (error.stack or "")
    alone.processor.shutdown()


def test_status_error_without_an_exception_gives_error_type_and_description(alone: Alone) -> None:
    with alone.tracer.start_as_current_span("pay", attributes={**STEP, "error.type": "http.Timeout"}) as span:
        span.set_status(Status(StatusCode.ERROR, "took too long"))
    with alone.tracer.start_as_current_span("pay", attributes=STEP) as span:
        span.set_status(Status(StatusCode.ERROR))
    assert [event.error for event in alone.events if event.is_outcome] == [
        StepError("Timeout", "took too long"),
        StepError("Error", ""),
    ]


def test_an_exception_under_an_unset_status_was_handled(alone: Alone) -> None:
    with alone.tracer.start_as_current_span("pay", attributes=STEP) as span:
        span.record_exception(ValueError("handled"))
    assert (alone.events[-1].status, alone.events[-1].error) == ("success", None)


def test_the_last_exception_counts(alone: Alone) -> None:
    with alone.tracer.start_as_current_span("pay", attributes=STEP) as span:
        span.record_exception(ValueError("first try"))
        span.record_exception(KeyError("last try"))
        span.set_status(Status(StatusCode.ERROR))
    error = alone.events[-1].error
    assert error is not None
    assert error.name == "KeyError"


@pytest.mark.parametrize("status", ["success", "error", "skipped"])
def test_the_status_attribute_is_respected_whatever_the_spans_status(alone: Alone, status: str) -> None:
    with alone.tracer.start_as_current_span("pay", attributes=STEP) as span:
        span.set_status(Status(StatusCode.ERROR if status == "success" else StatusCode.OK))
        span.set_attribute("failpath.step.status", status)
    assert told(alone.events) == ["charge:running", f"charge:{status}"]


def test_a_span_that_is_skipped_from_its_start_gives_no_running(alone: Alone) -> None:
    attributes = {**STEP, "failpath.step.status": "skipped", "failpath.step.skip_reason": "opted out"}
    alone.tracer.start_span("receipt", attributes=attributes).end()
    (event,) = alone.events
    assert (event.status, event.skip_reason) == ("skipped", "opted out")


def test_a_span_that_only_says_running_says_it_once(alone: Alone) -> None:
    alone.tracer.start_span("started", attributes={**STEP, "failpath.step.status": "running"}).end()
    later = alone.tracer.start_span("started later")
    later.set_attributes({**STEP, "failpath.step.status": "running"})
    later.end()
    assert told(alone.events) == ["charge:running", "charge:running"]
    assert ids_are_consistent(alone.events)


@pytest.mark.parametrize("status", ["done", "", 5, True, ["success"]])
def test_an_unknown_status_leaves_the_spans_own_outcome_with_a_warning(
    alone: Alone, caplog: pytest.LogCaptureFixture, status: Any
) -> None:
    alone.tracer.start_span("pay", attributes={**STEP, "failpath.step.status": status}).end()
    assert told(alone.events) == ["charge:running", "charge:success"]
    assert "is no status" in caplog.text


@pytest.mark.parametrize("missing", STEP)
def test_a_span_with_only_some_of_the_attributes_is_no_step(
    alone: Alone, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    alone.tracer.start_span("pay", attributes={name: value for name, value in STEP.items() if name != missing}).end()
    assert alone.events == []
    if missing != "failpath.flow.slug":  # spans without it are not looked at: they are nearly all there are
        assert "it is no step" in caplog.text


@pytest.mark.parametrize("name", STEP)
def test_a_span_with_an_empty_id_is_no_step(alone: Alone, caplog: pytest.LogCaptureFixture, name: str) -> None:
    alone.tracer.start_span("pay", attributes={**STEP, name: ""}).end()
    assert alone.events == []
    assert "empty" in caplog.text


def test_ids_of_other_types_are_taken_as_text(alone: Alone) -> None:
    alone.tracer.start_span("pay", attributes={**STEP, "failpath.run.id": 7}).end()
    assert {event.run_id for event in alone.events} == {"7"}


def test_foreign_spans_pass_untouched(alone: Alone) -> None:
    with alone.tracer.start_as_current_span("query", attributes={"db.system": "sqlite"}) as span:
        pass
    assert isinstance(span, ReadableSpan)
    assert dict(span.attributes or {}) == {"db.system": "sqlite"}
    assert alone.events == []


def test_other_spans_that_end_while_a_step_is_open_pass_untouched(alone: Alone) -> None:
    with alone.tracer.start_as_current_span("pay", attributes=STEP):
        for _ in range(3):
            alone.tracer.start_span("query").end()
    assert told(alone.events) == ["charge:running", "charge:success"]


# Identity from the start


def test_identity_outlives_the_eviction_of_attributes(alone: Alone) -> None:
    """The SDK keeps 128 attributes and drops the oldest."""
    with alone.tracer.start_as_current_span("pay", attributes={**STEP, "failpath.metadata.a": 1}) as span:
        for number in range(200):
            span.set_attribute(f"filler.{number}", number)
    assert isinstance(span, ReadableSpan)
    assert "failpath.flow.slug" not in (span.attributes or {})
    assert told(alone.events) == ["charge:running", "charge:success"]
    assert alone.events[-1].run_id == "1"
    assert alone.events[-1].metadata == {"a": 1}


def test_identity_that_changes_later_is_kept_from_the_start(alone: Alone) -> None:
    with alone.tracer.start_as_current_span("pay", attributes=STEP) as span:
        span.set_attribute("failpath.run.id", "another")
    assert {event.run_id for event in alone.events} == {"1"}


def test_a_limit_on_the_length_of_values_cuts_foreign_ids_but_not_those_of_steps() -> None:
    """The SDK cuts before anyone sees the value; a step reports itself and so keeps its id."""
    tracing = Tracing(span_limits=SpanLimits(max_attribute_length=4))
    client = RecordingClient(tracer_provider=tracing.provider, flows=False)
    client.run("checkout", "req_123456").step("charge", lambda: None)
    tracing.tracer.start_span("pay", attributes={**STEP, "failpath.run.id": "req_123456"}).end()
    assert [event.run_id for event in client.events] == ["req_123456", "req_123456", "req_", "req_"]


# Threads, processes, sampling


def test_a_span_may_end_in_another_thread(alone: Alone) -> None:
    span = alone.tracer.start_span("pay", attributes=STEP)
    thread = threading.Thread(target=span.end)
    thread.start()
    thread.join()
    assert told(alone.events) == ["charge:running", "charge:success"]


def test_spans_of_many_threads_are_told_apart(alone: Alone) -> None:
    def work(number: int) -> None:
        for _ in range(50):
            with alone.tracer.start_as_current_span("pay", attributes={**STEP, "failpath.run.id": str(number)}):
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(alone.events) == 8 * 50 * 2
    assert ids_are_consistent(alone.events)


def test_a_recorded_span_that_is_not_sampled_is_a_step_all_the_same() -> None:
    class RecordOnly(Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            return SamplingResult(Decision.RECORD_ONLY, kwargs.get("attributes") or args[4])

        def get_description(self) -> str:
            return "record only"

    tracing = Tracing(sampler=RecordOnly())
    client = RecordingClient(tracer_provider=tracing.provider, flows=False)
    client.run("checkout", "1").step("own", lambda: None)
    tracing.tracer.start_span("pay", attributes=STEP).end()
    assert tracing.spans == []
    assert told(client.events) == ["own:running", "own:success", "charge:running", "charge:success"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_that_ends_its_parents_span_reports_nothing(tracing: Tracing) -> None:
    client = RecordingClient(tracer_provider=tracing.provider, flows=False)
    span = tracing.tracer.start_span("pay", attributes=STEP)
    child = os.fork()
    if child == 0:
        span.end()
        os._exit(len(client.events))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1  # the running event of before
    span.end()
    assert told(client.events) == ["charge:running", "charge:success"]


# Never raising


class Odd:
    """A span of some other SDK: nothing is where it is expected."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


@pytest.mark.parametrize("span", [None, object(), Odd()], ids=["none", "object", "odd"])
def test_whatever_span_is_given_no_method_raises(alone: Alone, span: Any) -> None:
    alone.processor.on_start(span)
    alone.processor.on_start(span, context.Context())
    alone.processor.on_end(span)
    assert alone.events == []


def test_a_sink_that_raises_is_asked_once_and_the_service_goes_on(client: RecordingClient, tracing: Tracing) -> None:
    def fail(event: StepEvent) -> None:
        raise RuntimeError("hook")

    client.on_event = fail
    tracing.tracer.start_span("pay", attributes=STEP).end()
    assert told(client.events) == ["charge:running", "charge:success"]


def test_spans_still_pass_after_shutdown(alone: Alone) -> None:
    alone.processor.shutdown()
    alone.processor.shutdown()
    alone.tracer.start_span("pay", attributes=STEP).end()
    assert alone.exporter.events == []
    assert alone.processor.force_flush(0)


def test_a_disabled_processor_does_nothing() -> None:
    alone = Alone(enabled=False)
    alone.tracer.start_span("pay", attributes=STEP).end()
    assert alone.events == []
    assert alone.processor.sink is None
    alone.processor.shutdown()


def test_more_open_spans_than_can_be_kept_cost_the_oldest_its_outcome(
    alone: Alone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # No option sets it, and as many spans as may be open really, a hundred thousand, are too many for a test.
    monkeypatch.setattr("failpath_otel.tracing.processor._MAX_OPEN_STEPS", 2)
    spans = [alone.tracer.start_span("pay", attributes={**STEP, "failpath.run.id": str(n)}) for n in range(3)]
    for span in spans:
        span.end()
    assert [event.run_id for event in alone.events if event.is_outcome] == ["1", "2"]
    assert "more than 2 step spans are open" in caplog.text


def test_default_metadata_is_on_foreign_spans_too() -> None:
    alone = Alone(default_metadata={"region": "eu", "a": "default"})
    alone.tracer.start_span("pay", attributes={**STEP, "failpath.metadata.a": "span"}).end()
    assert [event.metadata for event in alone.events] == [{"region": "eu", "a": "span"}] * 2
    alone.processor.shutdown()


def test_a_mask_sees_foreign_spans_too() -> None:
    import msgspec

    alone = Alone(mask=lambda event: msgspec.structs.replace(event, metadata={}))
    alone.tracer.start_span("pay", attributes={**STEP, "failpath.metadata.card": "4111"}).end()
    assert [event.metadata for event in alone.events] == [{}, {}]
    alone.processor.shutdown()


def test_a_client_and_a_processor_of_ones_own_may_stand_together(tracing: Tracing) -> None:
    """The client's own steps are its own business; of foreign spans the first attached tells."""
    exporter = MemoryExporter()
    with FailpathClient(exporter=exporter, flows=False, tracer_provider=tracing.provider) as client:
        alone = Alone(tracing.provider)
        client.run("checkout", "1").step("own", lambda: None)
        tracing.tracer.start_span("pay", attributes=STEP).end()
        client.flush()
        assert told(exporter.events) == ["own:running", "own:success", "charge:running", "charge:success"]
        assert alone.events == []
        alone.processor.shutdown()


def test_an_sdk_that_keeps_attributes_elsewhere_is_served_the_public_way(
    client: RecordingClient, tracing: Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("on_start", "on_end"):
        monkeypatch.setattr(FailpathSpanProcessor, name, sees_public_spans(getattr(FailpathSpanProcessor, name)))
    client.run("checkout", "1").step("own", lambda: None)
    tracing.tracer.start_span("query").end()
    tracing.tracer.start_span("pay", attributes=STEP).end()
    later = tracing.tracer.start_span("pay")
    later.set_attributes(STEP)
    later.end()
    assert told(client.events) == ["own:running", "own:success", "charge:running", "charge:success", "charge:success"]
    assert ids_are_consistent(client.events)
