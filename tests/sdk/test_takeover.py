"""RecordingClient.take_over: for the time of a test the clients of the process record into one, and are then as they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from support.delivery import ScriptedExporter
from support.tracing import Tracing, told

from failpath_otel import FailpathClient, FailpathSpanProcessor, FlushResult, StepEvent
from failpath_otel.testing import RecordingClient

FOREIGN = {"failpath.flow.slug": "checkout", "failpath.run.id": "1", "failpath.step.key": "foreign"}


@pytest.fixture
def exporter() -> ScriptedExporter:
    """Where the service's own client sends to."""
    return ScriptedExporter()


@pytest.fixture
def service(exporter: ScriptedExporter, tracing: Tracing) -> Iterator[FailpathClient]:
    """A client as a module of a service has it."""
    with FailpathClient(exporter=exporter, tracer_provider=tracing.provider, flows=False) as client:
        yield client


def test_what_was_made_before_records_within_and_sends_again_after(
    service: FailpathClient, exporter: ScriptedExporter, client: RecordingClient, tracing: Tracing
) -> None:
    run = service.run("checkout", "1")
    block = run.step("block")
    decorated = service.step("decorated")(lambda: None)

    def all_of_it() -> None:
        with block:
            pass
        with run:
            decorated()
        service.record_step(flow_key="checkout", run_id="1", step_key="elsewhere", status="success")
        tracing.tracer.start_span("a span of a library", attributes=FOREIGN).end()

    with client.take_over() as taken:
        assert taken is client
        all_of_it()
        assert service.flush() == FlushResult(sent=7)
    story = "block:success decorated:success elsewhere:success foreign:success"
    assert client.story("checkout") == story
    assert exporter.events == []
    all_of_it()
    service.flush()
    assert len(exporter.events) == 7
    assert client.story("checkout") == story


def test_a_client_that_is_made_within_records_and_sends_after(client: RecordingClient, exporter: ScriptedExporter) -> None:
    with client.take_over():
        made = FailpathClient(exporter=exporter, flows=False)
        made.run("checkout", "1").skip("within")
        assert told(client.events) == ["within:skipped"]
    made.run("checkout", "1").skip("after")
    made.shutdown()
    assert told(exporter.events) == ["after:skipped"]
    assert told(client.events) == ["within:skipped"]


@pytest.mark.parametrize("options", [{"enabled": False}, {"exporter": "none"}], ids=["enabled=False", "exporter=none"])
def test_a_client_that_reports_to_nobody_records_within(client: RecordingClient, options: dict[str, Any]) -> None:
    silent = FailpathClient(flows=False, **options)
    run = silent.run("checkout", "1")
    with client.take_over():
        run.step("charge", lambda: None)
        silent.step("mail")(lambda: None)()
    run.step("after", lambda: None)
    assert client.story("checkout") == "charge:success"
    assert silent.flush() == FlushResult()


def test_a_shutdown_within_counts_for_the_block_alone(
    service: FailpathClient, exporter: ScriptedExporter, client: RecordingClient, tracing: Tracing
) -> None:
    for _ in range(2):
        with client.take_over():
            service.run("checkout", "1").skip("before")
            service.shutdown()
            service.run("checkout", "1").skip("late")
            tracing.tracer.start_span("late as well", attributes=FOREIGN).end()
            assert service.stats().dropped == {"shutdown": 1}
    # The foreign span is then the recording client's own processor's to see.
    assert client.story("checkout") == "before:skipped,skipped foreign:success,success"
    service.run("checkout", "1").skip("after")
    service.flush()
    assert told(exporter.events) == ["after:skipped"]


def test_the_mask_of_the_service_holds(client: RecordingClient, exporter: ScriptedExporter) -> None:
    def mask(event: StepEvent) -> StepEvent:
        return msgspec.structs.replace(event, metadata={**event.metadata, "card": "***"})

    with FailpathClient(exporter=exporter, mask=mask, flows=False) as service:
        with client.take_over():
            service.run("checkout", "1").skip("mail", metadata={"card": "4111"})
        assert client.events[0].metadata == {"card": "***"}


def test_delivery_await_neither_waits_nor_fails(client: RecordingClient) -> None:
    exporter = ScriptedExporter()
    exporter.gate.clear()
    service = FailpathClient(exporter=exporter, delivery="await", raise_on_send_error=True, send_timeout_millis=0, flows=False)
    with client.take_over():
        service.run("checkout", "1").step("charge", lambda: None)
    exporter.gate.set()
    service.shutdown()
    assert client.story("checkout") == "charge:success"


def test_another_recording_client_keeps_its_own_events(client: RecordingClient) -> None:
    with RecordingClient(flows=False) as other, client.take_over():
        other.run("checkout", "1").skip("mail")
        assert told(other.events) == ["mail:skipped"]
        assert client.events == []


def test_the_innermost_block_records(service: FailpathClient, client: RecordingClient, exporter: ScriptedExporter) -> None:
    run = service.run("checkout", "1")
    with RecordingClient(flows=False) as inner, client.take_over():
        run.skip("outer")
        with inner.take_over():
            run.skip("inner")
            made = FailpathClient(exporter=exporter, flows=False)
        run.skip("outer-again")
        made.run("checkout", "1").skip("made-within")
        assert told(inner.events) == ["inner:skipped"]
    assert told(client.events) == ["outer:skipped", "outer-again:skipped", "made-within:skipped"]
    made.shutdown()
    assert exporter.events == []


def test_a_span_processor_that_stands_on_its_own_is_taken_over_as_well(
    client: RecordingClient, exporter: ScriptedExporter
) -> None:
    apart = Tracing()
    processor = FailpathSpanProcessor(exporter=exporter)
    apart.provider.add_span_processor(processor)
    with client.take_over():
        apart.tracer.start_span("within", attributes=FOREIGN).end()
    apart.tracer.start_span("after", attributes=FOREIGN).end()
    processor.shutdown()
    assert told(client.events) == ["foreign:running", "foreign:success"]
    assert len(exporter.events) == 2


def test_a_client_that_is_gone_leaves_nothing_behind(client: RecordingClient) -> None:
    import gc

    from failpath_otel.delivery import takeover

    gc.collect()
    before = len(takeover._lenders)
    FailpathClient(enabled=False)
    gc.collect()
    assert len(takeover._lenders) == before
