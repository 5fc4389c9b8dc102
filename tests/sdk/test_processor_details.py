"""What the processor makes of a span that other code opened, alike by its fast and its slow path."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode
from support.tracing import STEP, Alone, told

from failpath_otel import Attribute, SpanRule
from failpath_otel.tracing.ownership import SpanOwnership

pytestmark = pytest.mark.usefixtures("each_kind_of_span")


def test_metadata_of_the_start_wins_over_the_clients_also_when_the_sdk_evicted_it() -> None:
    """The SDK keeps 128 attributes and drops the oldest, so that at the end nothing of the start's is there any more."""
    alone = Alone(default_metadata={"region": "default", "tier": "gold"})
    with alone.tracer.start_as_current_span("pay", attributes={**STEP, "failpath.metadata.region": "eu"}) as span:
        for number in range(200):
            span.set_attribute(f"filler.{number}", number)
    assert [event.metadata for event in alone.events] == [{"region": "eu", "tier": "gold"}] * 2


def test_metadata_of_the_end_wins_over_that_of_the_start() -> None:
    alone = Alone(default_metadata={"region": "default"})
    with alone.tracer.start_as_current_span("pay", attributes={**STEP, "failpath.metadata.region": "eu"}) as span:
        span.set_attribute("failpath.metadata.region", "us")
    assert [event.metadata for event in alone.events] == [{"region": "eu"}, {"region": "us"}]


@pytest.mark.parametrize("rules", [[], [SpanRule(name="pay", flow="f", step="s", run=(Attribute("order.id"),))]])
@pytest.mark.parametrize(
    ("lacking", "warned"), [("failpath.flow.slug", False), ("failpath.run.id", True), ("failpath.step.key", True)]
)
def test_a_span_with_a_part_of_the_attributes_is_no_step_and_warned_of_where_it_names_a_flow(
    lacking: str, warned: bool, rules: list[SpanRule], caplog: pytest.LogCaptureFixture
) -> None:
    alone = Alone(rules=rules)
    alone.tracer.start_span("query", attributes={name: value for name, value in STEP.items() if name != lacking}).end()
    assert alone.events == []
    assert ["lacks some of" in message for message in caplog.messages] == [True] * warned


def test_a_processor_on_providers_with_other_resources_gives_each_span_the_service_of_its_own() -> None:
    alone = Alone(TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False))
    other = TracerProvider(resource=Resource({"service.name": "warehouse"}), shutdown_on_exit=False)
    other.add_span_processor(alone.processor)
    for provider in (alone.provider, other, alone.provider):
        provider.get_tracer("a-library").start_span("pay", attributes=STEP).end()
    outcomes = [event.service for event in alone.events if event.is_outcome]
    assert outcomes == ["shop", "warehouse", "shop"]


def test_spans_whose_ids_come_again_because_an_application_seeds_their_generator_are_steps_of_their_own(alone: Alone) -> None:
    for run in ("1", "1", "2"):
        random.seed(7)
        alone.tracer.start_span("pay", attributes={**STEP, "failpath.run.id": run}).end()
    random.seed(7)
    one = alone.tracer.start_span("pay", attributes=STEP)
    random.seed(7)
    other = alone.tracer.start_span("pay", attributes=STEP)  # while the one before is open, as in another thread
    other.set_status(Status(StatusCode.ERROR, "declined"))
    other.end()
    one.end()
    assert one.get_span_context().span_id == other.get_span_context().span_id
    assert told(alone.events) == [
        *("charge:running", "charge:success") * 3, "charge:running", "charge:running", "charge:error", "charge:success",
    ]  # fmt: skip
    assert [event.run_id for event in alone.events[:6]] == ["1"] * 4 + ["2"] * 2
    assert alone.events[8].started_at == alone.events[7].timestamp


def test_an_ended_span_belongs_to_whoever_took_it_while_other_threads_end_theirs() -> None:
    """The processors after the first see the end of a span later, when other threads' spans may have ended in between."""
    ownership, first, second = SpanOwnership(), object(), object()
    assert ownership.claim((1, 0, 0), first)
    ownership.end((1, 0, 0))
    for number in range(1000):
        ownership.claim((2, number, 0), first)
        ownership.end((2, number, 0))
    assert not ownership.claim((1, 0, 0), second)


def test_ended_spans_are_remembered_in_a_bounded_number() -> None:
    ownership, first, second = SpanOwnership(), object(), object()
    for number in range(2000):
        ownership.claim((1, number, 0), first)
        ownership.end((1, number, 0))
    taken = [number for number in range(2000) if ownership.claim((1, number, 0), second)]
    assert 0 < len(taken) < 2000
    assert taken == list(range(len(taken)))  # the oldest are forgotten
