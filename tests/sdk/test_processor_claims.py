"""Where several processors or clients see a span, one takes it: each event comes once."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from support.tracing import STEP, Alone, Tracing, ids_are_consistent, told

from failpath_otel import FailpathSpanProcessor
from failpath_otel.testing import RecordingClient
from failpath_otel.tracing.attachment import Attachment

pytestmark = pytest.mark.usefixtures("each_kind_of_span")


def test_a_clients_own_steps_and_foreign_spans_each_come_once(client: RecordingClient, tracing: Tracing) -> None:
    with tracing.tracer.start_as_current_span("pay", attributes=STEP):
        client.run("checkout", "1").step("inner", lambda: None)
    assert told(client.events) == ["charge:running", "inner:running", "inner:success", "charge:success"]
    assert ids_are_consistent(client.events)
    assert {event.service for event in client.events} == {"shop"}


def test_two_clients_on_one_provider_share_foreign_spans_and_keep_their_own_steps(tracing: Tracing) -> None:
    first = RecordingClient(tracer_provider=tracing.provider, flows=False)
    second = RecordingClient(tracer_provider=tracing.provider, flows=False)
    first.run("checkout", "1").step("first", lambda: None)
    second.run("checkout", "1").step("second", lambda: None)
    tracing.tracer.start_span("pay", attributes=STEP).end()
    later = tracing.tracer.start_span("pay")
    later.set_attributes(STEP)
    later.end()
    assert told(first.events) == [
        "first:running",
        "first:success",
        "charge:running",
        "charge:success",
        "charge:success",
    ]
    assert told(second.events) == ["second:running", "second:success"]


def test_when_the_first_client_is_shut_down_the_second_takes_over(tracing: Tracing) -> None:
    first = RecordingClient(tracer_provider=tracing.provider, flows=False)
    second = RecordingClient(tracer_provider=tracing.provider, flows=False)
    first.shutdown()
    tracing.tracer.start_span("pay", attributes=STEP).end()
    assert first.events == []
    assert told(second.events) == ["charge:running", "charge:success"]


def test_a_processor_that_was_added_twice_gives_each_event_once(alone: Alone) -> None:
    alone.provider.add_span_processor(alone.processor)
    alone.tracer.start_span("pay", attributes=STEP).end()
    later = alone.tracer.start_span("pay")
    later.set_attributes(STEP)
    later.end()
    assert told(alone.events) == ["charge:running", "charge:success", "charge:success"]
    assert ids_are_consistent(alone.events)


def test_two_processors_on_one_provider_give_each_event_once(alone: Alone) -> None:
    other = Alone(alone.provider)
    alone.tracer.start_span("pay", attributes=STEP).end()
    assert told(alone.events) == ["charge:running", "charge:success"]
    assert other.events == []


def test_under_a_concurrent_multi_processor_each_event_comes_once() -> None:
    provider = TracerProvider(active_span_processor=ConcurrentMultiSpanProcessor(2), shutdown_on_exit=False)
    first, second = Alone(provider), Alone(provider)
    for _ in range(50):
        provider.get_tracer("a-library").start_span("pay", attributes=STEP).end()
    events = first.events + second.events
    assert len(events) == 100
    assert len({event.event_id for event in events}) == 100
    provider.shutdown()


def test_many_threads_meeting_a_provider_at_once_attach_one_processor(tracing: Tracing) -> None:
    together = threading.Barrier(8)
    attach = Attachment(FailpathSpanProcessor(exporter="memory"))

    def work() -> None:
        together.wait(10)
        attach(tracing.provider)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tracing.provider.added) == 2
